"""Build a TensorRT engine from an ONNX graph: one dynamic profile, strongly typed, no TF32.

Precision is a property of the graph: each layer is computed in the type that the graph says.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srcli.backends.trt.engine import (
    EngineInfo,
    Shape,
    TensorRt,
    cannot_start,
    collecting_logger,
    current_gpu,
    flavour_of,
    last,
    load_tensorrt,
    times,
)
from srcli.errors import BackendError, InputError, UsageError
from srcli.system.files import atomic_path, open_regular

from .build_progress import Progress, watch
from .engines import EngineOptions, engine_key, trtexec_line, write_engine
from .limits import check_largest_tensor, unsupported_operators
from .precision import TypeCounts, check_precision, engine_types, network_types

if TYPE_CHECKING:
    import tensorrt

__all__ = [
    "EngineInfo",
    "EngineOptions",
    "build_engine",
    "check_largest_tensor",
    "engine_key",
    "load_tensorrt",
    "trtexec_line",
    "unsupported_operators",
    "write_engine",
]

TURING = "7.5"  # compute capability

Tags = Mapping[str, str | int | float]


def build_engine(
    onnx: bytes,
    options: EngineOptions,
    tags: Tags,
    progress: Progress | None = None,
) -> tuple[bytes, EngineInfo]:
    """Build a serialised engine, and return it with its facts.

    Args:
        onnx: A graph with one image-like input, NCHW, and no data outside.
        options: Options for building it.
        tags: The caller's facts; they become the engine's name and a part of its facts.
        progress: Called from the threads that build.

    Raises:
        BackendError: TensorRT is missing, cannot start, or cannot build this graph.
        InputError: `onnx` or the timing cache cannot be read.
        OutputError: The timing cache cannot be written.
        UsageError: The options do not suit the graph or this TensorRT.
        VerificationError: Layers are computed in another precision than the asked one.
    """
    trt = load_tensorrt()
    _check_flavour(trt, options)
    check_largest_tensor(onnx, options.max_shape)
    logger, messages = collecting_logger(trt)
    builder = _new_builder(trt, logger, messages)
    network, parser = _parse(trt, builder, logger, onnx)
    types = network_types(network)
    check_precision(types, options.precision)
    network.name = json.dumps({**tags, "precision": options.precision}, sort_keys=True)
    config = _configure(trt, builder, options)
    profile = _add_profile(builder, config, network, options, messages)
    plan = _serialize(trt, builder, network, config, progress, messages)
    del parser  # not before: it may own the weights
    _save_timing_cache(config, options.timing_cache)
    gpu = current_gpu()
    return plan, EngineInfo(
        flavour=flavour_of(trt),
        version=trt.__version__,
        gpu=gpu.name if gpu else None,
        compute_capability=gpu.compute_capability if gpu else None,
        precision=options.precision,
        profile=profile,
        network_types=types,
        engine_types=_read_back(trt, plan, options) if gpu else "not checked: no GPU",
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        engine_sha256=hashlib.sha256(plan).hexdigest(),
        tags=dict(tags),
        options=options.facts(),
        messages=tuple(messages),
    )


def _check_flavour(trt: TensorRt, options: EngineOptions) -> None:
    """Refuse options that TensorRT-RTX would ignore, or fail on without a reason."""
    refused = {
        "--hardware-compatible": options.hardware_compatible,
        "--version-compatible": options.version_compatible,
        "--timing-cache": options.timing_cache is not None,
    }
    given = [name for name, is_given in refused.items() if is_given]
    if given and flavour_of(trt) == "tensorrt_rtx":
        raise UsageError(f"TensorRT-RTX has no {', '.join(given)}", "Leave it out.")


def _new_builder(trt: TensorRt, logger: tensorrt.ILogger, messages: list[str]) -> tensorrt.Builder:
    try:
        return trt.Builder(logger)
    except TypeError as error:  # what the bindings make of a null pointer
        raise cannot_start(trt, messages) from error


def _parse(
    trt: TensorRt, builder: tensorrt.Builder, logger: tensorrt.ILogger, onnx: bytes
) -> tuple[tensorrt.INetworkDefinition, tensorrt.OnnxParser]:
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    # The flag's value differs between versions; one that lacks it knows no other networks.
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx):
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        told = [f"{e.node_operator() or 'graph'} {e.node_name()}: {e.desc()}" for e in errors]
        reasons = [*unsupported_operators(onnx), *told]
        raise BackendError(
            f"TensorRT {trt.__version__} cannot read the graph: {'; '.join(reasons)}",
            "Use --onnx and another runtime for this model.",
        )
    return network, parser


def _configure(
    trt: TensorRt, builder: tensorrt.Builder, options: EngineOptions
) -> tensorrt.IBuilderConfig:
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)  # on by default; it rounds fp32 to 10 bits
    # Otherwise the inspector tells nothing but names.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if options.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
    if options.optimization_level is not None:
        config.builder_optimization_level = options.optimization_level
    if options.hardware_compatible:
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    gpu = current_gpu()
    aim_at(trt, config, gpu.compute_capability if gpu else None)
    _load_timing_cache(config, options.timing_cache)
    return config


def aim_at(trt: TensorRt, config: tensorrt.IBuilderConfig, capability: str | None) -> None:
    """Let an engine run on the present GPU, which TensorRT-RTX's default may leave out.

    TensorRT-RTX builds for Ampere and what came after it unless told otherwise.

    Args:
        trt: TensorRT.
        config: Of the engine.
        capability: Of the GPU, such as "7.5"; None without one.
    """
    if capability != TURING or flavour_of(trt) != "tensorrt_rtx":
        return
    rtx: Any = config
    rtx.num_compute_capabilities = 1
    if not rtx.set_compute_capability(trt.ComputeCapability.SM75, 0):
        raise BackendError(
            f"TensorRT-RTX {trt.__version__} builds nothing for GPUs of compute capability "
            f"{capability}",
            "Use `tensorrt`, or --backend torch.",
        )


def _add_profile(
    builder: tensorrt.Builder,
    config: tensorrt.IBuilderConfig,
    network: tensorrt.INetworkDefinition,
    options: EngineOptions,
    messages: list[str],
) -> dict[str, Shape]:
    declared = tuple(network.get_input(0).shape)

    def actual(asked: Shape) -> Shape:
        return tuple(a if d == -1 else d for d, a in zip(declared, asked, strict=True))

    low, best, high = map(actual, (options.min_shape, options.opt_shape, options.max_shape))
    if -1 in declared:
        profile = builder.create_optimization_profile()
        profile.set_shape(network.get_input(0).name, low, best, high)
        if config.add_optimization_profile(profile) < 0:
            raise UsageError(
                f"TensorRT refuses the profile {', '.join(map(times, (low, best, high)))} "
                f"({last(messages)})",
                "Change --min-shape, --opt-shape or --max-shape.",
            )
    return {"min": low, "opt": best, "max": high}


def _serialize(
    trt: TensorRt,
    builder: tensorrt.Builder,
    network: tensorrt.INetworkDefinition,
    config: tensorrt.IBuilderConfig,
    progress: Progress | None,
    messages: list[str],
) -> bytes:
    monitor, raised = watch(trt, progress)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if raised:
        raise raised[0]
    if plan is None:
        raise BackendError(
            f"TensorRT {trt.__version__} cannot build this graph ({last(messages)})",
            "Use a smaller --max-shape, or --onnx and another runtime.",
        )
    return bytes(memoryview(plan))


def _load_timing_cache(config: tensorrt.IBuilderConfig, file: Path | None) -> None:
    if file is None:
        return
    try:
        with open_regular(file) as stream:
            known = stream.read()
    except FileNotFoundError:
        known = b""
    except OSError as error:
        raise InputError(
            f"{file}: the timing cache cannot be read ({error.strerror})", "Choose another one."
        ) from error
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, False):
        # Damaged, or of another GPU or TensorRT: measure anew.
        empty = config.create_timing_cache(b"")
        assert empty is not None, "an empty timing cache can always be made"
        config.set_timing_cache(empty, False)


def _save_timing_cache(config: tensorrt.IBuilderConfig, file: Path | None) -> None:
    cache = None if file is None else config.get_timing_cache()
    if file is not None and cache is not None:
        with atomic_path(file) as partial:
            partial.write_bytes(memoryview(cache.serialize()))


def _read_back(trt: TensorRt, plan: bytes, options: EngineOptions) -> TypeCounts | str:
    types = engine_types(trt, plan, host_code=options.version_compatible)
    if not isinstance(types, str):
        check_precision(types, options.precision)
    return types
