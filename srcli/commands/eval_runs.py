"""The measurements of `srcli eval`: ways to enlarge, and kinds of damage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, Unpack

from srcli.errors import UsageError
from srcli.models.spec import InputKind, Scale, Task, number, whole
from srcli.quality import BlurSet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from srcli.backends.base import Precision
    from srcli.loading.model import LoadedModel
    from srcli.models.dcls.reduction import Kernel
    from srcli.pipeline.restorer import Restorer
    from srcli.quality.blurs import Blur
    from srcli.quality.evaluation import Conditions, Damage, Enlarge, Pixels8

BICUBIC, NONE = "bicubic", "none"


class RunningOptions(TypedDict):
    """The options of `srcli eval` for the model and how it runs, as parsed."""

    kind: InputKind
    weights: Path | None
    backend: str
    precision: Precision
    tta: bool
    threads: int | None
    tile: int | None
    memory: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to restore small pictures, and facts about it. Close it when done."""

    enlarge: Enlarge
    facts: dict[str, object]
    close: Callable[[], None] = lambda: None
    estimated: Callable[[], Kernel | None] = lambda: None
    """Function that returns the blur kernel that a blind network found in the last picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A damage whose results have one mean."""

    name: str = ""
    damage: Damage | None = None
    runs: Sequence[Conditions | None] = (None,)
    """Conditions that each picture is measured in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """The damage that a user asks for."""

    sigmas: tuple[float, ...] = ()
    qualities: tuple[int, ...] = ()
    blurs: tuple[float, ...] = ()
    kernels: tuple[Path, ...] = ()
    blur_set: BlurSet | None = None
    noises: tuple[float, ...] = ()
    jpegs: tuple[int, ...] = ()
    seed: int = 0
    scales: tuple[Scale, ...] = field(default=())

    @property
    def task(self) -> Task:
        """Task whose damage is to be undone.

        Raises:
            UsageError: Nothing is, or more than one thing, or the options contradict each other.
        """
        if bool(self.scales) + bool(self.sigmas) + bool(self.qualities) != 1:
            raise UsageError(
                "it is not clear what is to be undone",
                "Give one of --scale, --sigma and --quality.",
            )
        small = self.blurs or self.kernels or self.blur_set or self.noises or self.jpegs
        if small and not self.scales:
            raise UsageError(
                "--blur, --kernel, --set, --noise and --jpeg damage pictures that are to be "
                "enlarged",
                "Give --scale with them, or leave them out.",
            )
        if bool(self.blurs) + bool(self.kernels) + bool(self.blur_set) > 1:
            raise UsageError(
                "it is not clear how pictures are to be blurred",
                "Give one of --blur, --kernel and --set.",
            )
        return "denoise" if self.sigmas else "deblock" if self.qualities else "upscale"

    def levels(self, scale: Scale) -> Iterator[Level]:
        """Yield the measurements to make at a scale.

        Raises:
            UsageError: There are no such blurs for the scale.
            InputError: A kernel cannot be read.
        """
        from srcli.quality.evaluation import Conditions, compressed, noisy

        for sigma in self.sigmas:
            name = f"sigma {float(sigma)!r}".removesuffix(".0")
            yield Level(name=name, damage=noisy(sigma, self.seed))
        for quality in self.qualities:
            yield Level(name=f"quality {quality}", damage=compressed(quality))
        if not self.scales:
            return
        widths: tuple[float | None, ...] = self.blurs or (None,)
        for (blur, kernels), noise, jpeg in product(
            product(widths, self._kernels(scale)), self.noises or [None], self.jpegs or [None]
        ):
            runs = [
                Conditions(
                    blur=blur, kernel=kernel, kernel_name=name, noise=noise, jpeg=jpeg,
                    seed=self.seed,
                )
                for name, kernel in kernels.items()
            ]  # fmt: skip
            name = self.blur_set or next(iter(kernels))
            rest = str(Conditions(blur=blur, noise=noise, jpeg=jpeg))
            label = ", ".join(part for part in (name, rest) if part)
            yield Level(name=label, runs=runs if label else (None,))

    def _kernels(self, scale: Scale) -> list[dict[str, Blur | None]]:
        """Return the groups of kernels whose results have one mean, by their names."""
        from srcli.pipeline.kernels import read_kernel
        from srcli.quality.blurs import always, blurs

        if (self.kernels or self.blur_set) and not isinstance(scale, int):
            raise UsageError(
                f"-s {number(scale):g}: with --kernel and --set every s-th pixel is kept",
                "Give a whole scale.",
            )
        if self.blur_set is not None:
            return [{**blurs(self.blur_set, int(scale), self.seed)}]
        if self.kernels:
            alike = Counter(file.name for file in self.kernels)
            named = {
                file.name if alike[file.name] == 1 else str(file): file for file in self.kernels
            }
            return [{name: always(read_kernel(file))} for name, file in named.items()]
        return [{"": None}]


def way(
    model: str,
    scale: Scale,
    task: Task,
    *,
    as_command: bool,
    **running: Unpack[RunningOptions],
) -> Callable[[], Way]:
    """Find a way to restore pictures; return the function that opens it.

    Args:
        model: Of the registry; `bicubic`, or `none` for denoising and deblocking.
        scale: Factor of enlargement.
        task: What is to be undone.
        as_command: Restore as `srcli upscale` does, with a frame, to whole values in between.
        **running: How to run the model.

    Raises:
        UsageError: There is no such model, or it has not this scale.
        WeightsError: It has no weights for it.
    """
    from srcli.quality.evaluation import bicubic

    if model == NONE and task == "upscale":
        raise UsageError(f"{NONE} leaves pictures as they are", f"Choose {BICUBIC}, or a model.")
    if model == NONE:
        return lambda: Way(enlarge=_as_it_is, facts={"model": model})
    if model == BICUBIC:
        if scale <= 1:
            problem = f"-s {number(scale):g}: bicubic enlarges"
            raise UsageError(problem, "Give more than 1, or choose a model.")
        facts: dict[str, object] = {"model": model, "scale": number(scale)}
        return lambda: Way(enlarge=bicubic(scale), facts=facts)
    loaded = [_loaded(model, each, task, running) for each in _passes(model, scale, task)]
    return lambda: _by_network(loaded, scale, as_command, running)


def _by_network(
    loaded: Sequence[LoadedModel], scale: Scale, as_command: bool, running: RunningOptions
) -> Way:
    stack = ExitStack()
    restorers = [stack.enter_context(_opened(each, running)) for each in loaded]
    digests = [each.weights.sha256 for each in loaded]
    facts: dict[str, object] = {
        "model": loaded[0].spec.name,
        "scale": number(scale),
        "backend": restorers[0].backend,
        "input": loaded[0].weights.kind,
        "protocol": "whole" if as_command else "paper",
        "precision": running["precision"],
        "tta": running["tta"],
        "weights_sha256": digests[0] if len(set(digests)) == 1 else digests,
    }
    enlarge = _as_upscale(restorers, scale) if as_command else _plain(restorers, scale)

    def estimated() -> Kernel | None:
        found = restorers[0].kernel
        return None if found is None else found[0, 0]

    return Way(enlarge=enlarge, facts=facts, close=stack.close, estimated=estimated)


def _passes(model: str, scale: Scale, task: Task) -> Sequence[Scale]:
    """Return the scales of the passes that reach a factor, as `srcli upscale` chooses them."""
    from srcli.jobs.sizes import SizeRequest
    from srcli.models.registry import check_task, get_model

    spec = get_model(model)
    if task != "upscale" or spec.takes(scale, task):
        return [scale]
    check_task(spec, task)
    size = SizeRequest(scale=Fraction(scale))
    return size.resolve(64, 64, spec.reached(task), spec.scale_grid).passes


def _loaded(model: str, scale: Scale, task: Task, running: RunningOptions) -> LoadedModel:
    from srcli import console
    from srcli.loading.model import load

    kind, weights = running["kind"], running["weights"]
    return load(model, scale, task=task, kind=kind, weights=weights, note=console.note)


def _opened(loaded: LoadedModel, running: RunningOptions) -> Restorer:
    from srcli.loading.restorer import RunOptions, open_restorer

    chosen = RunOptions(
        backend=running["backend"],
        precision=running["precision"],
        tta=running["tta"],
        threads=running["threads"],
        tile=running["tile"],
        memory=running["memory"],
    )
    return open_restorer(loaded, chosen, scale=loaded.grid)


def _size(low: Pixels8, scale: Scale) -> tuple[int, int]:
    return round(low.shape[0] * scale), round(low.shape[1] * scale)


def _as_upscale(restorers: Sequence[Restorer], scale: Scale) -> Enlarge:
    from srcli.images import Picture, to_float
    from srcli.pipeline.passes import Passes

    passes = Passes(restorers)

    def enlarge(low: Pixels8) -> NDArray[np.floating]:
        (restored,) = passes.restore_all([Picture(color=low)], size=_size(low, scale))
        return to_float(restored.color)

    return enlarge


def _plain(restorers: Sequence[Restorer], scale: Scale) -> Enlarge:
    import numpy as np

    from srcli.pipeline.resample import resize

    def enlarge(low: Pixels8) -> NDArray[np.floating]:
        batch = np.ascontiguousarray(low.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        for restorer in restorers:
            batch = restorer.restore(batch)
        return resize(batch[0].transpose(1, 2, 0), *_size(low, scale))

    return enlarge


def _as_it_is(low: Pixels8) -> NDArray[np.floating]:
    return low / 255


def scale_of(factor: Fraction) -> Scale:
    """Return a scale, whole where it can be.

    Raises:
        UsageError: It does not enlarge.
    """
    if factor < 1:
        raise UsageError(f"-s {float(factor):g}: does not enlarge", "Give 1 or more.")
    return whole(factor)
