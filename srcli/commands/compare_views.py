"""Make the pictures that `srcli compare` shows, measure them, and write the pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from srcli.commands.compare_parts import View
from srcli.commands.html_reports import write_page
from srcli.errors import UsageError
from srcli.images import Picture, from_float, to_8_bits, to_float
from srcli.models.registry import DEFAULT_SCALE, get_model
from srcli.models.spec import InputChoice, Task, number
from srcli.system.closing import Closing

if TYPE_CHECKING:
    from srcli.api import OpenModel
    from srcli.images import Pixels
    from srcli.pages.comparison import Shown

BICUBIC, NEAREST, NONE = "bicubic", "nearest", "none"
PLAIN = (BICUBIC, NEAREST, NONE)
THUMB = 320  # longest side of a picture in the index, in pixels
MEASURED = ("PSNR-Y (dB)", "SSIM-Y")


@dataclass(slots=True, kw_only=True)
class Ways(Closing):
    """Ways to restore a picture, each opened when it is first needed."""

    models: Sequence[str]
    task: Task
    scale: Fraction | None
    input: InputChoice
    backend: str
    threads: int | None
    note: Callable[[str], None] = lambda message: None
    _open: dict[tuple[str, Fraction], OpenModel] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        self.models = [*dict.fromkeys(self._known(name) for name in self.models)]

    def _known(self, name: str) -> str:
        """Return a way's name as it is written; an unknown one raises."""
        if name.lower() not in PLAIN:
            return get_model(name).name
        if self.task == "upscale" and name.lower() == NONE:
            raise UsageError(f"{NONE} does not enlarge", f"Choose {NEAREST} or {BICUBIC}.")
        if self.task != "upscale" and name.lower() != NONE:
            raise UsageError(f"{name} only enlarges", f"Choose {NONE} for the input as it is.")
        return name.lower()

    def factor(self, source: Picture, truth: Picture | None) -> Fraction:
        """Return the enlargement: as asked for, else up to the truth, else the usual one."""
        if self.task != "upscale":
            return Fraction(1)
        if self.scale is not None:
            return self.scale
        if truth is not None:
            across = Fraction(truth.width, source.width)
            if round(source.height * across) == truth.height:
                return across
        return Fraction(DEFAULT_SCALE)

    def __call__(self, name: str, picture: Picture, factor: Fraction) -> Picture:
        """Return a picture restored in one of the ways."""
        if name in PLAIN:
            return _plain(name, picture, factor)
        if (name, factor) not in self._open:
            from srcli.api import load

            self._open[name, factor] = load(
                name,
                factor,
                task=self.task,
                input=self.input,
                backend=self.backend,
                threads=self.threads,
            )
        return self._open[name, factor].picture(picture)

    def close(self) -> None:
        """Free the models."""
        for opened in self._open.values():
            opened.close()


def _plain(name: str, picture: Picture, factor: Fraction) -> Picture:
    """Return a picture as it is, or enlarged without a network."""
    if name == NONE:
        return picture
    height, width = (max(1, round(side * factor)) for side in (picture.height, picture.width))
    enlarge = _bicubic if name == BICUBIC else _nearest
    alpha = None
    if picture.alpha is not None:
        alpha = enlarge(picture.alpha[..., None], height, width)[..., 0]
    return replace(picture, color=enlarge(picture.color, height, width), alpha=alpha)


def _bicubic(pixels: Pixels, height: int, width: int) -> Pixels:
    from srcli.pipeline.resample import resize

    return from_float(resize(to_float(pixels), height, width), 8 * pixels.itemsize)


