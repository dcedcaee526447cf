"""The TensorRT library, whichever is installed, and the engine files that it makes."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, cast

from srcli.errors import BackendError
from srcli.system.cuda import driver

if TYPE_CHECKING:
    import tensorrt

Flavour = Literal["tensorrt", "tensorrt_rtx"]
Shape = tuple[int, ...]
"""NCHW."""

_OLDEST = 10  # major version of TensorRT; networks are strongly typed from here on


class TensorRt(Protocol):
    """The names that srcli uses of the module that `load_tensorrt` returns."""

    __name__: str
    __version__: str
    Builder: type[tensorrt.Builder]
    BuilderFlag: type[tensorrt.BuilderFlag]
    ComputeCapability: Any
    """Only in TensorRT-RTX, like the next two."""

    CudaGraphStrategy: Any
    DynamicShapesKernelSpecializationStrategy: Any
    ExecutionContextAllocationStrategy: type[tensorrt.ExecutionContextAllocationStrategy]
    HardwareCompatibilityLevel: type[tensorrt.HardwareCompatibilityLevel]
    ILogger: type[tensorrt.ILogger]
    IProgressMonitor: type[tensorrt.IProgressMonitor]
    LayerInformationFormat: type[tensorrt.LayerInformationFormat]
    MemoryPoolType: type[tensorrt.MemoryPoolType]
    NetworkDefinitionCreationFlag: type[tensorrt.NetworkDefinitionCreationFlag]
    OnnxParser: type[tensorrt.OnnxParser]
    ProfilingVerbosity: type[tensorrt.ProfilingVerbosity]
    Runtime: type[tensorrt.Runtime]
    TensorIOMode: type[tensorrt.TensorIOMode]


def load_tensorrt() -> TensorRt:
    """Import TensorRT 10 or newer, or TensorRT-RTX if that is what is installed.

    Raises:
        BackendError: Neither can be imported; the message names the package to install.
    """
    broken: list[str] = []
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        try:
            if name == "tensorrt_rtx_bindings":
                # Loads the shared libraries that the bindings are linked to.
                importlib.import_module("tensorrt_rtx_libs")
            trt = cast("TensorRt", importlib.import_module(name))
        except ModuleNotFoundError:
            continue
        except (ImportError, OSError) as error:  # the package is there, its libraries are not
            broken.append(f"{name} is installed but cannot be loaded ({error})")
            continue
        if not hasattr(trt, "Builder"):  # a mere folder of this name
            continue
        if flavour_of(trt) == "tensorrt" and int(trt.__version__.partition(".")[0]) < _OLDEST:
            broken.append(f"tensorrt {trt.__version__} is too old")
            continue
        return trt
    reason = "; ".join(broken) or "TensorRT is not installed"
    raise BackendError(f"{reason}", 'Run `pip install "tensorrt>=10"`, on a machine with a GPU.')


def times(shape: Sequence[int]) -> str:
    """Return a shape as people and TensorRT's tools write it: `1x3x360x640`."""
    return "x".join(str(side) for side in shape)


def flavour_of(trt: TensorRt) -> Flavour:
    """Name the library that a module belongs to; the engines of the two are not interchangeable."""
    name = trt.__name__
    return "tensorrt_rtx" if name.startswith("tensorrt_rtx") else "tensorrt"


def collecting_logger(trt: TensorRt) -> tuple[tensorrt.ILogger, list[str]]:
    """Return a logger that prints nothing, and the list of warnings and errors that it fills."""
    messages: list[str] = []
    serious = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING)
    base: Any = trt.ILogger

    class Logger(base):  # type: ignore[misc]  # the base exists once TensorRT is loaded
        def __init__(self) -> None:
            base.__init__(self)  # the bindings demand it by this name, `super()` is refused

        def log(self, severity: tensorrt.ILogger.Severity, msg: str) -> None:
            if severity in serious:
                messages.append(msg)

    return Logger(), messages


def open_runtime(trt: TensorRt, *, host_code: bool) -> tuple[tensorrt.Runtime, list[str]]:
    """Return a runtime, which has to outlive its engines, and the list of messages that it fills.

    Args:
        trt: TensorRT.
        host_code: True if loading an engine may execute code that it carries. A
            version-compatible one carries a runtime.

    Raises:
        BackendError: TensorRT cannot start.
    """
    logger, messages = collecting_logger(trt)
    try:
        runtime = trt.Runtime(logger)
    except TypeError as error:  # what the bindings make of a null pointer
        raise cannot_start(trt, messages) from error
    runtime.engine_host_code_allowed = host_code
    return runtime, messages


