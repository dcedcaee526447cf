"""Restore one picture of a request, by the same steps as the commands, in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic

from srcli.errors import MemoryExhaustedError, SrcliError
from srcli.images import FORMATS, encode
from srcli.images.reading import Opening
from srcli.jobs.examining import described
from srcli.jobs.finding import STDIO
from srcli.jobs.job import Job, Wishes
from srcli.jobs.looking import decided
from srcli.jobs.naming import usual_suffix
from srcli.jobs.sizes import SizeRequest
from srcli.jobs.steps import Rules, Step, rules_for
from srcli.loading.model import load, no_photo_weights
from srcli.loading.restorer import open_restorer
from srcli.models.spec import ModelSpec
from srcli.pipeline.passes import Passes
from srcli.pipeline.restorer import Restorer
from srcli.serving.orders import Order
from srcli.serving.problems import too_large
from srcli.serving.settings import Settings
from srcli.system.closing import Closing

MEDIA = {name: f"image/{name}" for name in FORMATS}
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A restored picture."""

    content: bytes
    media: str
    """Media type."""

    name: str
    """Name for the file."""

    width: int
    height: int
    notes: tuple[str, ...]
    """Lines for people, as a command writes them."""

    steps: tuple[str, ...]
    """Networks that it went through: `x4`, `x2 photo`."""

    seconds: float
    """Seconds in the networks."""


class Networks(Closing):
    """All networks of a service; each is opened when it is first needed, and shared by all lanes.

    Args:
        settings: Of the service.
        note: Called with messages, for example that a network is prepared.
    """

    def __init__(self, settings: Settings, note: Callable[[str], None]) -> None:
        self._settings, self._note = settings, note
        self._open: dict[tuple[str, Step], Restorer] = {}
        self._opening = threading.Lock()
        self._stack = ExitStack()

    def restorer(self, spec: ModelSpec, step: Step) -> Restorer:
        """Return the open network for a step.

        Args:
            spec: The model that the client chose.
            step: Of its picture.

        Raises:
            SrcliError: It has no weights here, or cannot be opened.
        """
        name = step.model or spec.name
        key = (name, replace(step, model=None))
        with self._opening:
            if key not in self._open:
                self._open[key] = self._stack.enter_context(self._opened(name, step))
            return self._open[key]

    def _opened(self, name: str, step: Step) -> Restorer:
        model = load(name, step.scale, task=step.task, kind=step.kind, note=self._note)
        return open_restorer(
            model,
            self._settings.options,
            scale=model.grid,
            pictures=self._settings.lanes,
            alongside=next(iter(self._open.values()), None),
            note=self._note,
        )

    def close(self) -> None:
        """Free all networks."""
        self._stack.close()


def rules_of(order: Order) -> Rules:
    """Return the rules for the networks of an order.

    Raises:
        SrcliError: There are no weights for it.
    """
    rules = rules_for(order.spec, order.task, order.input, own_weights=False, before=order.before)
    if rules.input == "photo" and not rules.photo:
        raise no_photo_weights(order.spec)
    return rules


def restore(
    order: Order, content: bytes, networks: Networks, max_pixels: int, progress: Progress
) -> Answer:
    """Restore a picture: its bytes are those that the command would write for this file.

    Args:
        order: What is to be done.
        content: Of the file.
        networks: Those of the service.
        max_pixels: Limit for input and output.
        progress: Called with what is done and all; may raise to stop.

    Raises:
        Problem: It has too many pixels.
        SrcliError: The file cannot be read, or the result cannot be written so.
    """
    progress(0, 1)  # nobody may want it any more
    try:
        return _restored(order, content, networks, max_pixels, progress)
    except MemoryError as error:
        problem = f"{order.name}: out of memory"
        raise MemoryExhaustedError(problem, "Send a smaller picture.") from error
    except SrcliError as error:
        raise _named(order.name, error) from error


def _restored(
    order: Order, content: bytes, networks: Networks, max_pixels: int, progress: Progress
) -> Answer:
    wishes = wishes_of(order, max_pixels)
    here = Path(STDIO)  # nothing is written to a disk
    job = Job(
        source=Path(order.name),
        target=here,
        root=here,
        held=content,
        options=order.options,
        page=order.page,
    )
    opening = Opening(content, max_pixels=max_pixels, name=order.name, page=order.page)
    job = described(job, opening.header, opening.metadata, wishes, alone=True)
    assert job.size is not None, "its header was read"
    size = job.size
    if size.width * size.height > max_pixels:
        problem = f"{order.name}: would become {size.width} x {size.height} pixels"
        raise too_large(f"{problem}, more than {max_pixels:,}", "Choose a smaller scale.")
    picture = opening.read()
    job = decided(job, picture, max_pixels)
    passes = Passes([networks.restorer(order.spec, step) for step in job.steps])
    began = monotonic()
    (made,) = passes.restore_all([picture], progress, (size.height, size.width))
    seconds = monotonic() - began
    format = job.options.format or "png"
    return Answer(
        content=content if job.copied else encode(made, job.options),
        media=MEDIA[format],
        name=_result_name(order, format),
        width=size.width,
        height=size.height,
        notes=tuple(_about(order.name, note) for note in job.notes_on(picture.notes)),
        steps=tuple(step.label for step in job.steps),
        seconds=seconds,
    )


def wishes_of(order: Order, max_pixels: int) -> Wishes:
    """Return the wishes of an order, as a command has them.

    Raises:
        SrcliError: There are no weights for it.
    """
    rules = rules_of(order)
    return Wishes(
        output=STDIO,
        suffix="",
        size=SizeRequest(scale=order.factor),
        scales=rules.scales(order.spec.reached(order.task)),
        grid=order.spec.scale_grid,
        rules=rules,
        options=order.options,
        page=order.page,
        max_pixels=max_pixels,
    )


def _result_name(order: Order, format: str) -> str:
    """Return the name that the command would give to the result: `photo_x4.png`."""
    source = Path(order.name)
    suffixes = FORMATS[format].suffixes
    suffix = source.suffix if source.suffix.lower() in suffixes else suffixes[0]
    label = SizeRequest(scale=order.factor).label
    return f"{source.stem}{usual_suffix(order.task, label)}{suffix}"


def _named(name: str, error: SrcliError) -> SrcliError:
    """Return an error that names the file."""
    told = _about(name, error.problem)
    return type(error)(told if name in told else f"{name}: {told}", error.remedy)


def _about(name: str, text: str) -> str:
    """Name the file where a text speaks of an output without a name."""
    nameless = f"{STDIO}: "
    return f"{name}: {text.removeprefix(nameless)}" if text.startswith(nameless) else text