def _nearest(pixels: Pixels, height: int, width: int) -> Pixels:
    rows = np.arange(height) * pixels.shape[0] // height
    columns = np.arange(width) * pixels.shape[1] // width
    chosen: Pixels = pixels[rows][:, columns]
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One picture of a comparison, and its figures if there is a truth."""

    label: str
    picture: Picture | None
    """None once its page is written."""

    psnr: float | None = None
    ssim: float | None = None
    is_truth: bool = False

    def shown(self) -> Shown:
        """Return it as a page shows it."""
        from srcli.pages.comparison import Shown

        assert self.picture is not None, "the page is not written yet"
        return Shown(label=self.label, picture=self.picture, figures=self._figures())

    def _figures(self) -> dict[str, str]:
        if self.is_truth:
            return dict.fromkeys(MEASURED, "–")
        if self.psnr is None:
            return {}
        similar = "" if self.ssim is None else f"{self.ssim:.4f}"
        return dict(zip(MEASURED, (_decibels(self.psnr), similar), strict=True))


def _decibels(psnr: float) -> str:
    return "∞" if math.isinf(psnr) else f"{psnr:.2f}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A page: its pictures, cut to what is shown."""

    page: Path
    title: str
    lead: str
    pictures: Sequence[Compared]
    note: str = ""
    thumb: Picture | None = None

    def write(self) -> None:
        """Write the page, whole or not at all; one that exists is replaced.

        Raises:
            OutputError: It cannot be written.
        """
        from srcli.pages.comparison import comparison

        best: tuple[str, ...] = ()
        measured = [entry for entry in self.pictures if entry.psnr is not None]
        if len(measured) > 1:
            similar = [entry.ssim for entry in measured if entry.ssim is not None]
            best = (
                _decibels(max(entry.psnr or 0.0 for entry in measured)),
                f"{max(similar):.4f}" if similar else "",
            )
        shown = [entry.shown() for entry in self.pictures]
        html = comparison(self.title, self.lead, shown, best=best, note=self.note)
        write_page(self.page, html)

    def without_pictures(self) -> Comparison:
        """Return it with a small picture only: many are kept for the index."""
        last = self.pictures[-1].picture
        assert last is not None, "the page has pictures"
        kept = [replace(entry, picture=None) for entry in self.pictures]
        return replace(self, pictures=kept, thumb=_thumb(last))

    @property
    def summary(self) -> str:
        """A line for people."""
        measured = [e for e in self.pictures if e.psnr is not None]
        said = ", ".join(f"{e.label} {_decibels(e.psnr or 0)} dB" for e in measured)
        return f"{self.page}  {said or ', '.join(entry.label for entry in self.pictures)}"

    def as_dict(self) -> dict[str, object]:
        """Return everything but the pixels, for JSON."""
        pictures = [{"label": e.label, "psnr": e.psnr, "ssim": e.ssim} for e in self.pictures]
        return {"page": str(self.page), "title": self.title, "pictures": pictures}


def _thumb(picture: Picture) -> Picture:
    factor = min(1.0, THUMB / max(picture.width, picture.height))
    return _plain(BICUBIC, picture, Fraction(factor).limit_denominator(1 << 16))


def restored(
    source: Path,
    truth: Path | None,
    ways: Ways,
    view: View,
    page: Path,
    progress: Callable[[int, int], None],
) -> Comparison:
    """Restore a picture in each way, and cut the results to what is shown.

    Raises:
        SrcliError: It cannot be read, or not be restored so.
    """
    picture = view.read(source)
    true = None if truth is None else view.read(truth)
    factor = ways.factor(picture, true)
    made = []
    for done, name in enumerate(ways.models):
        progress(done, len(ways.models))
        made.append((name, ways(name, picture, factor)))
    results = [result for _, result in made]
    if true is not None:
        _check_size(true, results[0], str(truth), "the results have")
        made.append(("truth", true))
    border = math.ceil(factor) if ways.task == "upscale" else 0
    first = results[0]
    what = f"{picture.width} × {picture.height}"
    if ways.task == "upscale":
        what += f" enlarged ×{number(factor if factor.denominator > 1 else int(factor)):g}"
        what += f" to {first.width} × {first.height}"
    else:
        what += f", {ways.task}"
    return _comparison(source.name, what, made, true, border, view, page)


