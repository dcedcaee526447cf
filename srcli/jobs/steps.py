"""Choose the networks that a picture goes through, by what its file tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from srcli.checkpoints.shipped import photo_limits, shipped_weights
from srcli.errors import UsageError, WeightsError
from srcli.images.picture import Metadata
from srcli.models.registry import DEFAULT_MODEL
from srcli.models.spec import InputChoice, InputKind, ModelSpec, Scale, Task

ORDER: tuple[Task, ...] = ("deblock", "denoise")
"""Tasks before enlargement, the first first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One pass of a picture through one network."""

    scale: Scale
    """Factor of enlargement."""

    task: Task = "upscale"
    kind: InputKind = "clean"
    """Which weights for upscaling."""

    model: str | None = None
    """Name of the model, with the weights that ship; None for the one that the user chose."""

    @property
    def label(self) -> str:
        """Name among the weights of a batch: `x2`, `x2 photo`, `denoise`, `lapar-c denoise`."""
        if self.task != "upscale":
            return f"{self.model or ''} {self.task}".lstrip()
        return f"x{float(self.scale):g}" + ("" if self.kind == "clean" else f" {self.kind}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Rules for the steps of every picture of a batch."""

    task: Task = "upscale"
    input: InputChoice = "auto"
    """Kind of weights for upscaling; `auto` chooses by the file."""

    photo: Mapping[Scale, int] = field(default_factory=dict)
    """Scales with weights for photographs. The number is the highest quality of JPEG files on
    which these measure better than the weights for clean pictures."""

    before: tuple[Step, ...] = ()
    """Steps that restore a picture before it is enlarged."""

    def scales(self, scales: tuple[int, ...]) -> tuple[int, ...]:
        """Return those of a model's scales that have the kind of weights that is wanted."""
        return tuple(s for s in scales if s in self.photo) if self.input == "photo" else scales

    def steps(self, passes: Sequence[Scale], metadata: Metadata) -> tuple[Step, ...]:
        """Return the steps of a picture.

        Args:
            passes: Scales of the network's passes, one after the other.
            metadata: The picture's, of which format, loss and quality are looked at.
        """
        kind = self._kind(passes[0], metadata)
        own = (
            Step(task=self.task, scale=scale, kind=kind if scale in self.photo else "clean")
            for scale in passes
        )
        return (*self.before, *own)

    def steps_if_jpeg(
        self, passes: Sequence[Scale], metadata: Metadata, *, has_alpha: bool, bits: int
    ) -> tuple[Step, ...]:
        """Return the steps of a picture whose pixels turn out to have been in a JPEG file.

        It is empty where they are not to be looked at: they came from no file, or the file tells,
        or it holds what JPEG cannot hold, or there is no choice.
        """
        if metadata.format is None or not metadata.lossless or has_alpha or bits != 8:
            return ()
        found = self.steps(passes, replace(metadata, lossless=False))
        return () if found == self.steps(passes, metadata) else found

    def notes(self, name: str, passes: Sequence[Scale], metadata: Metadata) -> list[str]:
        """Say which weights were chosen and why, where there was a choice."""
        if self.input != "auto" or passes[0] not in self.photo or metadata.lossless:
            return []
        chosen = {"photo": "photographs", "clean": "clean pictures"}
        kind = self._kind(passes[0], metadata)
        return [f"{name} ({_described(metadata)}): weights for {chosen[kind]}"]

    def _kind(self, scale: Scale, metadata: Metadata) -> InputKind:
        if self.input != "auto":
            return self.input
        if scale not in self.photo or metadata.lossless:
            return "clean"
        # Of other formats than JPEG weights for photographs measured better at usual qualities.
        good = metadata.quality is not None and metadata.quality > self.photo[scale]
        return "clean" if good else "photo"


def rules_for(
    spec: ModelSpec,
    task: Task,
    input: InputChoice,
    *,
    own_weights: bool,
    before: Sequence[Task] = (),
) -> Rules:
    """Return the rules for a model of the registry.

    Args:
        spec: The model.
        task: What is to be done.
        input: Kind of weights for upscaling.
        own_weights: True if the user brings weights, of which there is one kind.
        before: Tasks to do before enlarging.

    Raises:
        UsageError: Something is to be done before, and nothing is enlarged.
        WeightsError: No weights ship for a task of `before`.
    """
    if before and task != "upscale":
        raise UsageError(f"to {before[0]} goes before enlarging, and the task is to {task}.")
    steps = steps_before(spec.name, before)
    if own_weights or task != "upscale":
        return Rules(task=task, input="clean", before=steps)
    return Rules(task=task, input=input, photo=photo_limits(spec), before=steps)


def steps_before(model: str, tasks: Sequence[Task]) -> tuple[Step, ...]:
    """Return the steps that do tasks before a model enlarges.

    Args:
        model: Its name. It does them itself where it has weights for that, else the default model.
        tasks: `denoise`, `deblock` or both. What happened to a picture last is undone first: JPEG.

    Raises:
        WeightsError: No weights ship for a task.
    """
    return tuple(
        Step(scale=1, task=task, model=_model_for(task, model)) for task in ORDER if task in tasks
    )


def _model_for(task: Task, wanted: str) -> str:
    able = [weights.model for weights in shipped_weights() if weights.task == task]
    found = next((name for name in (wanted, DEFAULT_MODEL, *able) if name in able), None)
    if found is None:
        raise WeightsError(f"srcli ships no weights to {task}", f"Leave out --{task}.")
    return found


def _described(metadata: Metadata) -> str:
    if metadata.quality is not None:
        return f"JPEG of quality {metadata.quality}"
    return f"{(metadata.format or 'file').upper()} with loss"
