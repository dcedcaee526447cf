"""Latencies that others have published, printed beside ours and marked as theirs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from srcli.bench.rows import Result
from srcli.models.registry import get_model

OUTPUT = (1280, 720)
HEADINGS = ("not measured here", "output", "from", "ms", "on", "source")

_NVIDIA = "https://docs.nvidia.com/maxine/vfx/LinuxVFXSDK/PerformanceReference.html"
_BICUBIC = "https://arxiv.org/abs/2305.02126"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One latency, as its source gives it."""

    what: str
    width: int
    """Width of the output, in pixels."""

    height: int
    scale: int
    milliseconds: float
    device: str
    source: str


PRODUCTS = (
    *(
        Figure(
            what="NVIDIA Video Effects, Super Resolution",
            width=1280,
            height=720,
            scale=2,
            milliseconds=milliseconds,
            device=device,
            source=_NVIDIA,
        )
        for device, milliseconds in (("B40", 0.371), ("L40", 0.55), ("A40", 1.14), ("T4", 3.11))
    ),
    Figure(
        what="Bicubic++, fp16",
        width=3840,
        height=2160,
        scale=3,
        milliseconds=1.17,
        device="RTX 3090",
        source=_BICUBIC,
    ),
)


def figures(results: Sequence[Result]) -> list[Figure]:
    """Return the published figures that belong beside these rows; the paper's own first.

    Only beside rows that were measured on a GPU, one picture at a time, at an output of 1280x720.
    """
    ours = [result for result in results if _comparable(result)]
    return [*_of_papers(ours), *PRODUCTS] if ours else []


def cells(figure: Figure) -> list[str]:
    """Return a row of the table under `HEADINGS`."""
    output = f"{figure.width}x{figure.height}"
    source = f"{figure.width // figure.scale}x{figure.height // figure.scale}"
    return [figure.what, output, source, f"{figure.milliseconds:g}", figure.device, figure.source]


def as_dicts(results: Sequence[Result]) -> list[dict[str, object]]:
    """Return the figures for JSON."""
    return [asdict(figure) for figure in figures(results)]


def _comparable(result: Result) -> bool:
    on_gpu = result.facts.get("device", "cpu") != "cpu"
    return on_gpu and result.row.output == OUTPUT and result.row.batch == 1


def _of_papers(results: Sequence[Result]) -> Iterator[Figure]:
    models = dict.fromkeys((result.row.model, result.row.scale) for result in results)
    for name, scale in models:
        spec = get_model(name)
        if (latency := spec.latency.get(scale)) is not None:
            yield Figure(
                what=f"{spec.title}, its paper",
                width=OUTPUT[0],
                height=OUTPUT[1],
                scale=scale,
                milliseconds=latency,
                device="RTX 2080 Ti",
                source=spec.paper,
            )
