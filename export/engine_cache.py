"""A cache of TensorRT engines, built on first use."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from srcli.backends.trt.engine import (
    Shape,
    TensorRt,
    current_gpu,
    flavour_of,
    load_tensorrt,
    read_engine,
    sidecar_path,
)
from srcli.errors import BackendError, OutputError
from srcli.system.cache import cache_folder, is_whole, remove, seal

from .build_progress import Progress
from .engines import EngineOptions, engine_key, write_engine
from .to_tensorrt import build_engine

_SMALLEST_SIDE = 8  # of the profile, for a graph that does not say


def cached_engine(
    graph: Path,
    precision: str,
    progress: Progress | None = None,
    *,
    shape: Shape | None = None,
) -> Path:
    """Return the engine of a graph of ours, for this GPU and TensorRT; built on first use.

    Of two processes that need the same engine, one builds it and the other waits. An engine that
    is damaged or stale is built anew.

    Args:
        graph: An ONNX file written by srcli.
        precision: Number type that the graph computes in, "fp32" or "fp16".
        progress: As for `build_engine`.
        shape: NCHW, of the batches to come: where the engine is to be fastest. It takes others too.

    Raises:
        BackendError: TensorRT is missing or refuses the graph.
        OutputError: The cache cannot be written.
    """
    from filelock import FileLock

    trt, onnx = load_tensorrt(), graph.read_bytes()
    facts = _facts(onnx)
    options = _options(facts, precision, shape)
    key = engine_key(
        weights_sha256=facts.get("weights_sha256", ""),
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
        options=options,
        flavour=flavour_of(trt),
        version=trt.__version__,
        gpu=current_gpu(),
    )
    path = cache_folder() / "engines" / f"{graph.stem}-{key[:16]}.engine"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not _usable(path, trt):
                remove(path)
                remove(sidecar_path(path))
                write_engine(path, *build_engine(onnx, options, facts, progress))
                seal(path)
                seal(sidecar_path(path))
    except OSError as error:
        raise OutputError(
            f"{path.parent}: cannot be written ({error.strerror})",
            "Set SRCLI_CACHE to a folder that can be written.",
        ) from error
    return path


def _options(facts: Mapping[str, str], precision: str, shape: Shape | None) -> EngineOptions:
    if precision not in ("fp32", "fp16"):
        raise BackendError(f"trt computes in fp32 or fp16, not {precision}", "Choose one of them.")
    side, usual = int(facts.get("minimum", _SMALLEST_SIDE)), EngineOptions()
    minimum, best = (1, 3, side, side), shape or usual.opt_shape
    return EngineOptions(
        min_shape=tuple(map(min, minimum, best)),
        opt_shape=best,
        max_shape=tuple(map(max, usual.max_shape, best)),
        precision="fp16" if precision == "fp16" else "fp32",
    )


def _facts(onnx: bytes) -> dict[str, str]:
    """Return the facts that srcli wrote into the graph's metadata, without the prefix."""
    import onnx as library

    properties = library.load_model_from_string(onnx).metadata_props
    prefix = "srcli."
    return {p.key.removeprefix(prefix): p.value for p in properties if p.key.startswith(prefix)}


def _usable(path: Path, trt: TensorRt) -> bool:
    if not (is_whole(path) and is_whole(sidecar_path(path))):
        return False
    try:
        _, info = read_engine(path)
    except BackendError:
        return False
    return info.stale(trt, current_gpu()) is None