def cannot_start(trt: TensorRt, messages: list[str]) -> BackendError:
    """Return the error for a builder or runtime that does not start, with the logger's messages."""
    return BackendError(
        f"TensorRT {trt.__version__} cannot start ({last(messages)})",
        "It needs an NVIDIA GPU and its driver.",
    )


def last(messages: list[str]) -> str:
    """Return the latest of a logger's messages, to be put at the end of an error."""
    return "; ".join(messages[-3:]) or "it gave no reason"


class Gpu(NamedTuple):
    """The CUDA device that PyTorch uses."""

    name: str
    compute_capability: str


def current_gpu() -> Gpu | None:
    """Return the GPU that engines are built for and run on now; None without a usable GPU."""
    if not driver().devices:  # without loading PyTorch, which takes seconds
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    major, minor = torch.cuda.get_device_capability()
    return Gpu(torch.cuda.get_device_name(), f"{major}.{minor}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """Facts about an engine and its origin: the content of its sidecar file."""

    flavour: str
    version: str
    """Version of TensorRT."""

    gpu: str | None
    compute_capability: str | None
    """Compute capability of the GPU that built it; None without one (TensorRT-RTX needs none)."""

    precision: str
    profile: Mapping[str, Shape]
    """`min`, `opt` and `max` input shape, NCHW."""

    network_types: Mapping[str, int]
    """Layers of the parsed, strongly typed network, counted by kind, as "CONVOLUTION HALF"."""

    engine_types: Mapping[str, int] | str
    """Data types that the engine's own inspector reports for its layers' outputs, or why not."""

    onnx_sha256: str
    engine_sha256: str
    tags: Mapping[str, str | int | float] = field(default_factory=dict)
    """The caller's facts: model, scale, sha256 of the weights."""

    options: Mapping[str, object] = field(default_factory=dict)
    """The options of the build, from `EngineOptions.facts`."""

    messages: tuple[str, ...] = ()
    """TensorRT's warnings."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> EngineInfo:
        """Read the content of a sidecar file.

        Raises:
            ValueError, TypeError, AttributeError: The text is not the content of a sidecar file.
        """
        facts = json.loads(text)
        facts["profile"] = {name: tuple(shape) for name, shape in facts["profile"].items()}
        facts["messages"] = tuple(facts["messages"])
        return cls(**facts)

    def stale(self, trt: TensorRt, gpu: Gpu | None) -> str | None:
        """Return why this engine cannot be used with this TensorRT and GPU; None if it can."""
        here = f"{flavour_of(trt)} {trt.__version__}"
        if f"{self.flavour} {self.version}" != here and not self._runs_on_version(trt):
            return f"it was built by {self.flavour} {self.version}, this is {here}"
        if self.gpu is None or gpu is None or self._runs_on_gpu(gpu):
            return None
        return f"it was built for {self.gpu}, this is {gpu.name}"

    def _runs_on_version(self, trt: TensorRt) -> bool:
        newer = _numbers(trt.__version__) >= _numbers(self.version)
        return bool(self.options.get("version_compatible")) and newer

    def _runs_on_gpu(self, gpu: Gpu) -> bool:
        if self.options.get("hardware_compatible"):
            return _numbers(gpu.compute_capability) >= (8, 0)  # Ampere
        return (self.gpu, self.compute_capability) == gpu


def sidecar_path(engine: Path) -> Path:
    """Return the path of the sidecar file, which holds the facts about an engine file."""
    return engine.with_name(f"{engine.name}.json")


def read_engine(path: Path) -> tuple[bytes, EngineInfo]:
    """Read an engine file and its facts.

    Raises:
        BackendError: One of the two files is missing or damaged, or they do not belong together.
    """
    try:
        info = EngineInfo.from_json(sidecar_path(path).read_text("utf-8"))
        engine = path.read_bytes()
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise BackendError(
            f"{path}: the engine or its {sidecar_path(path).name} cannot be read ({error})",
            "Build it anew with `srcli export --trt`.",
        ) from error
    if hashlib.sha256(engine).hexdigest() != info.engine_sha256:
        raise BackendError(
            f"{path}: the engine is not the one that {sidecar_path(path).name} describes",
            "Build it anew with `srcli export --trt`.",
        )
    return engine, info


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
