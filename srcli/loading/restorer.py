"""Open a model for restoring pictures: the only place where session and restorer are joined."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from srcli.backends import open_model
from srcli.backends.base import Model, Precision, Session, SessionOptions
from srcli.backends.ensemble import SelfEnsemble
from srcli.backends.known_blur import KnownBlur
from srcli.errors import UsageError
from srcli.models.dcls.reduction import Kernel, beyond, reduced
from srcli.models.spec import Geometry, ModelSpec, Scale
from srcli.pipeline.budget import sensible_concurrency
from srcli.pipeline.restorer import Restorer

Note = Callable[[str], None]

MOST_BEYOND = 0.05  # share of a blur that may be wider than a network can undo


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options for running a model.

    Raises:
        UsageError: A number makes no sense.
    """

    backend: str = "auto"
    """`native`, `openvino`, `ort`, `torch`, `trt`, or `auto` for the fastest that works."""

    precision: Precision = "fp32"
    """Number type that the network computes in."""

    tta: bool = False
    """Average over the eight flips and turns of a picture."""

    threads: int | None = None
    """CPU threads; None for one on each core that may be used."""

    tile: int | None = None
    """Side of a tile of the input, in pixels, without its halo; None chooses by `memory`."""

    memory: int | None = None
    """Bytes that a run may take; None for a quarter of what is free."""

    def __post_init__(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"{self.threads} threads cannot compute", "Give 1 or more.")
        if self.tile is not None and self.tile < 1:
            raise UsageError(f"a tile of {self.tile} pixels is not possible", "Give at least 1.")
        if self.memory is not None and self.memory < 1 << 20:
            raise UsageError(
                f"{self.memory} bytes of memory are too few", "Give at least 1 MiB, 1 << 20."
            )


def open_restorer(
    model: Model,
    options: RunOptions,
    *,
    scale: Scale,
    pictures: int = 1,
    alongside: Restorer | None = None,
    blur: Kernel | None = None,
    note: Note = lambda message: None,
) -> Restorer:
    """Open a model; the restorer owns what it opens, so close it, or use it as a context manager.

    Args:
        model: With its weights.
        options: Options for running it.
        scale: Factor by which the model enlarges.
        pictures: Number of pictures ahead: several go through the network side by side.
        alongside: A restorer that stays open, to share its threads with; see `Restorer`.
        blur: The blur of the pictures where it is known, for networks that estimate it otherwise:
            K x K of sum 1, in pixels of the large picture.
        note: Called with messages, for example that a tile had to be made smaller.

    Raises:
        BackendError: The backend does not exist, cannot be used here, or not for this model.
        UsageError: The model cannot be averaged over flips and turns, or takes no blur.
    """
    known = None if blur is None else _at_input(blur, model.spec, scale)
    concurrency = sensible_concurrency(
        pictures,
        model.geometry,
        threads=options.threads,
        memory=options.memory,
        tile=options.tile,
    )
    settings = SessionOptions(
        threads=options.threads, precision=options.precision, concurrency=concurrency
    )
    backend, session = open_model(options.backend, model, settings)
    try:
        session = session if known is None else KnownBlur(session, known)
        session = SelfEnsemble(session) if options.tta else session
        return restorer_of(
            session,
            model.geometry,
            scale,
            options,
            backend=backend.name,
            alongside=alongside,
            note=note,
        )
    except BaseException:
        session.close()
        raise


def _at_input(blur: Kernel, spec: ModelSpec, scale: Scale) -> Kernel:
    """Return a blur of the large picture at input resolution, as a network takes it.

    Raises:
        UsageError: The network takes none, or none so wide.
    """
    if spec.kernel_side is None:
        raise UsageError(f"{spec.name} takes no blur kernel", "Choose dcls-iso or dcls-aniso.")
    side = spec.kernel_side(int(scale))
    if (lost := beyond(blur, int(scale), side)) > MOST_BEYOND:
        raise UsageError(
            f"{lost:.0%} of the blur lies beyond the {side * int(scale)} x {side * int(scale)} "
            f"pixels that {spec.name} x{int(scale)} can undo",
            "Cut the kernel, or reduce the picture first.",
        )
    return reduced(blur, int(scale), side)


def restorer_of(
    session: Session,
    geometry: Geometry,
    scale: Scale,
    options: RunOptions,
    *,
    backend: str = "",
    alongside: Restorer | None = None,
    note: Note = lambda message: None,
) -> Restorer:
    """Let an open session restore pictures of any size; closing the restorer closes it too.

    Args:
        session: An open model.
        geometry: Sizes that the network takes, its receptive field and its need of memory.
        scale: Factor by which the network enlarges.
        options: Tiles and memory are taken from here.
        backend: Name of the backend, for people.
        alongside: A restorer that stays open, to share its threads with; see `Restorer`.
        note: Called with messages, for example that a tile had to be made smaller.
    """
    return Restorer(
        session=session,
        geometry=geometry,
        scale=scale,
        backend=backend,
        tile=options.tile,
        memory=options.memory,
        concurrency=session.concurrency,
        alongside=alongside,
        note=note,
    )
