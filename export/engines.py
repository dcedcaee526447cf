"""Options of TensorRT engines, and their files; TensorRT itself is not needed."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from srcli.backends.trt.engine import EngineInfo, Flavour, Gpu, Shape, sidecar_path, times
from srcli.errors import UsageError
from srcli.system.files import atomic_path


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """Options for building an engine.

    Raises:
        UsageError: The options contradict each other.
    """

    min_shape: Shape = (1, 3, 8, 8)
    opt_shape: Shape = (1, 3, 360, 640)
    max_shape: Shape = (1, 3, 1080, 1920)
    """Range of inputs that the engine takes, NCHW; it is fastest at `opt_shape`. If the graph
    fixes a dimension, the graph's size holds."""

    precision: Literal["fp32", "fp16"] = "fp32"
    """Number type that the graph has to compute in; another one is an error."""

    timing_cache: Path | None = None
    """File with measurements of earlier builds, read and updated."""

    optimization_level: int | None = None
    """0 to 5; None leaves TensorRT's default."""

    hardware_compatible: bool = False
    """Run on every GPU from Ampere on, more slowly."""

    version_compatible: bool = False
    """Run on newer versions of TensorRT too, more slowly."""

    workspace_bytes: int | None = None
    """Limit of scratch memory for one layer; None allows all of the GPU's memory."""

    def __post_init__(self) -> None:
        shapes = (self.min_shape, self.opt_shape, self.max_shape)
        if {len(shape) for shape in shapes} != {4}:
            raise UsageError(
                "a profile's shapes are batch x channels x height x width",
                "Give four numbers for each.",
            )
        if not all(1 <= low <= best <= high for low, best, high in zip(*shapes, strict=True)):
            raise UsageError(
                f"the profile {', '.join(map(times, shapes))} does not grow from minimum through "
                "optimum to maximum",
                "Change --min-shape, --opt-shape or --max-shape.",
            )
        if self.optimization_level not in (None, *range(6)):
            raise UsageError(
                f"there is no optimization level {self.optimization_level}", "Choose 0 to 5."
            )
        if self.workspace_bytes is not None and self.workspace_bytes < 1:
            raise UsageError("a workspace of no bytes is too small", "Leave out --workspace.")

    def facts(self) -> dict[str, object]:
        """Return the options that affect the engine: all but the place of the timing cache."""
        facts = asdict(self)
        del facts["timing_cache"]
        return {name: _plain(value) for name, value in facts.items()}


def engine_key(
    *,
    weights_sha256: str,
    onnx_sha256: str,
    options: EngineOptions,
    flavour: Flavour,
    version: str,
    gpu: Gpu | None,
) -> str:
    """Return a key, in hexadecimal, that changes with everything that an engine depends on."""
    facts = {
        "weights": weights_sha256,
        "graph": onnx_sha256,
        "options": options.facts(),
        "tensorrt": [flavour, version],
        "gpu": gpu,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def write_engine(path: Path, engine: bytes, info: EngineInfo, *, replace: bool = True) -> None:
    """Write an engine and its sidecar `<name>.json`; on failure neither is left.

    The sidecar appears first and names the engine's checksum, so that a kill in between leaves
    no engine that could be taken for what it is not.

    Raises:
        OutputError: One of the two cannot be written.
    """
    sidecar, facts = sidecar_path(path), info.to_json()
    try:
        with (
            atomic_path(path, replace=replace) as engine_file,
            atomic_path(sidecar) as facts_file,
        ):
            engine_file.write_bytes(engine)
            facts_file.write_text(facts, "utf-8")
    except BaseException:
        if sidecar.is_file() and sidecar.read_text("utf-8") == facts:
            sidecar.unlink()
        raise


def trtexec_line(
    onnx: Path,
    engine: Path,
    options: EngineOptions,
    *,
    flavour: Flavour = "tensorrt",
    version: str | None = None,
    dynamic: bool = True,
    input_name: str = "input",
) -> str:
    """Return the shell command that builds the same engine with NVIDIA's own tool.

    Args:
        onnx: The graph.
        engine: The engine to write.
        options: As for `build_engine`.
        flavour: `trtexec` or, for TensorRT-RTX, the tool `tensorrt_rtx`.
        version: Of TensorRT; None if it is not known, then a comment tells the difference.
        dynamic: True if the graph has dynamic dimensions; the tool refuses shapes otherwise.
        input_name: Of the graph's input.
    """
    words = [
        "tensorrt_rtx" if flavour == "tensorrt_rtx" else "trtexec",
        f"--onnx={onnx}",
        f"--saveEngine={engine}",
    ]
    if dynamic:
        for name in ("min", "opt", "max"):
            shape = times(getattr(options, f"{name}_shape"))
            words.append(f"--{name}Shapes={input_name}:{shape}")
    words += ["--noTF32", "--profilingVerbosity=detailed", *_optional_words(options)]
    words.append("--skipInference")
    strongly_typed = flavour == "tensorrt" and version is not None and version.startswith("10.")
    if strongly_typed:
        words.append("--stronglyTyped")
    line = shlex.join(words)
    return line if version or flavour != "tensorrt" else f"{line}  # TensorRT 10: --stronglyTyped"


def _optional_words(options: EngineOptions) -> list[str]:
    words = []
    if options.timing_cache is not None:
        words.append(f"--timingCacheFile={options.timing_cache}")
    if options.optimization_level is not None:
        words.append(f"--builderOptimizationLevel={options.optimization_level}")
    if options.hardware_compatible:
        words.append("--hardwareCompatibilityLevel=ampere+")
    if options.version_compatible:
        words.append("--versionCompatible")
    if options.workspace_bytes is not None:
        words.append(f"--memPoolSize=workspace:{options.workspace_bytes}B")
    return words


def _plain(value: object) -> object:
    """Return a value as JSON would give it back."""
    return list(value) if isinstance(value, tuple) else value