def files(inputs: Sequence[Path], truth: Path | None, view: View, page: Path) -> Comparison:
    """Compare files as they are.

    Files that are smaller by a whole factor are shown with larger pixels.

    Raises:
        SrcliError: One cannot be read, or has another size.
    """
    pictures = [view.read(source) for source in inputs]
    true = None if truth is None else view.read(truth)
    largest = true or max(pictures, key=lambda picture: picture.width * picture.height)
    made = []
    for name, picture in zip(_labels(inputs), pictures, strict=True):
        times = largest.width // picture.width
        if times > 1 and (picture.width * times, picture.height * times) == (
            largest.width,
            largest.height,
        ):
            made.append((f"{name} (pixels ×{times})", _plain(NEAREST, picture, Fraction(times))))
        else:
            _check_size(picture, largest, name, "another has")
            made.append((name, picture))
    if true is not None:
        made.append(("truth", true))
    title = " · ".join(path.name for path in inputs) if len(inputs) < 4 else f"{len(inputs)} files"
    lead = f"{largest.width} × {largest.height}, files as they are"
    return _comparison(title, lead, made, true, 0, view, page)


def _labels(inputs: Sequence[Path]) -> list[str]:
    """Return the names of files; with their folders where two are alike."""
    names = [path.name for path in inputs]
    return names if len(set(names)) == len(names) else [str(path) for path in inputs]


def _check_size(picture: Picture, other: Picture, name: str, has: str) -> None:
    if (picture.width, picture.height) != (other.width, other.height):
        raise UsageError(
            f"{name}: has {picture.width} x {picture.height} pixels, and {has} {other.width} x "
            f"{other.height}",
            "Give pictures of one size, or another --scale.",
        )


def _comparison(
    title: str,
    lead: str,
    made: Sequence[tuple[str, Picture]],
    truth: Picture | None,
    border: int,
    view: View,
    page: Path,
) -> Comparison:
    first = made[0][1]
    part = view.of(first.width, first.height)
    if view.frame is not None:
        lead += f" · frame {view.frame}"
    if part[2:] != (first.width, first.height):
        lead += f" · shown: {part[2]} × {part[3]} from {part[0]}, {part[1]}"
    compared = []
    for label, picture in made:
        psnr, ssim = (None, None)
        if truth is not None and picture is not truth:
            psnr, ssim = _measured(picture, truth, border)
        compared.append(
            Compared(
                label=label,
                picture=_cut(picture, part),
                psnr=psnr,
                ssim=ssim,
                is_truth=picture is truth,
            )
        )
    notes = []
    if truth is not None:
        without = f", without a border of {border} pixels" if border else ""
        notes.append(f"Measured on Y of the whole picture{without}, against the truth.")
    if any(picture.bits == 16 for _, picture in made):
        notes.append("16 bits per channel are shown as 8, all that browsers have.")
    return Comparison(page=page, title=title, lead=lead, pictures=compared, note=" ".join(notes))


def _cut(picture: Picture, part: tuple[int, int, int, int]) -> Picture:
    left, top, width, height = part
    place = slice(top, top + height), slice(left, left + width)
    color = np.ascontiguousarray(picture.color[place])
    alpha = None if picture.alpha is None else np.ascontiguousarray(picture.alpha[place])
    return replace(picture, color=color, alpha=alpha)


def _measured(picture: Picture, truth: Picture, border: int) -> tuple[float, float | None]:
    """Return PSNR in dB and SSIM of Y in 8 bits; None where the picture is too small for SSIM."""
    from srcli.quality import metrics

    planes = [
        metrics.crop_border(metrics.luma(to_8_bits(one.color)), border) for one in (picture, truth)
    ]
    if min(planes[0].shape) < 1:
        raise UsageError(
            f"{picture.width} x {picture.height} pixels are too few to measure",
            "Leave out --truth, or give larger pictures.",
        )
    similar = min(planes[0].shape) >= metrics.SSIM_SIDE
    return metrics.psnr(*planes), metrics.ssim(*planes) if similar else None


def write_index(page: Path, made: Sequence[Comparison]) -> None:
    """Write the page that leads to several comparisons.

    Raises:
        OutputError: It cannot be written.
    """
    from srcli.pages.comparison import Entry, index

    entries = [
        Entry(title=one.title, page=one.page.name, picture=one.thumb)
        for one in made
        if one.thumb is not None
    ]
    ways = ", ".join(entry.label for entry in made[0].pictures)
    write_page(page, index(f"{len(made)} comparisons", ways, entries))
