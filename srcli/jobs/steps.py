"""Choose the networks that a picture goes through, by what its file tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from srcli.checkpoints.shipped import photo_limits, shipped_weights
from srcli.errors import UsageError, WeightsError
from srcli.images.picture import Metadata
from srcli.models.registry import DEFAULT_MODEL, check_task
from srcli.models.spec import InputChoice, InputKind, ModelSpec, Scale, Task

ORDER: tuple[Task, ...] = ("deblock", "denoise")
"""Tasks before enlargement, the first first."""

LITTLE_TO_GAIN = 95
"""Quality of a JPEG file from which it is said that deblocking gains little: 0.4 dB at most."""


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

    lacking: str | None = None
    """Name of the model, to say where it has no weights for photographs; None to say nothing."""

    before: tuple[Step, ...] = ()
    """Steps that restore a picture before it is enlarged."""

    deblock_up_to: int | None = None
    """Highest quality of JPEG files that gain by deblocking; None if that is not known."""

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
        good = self._is_good(metadata)
        return tuple(s for s in (*self.before, *own) if not (good and s.task == "deblock"))

    def steps_if_jpeg(
        self, passes: Sequence[Scale], metadata: Metadata, *, has_alpha: bool, bits: int
    ) -> tuple[Step, ...]:
        """Return the steps of a picture whose pixels turn out to have been in a JPEG file.

        It is empty where they are not to be looked at: they came from no file, or the file tells,
        or it holds what JPEG cannot hold, or there is no choice.
        """
        if not may_have_been_jpeg(metadata, has_alpha=has_alpha, bits=bits):
            return ()
        found = self.steps(passes, replace(metadata, lossless=False))
        return () if found == self.steps(passes, metadata) else found

    def notes(
        self, name: str, passes: Sequence[Scale], metadata: Metadata, steps: Sequence[Step]
    ) -> list[str]:
        """Say what was chosen and why, where there was a choice.

        Args:
            name: The picture's.
            passes: As for `steps`.
            metadata: The picture's.
            steps: Those that it will go through.
        """
        said = [self._about_weights(passes[0], metadata), self._about_deblocking(metadata, steps)]
        return [f"{name} ({_described(metadata)}): {words}" for words in said if words]

    def _about_weights(self, scale: Scale, metadata: Metadata) -> str | None:
        if self.input != "auto" or metadata.lossless:
            return None
        if scale not in self.photo:
            return self._about_lacking(scale, metadata)
        chosen = {"photo": "photographs", "clean": "clean pictures"}
        return f"weights for {chosen[self._kind(scale, metadata)]}"

    def _about_lacking(self, scale: Scale, metadata: Metadata) -> str | None:
        """Say that weights for photographs are wanted, but not to be had."""
        limit = max(self.photo.values(), default=LITTLE_TO_GAIN)
        if self.lacking is None or (metadata.quality is not None and metadata.quality > limit):
            return None
        said = f"weights for clean pictures, as {self.lacking} has none for photographs"
        others = ", ".join(f"x{float(one):g}" for one in self.photo)
        at = f" at x{float(scale):g}; --input photo takes those at {others}" if others else ""
        return said + at

    def _about_deblocking(self, metadata: Metadata, steps: Sequence[Step]) -> str | None:
        wanted = self.task == "deblock" or any(step.task == "deblock" for step in self.before)
        quality = metadata.quality
        if not wanted or quality is None:
            return None
        if any(step.task == "deblock" for step in steps):
            is_good = quality >= LITTLE_TO_GAIN
            return "there is little to gain by deblocking" if is_good else None
        if self.task == "deblock":
            how = (
                "" if self._is_good(metadata) else " and writing JPEG again (-f png gains a little)"
            )
            return f"there is nothing to gain by deblocking{how}, so the pixels stay as they are"
        return "there is nothing to gain by deblocking, so it is left out"

    def _is_good(self, metadata: Metadata) -> bool:
        """Tell whether a JPEG file is too good to gain by deblocking."""
        quality, limit = metadata.quality, self.deblock_up_to
        return quality is not None and limit is not None and quality > limit

    def _kind(self, scale: Scale, metadata: Metadata) -> InputKind:
        if self.input != "auto":
            return self.input
        if scale not in self.photo or metadata.lossless:
            return "clean"
        # Of other formats than JPEG weights for photographs measured better at usual qualities.
        good = metadata.quality is not None and metadata.quality > self.photo[scale]
        return "clean" if good else "photo"


def may_have_been_jpeg(metadata: Metadata, *, has_alpha: bool, bits: int) -> bool:
    """Tell whether a picture is of a file without loss, and of a kind that JPEG can hold."""
    return metadata.format is not None and metadata.lossless and not has_alpha and bits == 8


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
        UsageError: The model does not do the task, or something is to be done before, and nothing
            is enlarged.
        WeightsError: No weights ship for a task of `before`.
    """
    check_task(spec, task)
    if before and task != "upscale":
        problem = f"{before[0]} is asked for before enlarging, but the task is {task}"
        raise UsageError(problem, "Leave it out, or choose the task upscale.")
    steps = steps_before(spec.name, before)
    if task != "upscale":
        limit = None if own_weights else _deblock_limit(spec.name)
        return Rules(task=task, input="clean", deblock_up_to=limit)
    limit = next((_deblock_limit(s.model) for s in steps if s.task == "deblock"), None)
    if own_weights:
        return Rules(input="clean", before=steps, deblock_up_to=limit)
    photo = photo_limits(spec)
    return Rules(input=input, photo=photo, lacking=spec.name, before=steps, deblock_up_to=limit)


def _deblock_limit(model: str | None) -> int | None:
    """Return the highest quality of JPEG files on which a model's deblocking measured better."""
    able = [w for w in shipped_weights() if (w.model, w.task) == (model, "deblock")]
    return able[0].better_up_to_jpeg if able else None


def wanted_before(*, deblock: bool, denoise: bool) -> tuple[Task, ...]:
    """Return the tasks that are wanted before enlarging."""
    wishes: dict[Task, bool] = {"deblock": deblock, "denoise": denoise}
    return tuple(task for task, wanted in wishes.items() if wanted)


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
