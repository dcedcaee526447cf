"""Ways to restore one file on this machine, with the time and the quality of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from srcli.bench.latencies import HEIGHT, WIDTH, Latency, keep, kept, key, measure
from srcli.checkpoints.shipped import Weights, find_weights, left_out
from srcli.commands.catalogue import MEASURES
from srcli.errors import OutputError, SrcliError
from srcli.jobs.sizes import SizeRequest
from srcli.jobs.steps import Step, rules_for
from srcli.models.registry import MODELS
from srcli.models.spec import InputChoice, InputKind, ModelSpec, Task

if TYPE_CHECKING:
    from srcli.backends.base import Precision
    from srcli.images import Header
    from srcli.images.picture import Metadata

Way = tuple[str, "Precision"]
"""A backend, or `auto`, and a precision."""

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A file, the task and the wanted size."""

    task: Task
    size: SizeRequest
    input: InputChoice
    header: Header
    metadata: Metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One way to do it."""

    spec: ModelSpec
    steps: tuple[Step, ...]
    weights: tuple[Weights, ...]
    """Those of each step."""

    width: int
    height: int
    """Pixels of the input."""

    backend: str = "auto"
    precision: Precision = "fp32"
    seconds: float | None = None
    """Estimate for the whole file, without reading and writing it; None if not measured."""

    @property
    def kind(self) -> InputKind:
        """Kind of the weights of the first step."""
        return self.steps[0].kind

    @property
    def psnr(self) -> float | None:
        """PSNR in dB on the task's test set; None where it was measured in another way."""
        name, figure, _ = MEASURES[self.steps[0].task]
        first = self.weights[0]
        comparable = "protocol" not in first.facts and len(self.steps) == 1
        return first.scores.get(name, {}).get(figure) if comparable else None

    def rank(self) -> tuple[bool, float]:
        """Return the key to sort by: weights for such files first, then PSNR."""
        return self.kind == "photo", self.psnr or 0.0

    def time(self, latencies: Sequence[Latency]) -> float:
        """Return seconds for the file, by the latencies of each step."""
        total, width, height = 0.0, float(self.width), float(self.height)
        for step, latency in zip(self.steps, latencies, strict=True):
            width, height = width * float(step.scale), height * float(step.scale)
            total += latency.milliseconds / 1e3 * width * height / (WIDTH * HEIGHT)
        return total


def candidates(wanted: Wanted) -> list[Candidate]:
    """Return all models whose weights are on this machine and that can do it."""
    return [found for spec in MODELS if (found := _candidate(spec, wanted)) is not None]


def elsewhere(found: Sequence[Candidate], task: Task) -> dict[str, list[str]]:
    """Return the models that weights which are not installed would add, by their distribution."""
    here = {one.spec.name for one in found}
    result: dict[str, list[str]] = {}
    for spec in MODELS:
        if spec.name not in here and (distribution := left_out(spec, None, task)) is not None:
            result.setdefault(distribution, []).append(spec.name)
    return result


def _candidate(spec: ModelSpec, wanted: Wanted) -> Candidate | None:
    if wanted.task not in spec.tasks():
        return None
    rules = rules_for(spec, wanted.task, wanted.input, own_weights=False)
    scales = rules.scales(spec.reached(wanted.task))  # as `srcli upscale` chooses among them
    if not scales:
        return None
    width, height = wanted.header.width, wanted.header.height
    size = wanted.size.resolve(width, height, scales, spec.scale_grid)
    steps = rules.steps(size.passes, wanted.metadata)
    if not steps:
        return None  # nothing is to be gained
    weights = [find_weights(spec, step.scale, step.task, step.kind) for step in steps]
    found = tuple(one for one in weights if one is not None)
    if len(found) < len(steps):
        return None
    return Candidate(spec=spec, steps=steps, weights=found, width=width, height=height)


def timed(
    found: Sequence[Candidate],
    ways: Callable[[ModelSpec], Sequence[Way]],
    note: Callable[[str], None],
    progress: Progress,
    *,
    measures: bool,
) -> Iterator[Candidate]:
    """Yield each candidate in each way that it runs in, with its time.

    Args:
        found: Candidates.
        ways: Function from a model to the ways to try.
        note: Called with what could not be measured, and why.
        progress: Called with a label, the number of ways done, and of all.
        measures: True to measure what is not known yet.
    """
    known, remember = kept(), _Memory(note)
    plan = [(one, way) for one in found for way in ways(one.spec)]
    for done, (one, (backend, precision)) in enumerate(plan):
        progress(f"{one.spec.name} {backend} {precision}", done, len(plan))
        try:
            if measures:
                known |= _measured(one, backend, precision, known, remember)
        except SrcliError as error:
            note(f"{one.spec.name} with {backend} in {precision} was not measured: {error}")
            continue
        latencies = [known.get(key(weights, backend, precision)) for weights in one.weights]
        found_all = [latency for latency in latencies if latency is not None]
        if len(found_all) == len(latencies):
            seconds = one.time(found_all)
            yield replace(one, backend=found_all[0].backend, precision=precision, seconds=seconds)


def _measured(
    one: Candidate,
    backend: str,
    precision: Precision,
    known: Mapping[str, Latency],
    remember: _Memory,
) -> dict[str, Latency]:
    """Measure what is not known of a candidate; each is kept in the cache at once."""
    made: dict[str, Latency] = {}
    for weights in one.weights:
        name = key(weights, backend, precision)
        if name not in known and name not in made:
            made[name] = measure(weights, None if backend == "auto" else backend, precision)
            remember(name, made[name])
    return made


class _Memory:
    """Keeps what was measured for later runs; says once if the cache cannot be written.

    Args:
        note: Called with that.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note, self._works = note, True

    def __call__(self, name: str, found: Latency) -> None:
        if not self._works:
            return
        try:
            keep({name: found})
        except OutputError as error:
            self._works = False
            self._note(
                f"what is measured is not kept for later: {error.problem}. Name another folder in "
                "SRCLI_CACHE."
            )


def chosen(found: Sequence[Candidate], *, fastest: bool, within: float | None) -> Candidate | None:
    """Return the candidate that a wish is for; None if none is within the time.

    Args:
        found: Candidates with times.
        fastest: The one that takes least time; else the best.
        within: Most seconds; None for any.
    """
    fitting = [one for one in found if within is None or (one.seconds or 0.0) <= within]
    if not fitting:
        return None
    if fastest:
        return min(fitting, key=lambda one: (one.seconds or 0.0, -(one.psnr or 0.0)))
    return max(fitting, key=lambda one: (*one.rank(), -(one.seconds or 0.0)))
