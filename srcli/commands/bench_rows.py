"""Choose the rows that `srcli bench` measures, by its options."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, TypedDict, Unpack

from srcli.errors import UsageError
from srcli.models.registry import DEFAULT_SCALE, check_scale, get_model

if TYPE_CHECKING:
    from srcli.backends.base import Backend, Precision
    from srcli.bench.rows import Graph, Row, Scope
    from srcli.models.spec import ModelSpec

EIGHT_BITS = (("fused", "openvino"), ("fused", "ort"))  # what computes in them
# Backends that are measured in a precision unless it was asked for.
_USUAL = {"fp16": (["torch"], ["trt"]), "bf16": (["torch"],)}
PAPER_MODELS = ("lapar-a", "lapar-b", "lapar-c")
SWEEP_MODELS = ("lapar-c",)
SWEEP_SIZES = ("640x360", "960x540", "1280x720", "1920x1080", "3840x2160")
SWEEP_BATCHES = (1, 2, 4, 8, 16)


class RowOptions(TypedDict):
    """The options of `srcli bench` that choose its rows, as parsed."""

    size: str | None
    input_size: str | None
    models: tuple[str, ...]
    scales: tuple[int, ...]
    backends: tuple[str, ...]
    precisions: tuple[Precision, ...]
    graphs: tuple[Graph, ...]
    scopes: tuple[Scope, ...]
    batches: tuple[int, ...]
    no_cuda_graph: bool
    cold: bool


class Kind(TypedDict):
    """Form of the network, backend and precision of a row."""

    graph: Graph
    backend: str
    precision: Precision


class Variant(TypedDict, total=False):
    """Settings of a row on CUDA."""

    cuda_graph: bool
    cold: bool


def chosen_rows(*, sweep: bool, **wishes: Unpack[RowOptions]) -> Iterator[Row]:
    """Yield a row for each combination of what was asked for, by default that of the paper.

    Raises:
        UsageError: Sizes contradict each other, or a model has not the scale.
    """
    from srcli.bench.rows import Row
    from srcli.bench.rows import input_size as smaller
    from srcli.jobs.sizes import parse_size

    size, input_size, scopes = wishes["size"], wishes["input_size"], wishes["scopes"]
    chosen = wishes["backends"], wishes["precisions"], wishes["graphs"]
    if size and input_size:
        raise UsageError("--size and --input-size exclude each other", "Choose one.")
    sizes = SWEEP_SIZES if sweep and not (size or input_size) else (size or "1280x720",)
    for name in wishes["models"] or (SWEEP_MODELS if sweep else PAPER_MODELS):
        spec = get_model(name)
        for scale in wishes["scales"] or (DEFAULT_SCALE,):
            check_scale(spec, scale, "upscale" if scale > 1 else "denoise")
            for text in sizes:
                width, height = (
                    parse_size(input_size) if input_size else smaller(parse_size(text), scale)
                )
                for batch in wishes["batches"] or (SWEEP_BATCHES if sweep else (1,)):
                    for kind in kinds(spec, *chosen, sweep=sweep):
                        for scope, extra in product(
                            scopes or ("network",), _variants(kind, wishes)
                        ):
                            yield Row(
                                model=spec.name,
                                scale=scale,
                                height=height,
                                width=width,
                                batch=batch,
                                scope=scope,
                                **kind,
                                **extra,
                            )


def kinds(
    spec: ModelSpec,
    backends: tuple[str, ...],
    precisions: tuple[Precision, ...],
    graphs: tuple[Graph, ...],
    *,
    sweep: bool,
) -> Iterator[Kind]:
    """Yield graph, backend and precision of each row of a model."""
    from srcli.backends import by_preference, get_backend
    from srcli.system.cuda import driver

    usable = [backend for backend in by_preference(spec) if backend.unavailable() is None]
    cuda = driver().devices > 0
    usual: tuple[Graph, ...] = ("fused",) if sweep else ("published", "fused")
    for graph in graphs or usual:
        # Unless asked for, the published graph runs where papers run it.
        everywhere = [b.name for b in usable] if graph == "fused" else ["torch"]
        for name in backends or (["auto"] if sweep else everywhere):
            for precision in precisions or _usual_precisions(cuda, sweep):
                offered = usable if name == "auto" else [get_backend(name)]
                able = [b.name for b in offered if _runs(b, spec, graph, precision)][:1]
                if not precisions and able not in _USUAL.get(precision, (able,)):
                    continue
                for backend in able:
                    yield {"graph": graph, "backend": backend, "precision": precision}


def _usual_precisions(cuda: bool, sweep: bool) -> tuple[Precision, ...]:
    if not cuda:
        return ("fp32",)
    return ("fp32", "fp16") if sweep else ("fp32", "fp16", "bf16")


def _runs(backend: Backend, spec: ModelSpec, graph: Graph, precision: Precision) -> bool:
    if precision == "int8" and (graph, backend.name) not in EIGHT_BITS:
        return False
    if graph == "published" and backend.name == "native":  # which fuses all that it runs
        return False
    return backend.declines(spec, precision) is None


def _variants(kind: Kind, wishes: RowOptions) -> Iterator[Variant]:
    from srcli.system.cuda import driver

    is_published = kind["graph"] == "published"
    on_cuda = driver().devices > 0 and kind["backend"] in ("torch", "trt")
    # "Published" means as its authors ran it: launched kernel by kernel.
    yield {"cuda_graph": on_cuda and not is_published}
    if on_cuda and wishes["no_cuda_graph"] and not is_published:
        yield {"cuda_graph": False}
    if on_cuda and wishes["cold"]:
        yield {"cuda_graph": not is_published, "cold": True}
