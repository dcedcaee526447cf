"""Measure which backend is the fastest on this machine, for each family of networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from srcli.backends import BACKENDS
from srcli.backends.preference import Order
from srcli.bench.latencies import keep, key, measure
from srcli.checkpoints.shipped import Weights, find_weights
from srcli.errors import SrcliError
from srcli.models.registry import MODELS
from srcli.models.spec import ModelSpec

ROUNDS = 2  # in turn, there and back: what else the machine does must not decide
NOT_MEASURED = ("trt",)  # an engine takes minutes to build, and `auto` never builds one


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """Backends for the models of one family, measured with the smallest of them."""

    family: str
    model: str
    scale: int
    milliseconds: dict[str, float]
    """Least latency of an output of 1280x720 pixels by backend, the fastest first."""

    @property
    def order(self) -> Order:
        """Return the backends, the fastest first."""
        return tuple(self.milliseconds)


def subjects() -> list[Weights]:
    """Return the weights to measure with: of each family the smallest usual network that has some.

    One that is made for a single scale is too small to stand for the others.
    """
    return [
        found
        for _, specs in groupby(MODELS, lambda spec: spec.family)
        if (found := _smallest([*specs])) is not None
    ]


def _smallest(specs: Sequence[ModelSpec]) -> Weights | None:
    usual = [spec for spec in specs if len(spec.scales) > 1]
    offered = [(spec, scale) for spec in usual for scale in spec.scales_for("upscale")]
    offered.sort(key=lambda one: (one[0].parameters(one[1]), -one[1]))
    found = (find_weights(spec, scale, "upscale") for spec, scale in offered)
    return next((weights for weights in found if weights is not None), None)


def tune(
    weights: Sequence[Weights],
    note: Callable[[str], None],
    progress: Callable[[str, int, int], None],
) -> Iterator[Tuned]:
    """Measure each backend that runs a model here, and yield the order for its family.

    Args:
        weights: One of each family; see `subjects`.
        note: Called with what could not be measured, and why.
        progress: Called with a label, the number of measurements done, and of all.
    """
    plan = [(one, _able(one)) for one in weights]
    total = ROUNDS * sum(len(names) for _, names in plan)
    done = 0
    for one, names in plan:
        least: dict[str, float] = {}
        for name in [*names, *reversed(names)]:
            progress(f"{one.model} {name}", done, total)
            done += 1
            try:
                found = measure(one, name)
            except SrcliError as error:
                note(f"{one.model} with {name} was not measured: {error}")
                continue
            keep({key(one, name, "fp32"): found})
            least[name] = min(found.milliseconds, least.get(name, found.milliseconds))
        if least:
            yield Tuned(
                family=_spec(one).family,
                model=one.model,
                scale=int(one.scale),
                milliseconds=dict(sorted(least.items(), key=lambda row: row[1])),
            )


def _able(weights: Weights) -> list[str]:
    """Return the backends that run a model on this machine."""
    return [
        backend.name
        for backend in BACKENDS
        if backend.name not in NOT_MEASURED
        and backend.unavailable() is None
        and backend.declines(_spec(weights), "fp32") is None
    ]


def _spec(weights: Weights) -> ModelSpec:
    return next(spec for spec in MODELS if spec.name == weights.model)
