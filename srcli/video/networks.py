"""Open the networks that the frames of a video go through."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from srcli.errors import UnsupportedScaleError, UsageError
from srcli.jobs.steps import steps_before
from srcli.loading.model import LoadedModel, load
from srcli.loading.restorer import RunOptions, open_restorer
from srcli.models.registry import get_model
from srcli.models.spec import InputKind, Task
from srcli.pipeline.passes import Passes
from srcli.pipeline.restorer import Restorer

MANY = 1000  # frames: more do not change how many are in the network at once
ON_GPU = 4  # frames that a GPU takes together


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Networks for a video, and their weights."""

    model: str
    scale: int
    """Factor of enlargement; 1 does only what `before` says."""

    kind: InputKind = "clean"
    before: tuple[Task, ...] = ()
    """Tasks to do before enlarging: `denoise`, `deblock`."""

    weights: Path | None = None
    """The user's own weights of the model."""

    def models(self, note: Callable[[str], None] = lambda message: None) -> list[LoadedModel]:
        """Find the models and their weights, in the order in which frames go through them.

        Raises:
            UsageError: There is nothing to do.
            UnsupportedScaleError: The model does not enlarge by this factor.
            WeightsError: There are no weights.
        """
        found = [
            load(step.model or self.model, 1, task=step.task, note=note)
            for step in steps_before(self.model, self.before)
        ]
        if self.scale > 1:
            if not get_model(self.model).takes(self.scale):
                raise self._no_such_scale()
            found.append(
                load(self.model, self.scale, kind=self.kind, weights=self.weights, note=note)
            )
        if not found:
            raise UsageError(
                "-s 1 leaves frames as large as they are",
                "Add --denoise or --deblock, or give another factor.",
            )
        return found

    def _no_such_scale(self) -> UnsupportedScaleError:
        spec = get_model(self.model)
        factors = ", ".join(map(str, spec.scales_for("upscale")))
        return UnsupportedScaleError(
            f"{self.model} enlarges video by {factors}, not by {self.scale}",
            "Choose one of these with -s.",
        )


@dataclass(slots=True, kw_only=True)
class OpenNetworks:
    """Open networks; a context manager, which closes them."""

    restorers: Sequence[Restorer]
    passes: Passes = field(init=False)
    _stack: ExitStack = field(default_factory=ExitStack, init=False)

    def __post_init__(self) -> None:
        self.passes = Passes(self.restorers)
        for restorer in self.restorers:
            self._stack.enter_context(restorer)

    @property
    def workers(self) -> int:
        """Number of frames, or of batches of frames, to have in the networks at once."""
        return min(restorer.concurrency for restorer in self.restorers)

    @property
    def batch(self) -> int:
        """Number of frames to restore together."""
        on_gpu = all(r.session.device_memory is not None for r in self.restorers)
        return ON_GPU if on_gpu else 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # After an interruption threads may still be computing, and the process ends soon.
        if kind is None or issubclass(kind, Exception):
            self._stack.close()


def open_networks(
    models: Sequence[LoadedModel],
    options: RunOptions,
    note: Callable[[str], None] = lambda message: None,
) -> OpenNetworks:
    """Open models, of which frames go through one after the other.

    Args:
        models: As `Recipe.models` found them.
        options: For running them.
        note: Called with messages for the user.

    Raises:
        BackendError: A backend cannot be used here, or not for a model.
    """
    opened: list[Restorer] = []
    try:
        for model in models:
            opened.append(
                open_restorer(
                    model,
                    options,
                    scale=model.grid,
                    pictures=MANY,
                    alongside=opened[0] if opened else None,
                    note=note,
                )
            )
            note(f"{model.label} with {opened[-1].backend}")
    except BaseException:
        for restorer in reversed(opened):
            restorer.close()
        raise
    return OpenNetworks(restorers=opened)
