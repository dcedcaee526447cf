"""What `upscale`, `denoise` and `deblock` have in common."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import cache
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from srcli import __version__, console
from srcli.commands import options
from srcli.commands.kernels import check_kernel_file, save_kernel
from srcli.errors import UsageError
from srcli.registry import check_scale, get_model
from srcli.spec import InputKind, ModelSpec, Scale, Task, number

if TYPE_CHECKING:
    from srcli.backends.base import Backend, Batch, Precision, SessionOptions
    from srcli.batch import Outcome
    from srcli.foreign import ForeignModel
    from srcli.images import SaveOptions
    from srcli.jobs import Job
    from srcli.loading import LoadedModel
    from srcli.pipeline import Restorer
    from srcli.sizes import SizeRequest

FAILED = 1  # exit code: some inputs failed
FORMATS = ("png", "jpeg", "webp", "tiff", "avif", "bmp")
SUFFIXES = {"denoise": "_denoised", "deblock": "_deblocked"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of a restoring command, as parsed."""

    inputs: tuple[str, ...]
    output: str | None
    model: str
    model_file: Path | None
    weights: Path | None
    backend: str
    precision: Precision
    tta: bool
    threads: int | None
    tile: int | None
    memory: int | None
    recursive: bool
    batch: int
    overwrite: bool
    skip_existing: bool
    resume: bool
    dry_run: bool
    check: bool
    format: str | None
    quality: int | None
    lossless: bool
    subsampling: str
    background: tuple[int, int, int] | None
    strip: bool
    max_pixels: int
    as_json: bool
    prune_below: float | None = None
    save_kernel: Path | None = None
    kind: InputKind = "clean"

    def __post_init__(self) -> None:
        """Refuse options of our own models beside another network."""
        if self.model_file is None:
            return
        source = click.get_current_context().get_parameter_source("model")
        own = {
            "--model": source is ParameterSource.COMMANDLINE,
            "--weights": self.weights is not None,
            "--input": self.kind != "clean",
            "--prune-branches": self.prune_below is not None,
        }
        for option in (name for name, is_given in own.items() if is_given):
            raise UsageError(
                f"{option} is for srcli's own models, and {self.model_file} is a network with "
                f"weights of its own. Leave out {option} or --model-file."
            )

    @property
    def spec(self) -> ModelSpec:
        """Facts about the model that is meant."""
        return get_model(self.model) if self.model_file is None else foreign(self.model_file).spec

    def session_options(self, lanes: int = 1) -> SessionOptions:
        """How to run the network, so many calls at once."""
        from srcli.backends.base import SessionOptions

        return SessionOptions(threads=self.threads, precision=self.precision, lanes=lanes)


@cache
def foreign(file: Path) -> ForeignModel:
    """A network that is not ours; opening it means running it."""
    from srcli.foreign import load_foreign

    return load_foreign(file, note=console.note)


def color(text: str) -> tuple[int, int, int]:
    """`white`, `#ffffff` or any other CSS colour as RGB."""
    from PIL import ImageColor

    try:
        red, green, blue = ImageColor.getrgb(text)[:3]
    except ValueError:
        raise click.BadParameter(f"{text!r} is no colour. Write white or #ffffff.") from None
    return red, green, blue


restoring_options = options.apply(
    click.argument("inputs", nargs=-1, required=True, metavar="INPUT..."),
    click.option(
        "-o",
        "--output",
        type=options.PathName(),
        metavar="OUT",
        help="File, folder (ends in a slash, or exists), or - for standard output.  "
        "[default: beside the input]",
    ),
    options.model,
    click.option(
        "--model-file",
        type=options.FILE,
        metavar="FILE",
        help="Another network instead of --model: an .onnx file, or with spandrel a checkpoint.",
    ),
    options.running,
    click.option("-r", "--recursive", is_flag=True, help="Folders with all that is below them."),
    click.option(
        "--batch",
        type=click.IntRange(min=1),
        default=1,
        show_default=True,
        help="Pictures of one size to restore together.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace outputs that exist."),
    click.option("--skip-existing", is_flag=True, help="Leave outputs that exist as they are."),
    click.option("--resume", is_flag=True, help="Redo only what is missing or has changed."),
    click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
    click.option(
        "--check",
        is_flag=True,
        help="Write nothing; compare tiles with the whole picture, and backends with each other.",
    ),
    click.option(
        "-f", "--format", type=click.Choice(FORMATS), help="Of outputs.  [default: the input's]"
    ),
    click.option(
        "--quality", type=click.IntRange(1, 100), help="Of JPEG, WebP and AVIF.  [default: 95]"
    ),
    click.option("--lossless", is_flag=True, help="For WebP and AVIF."),
    click.option(
        "--subsampling",
        type=click.Choice(("keep", "444", "420")),
        default="keep",
        show_default=True,
        help="Chroma of JPEG outputs; keep does as the input, 444 where it was no JPEG.",
    ),
    click.option(
        "--background",
        type=color,
        metavar="COLOR",
        help="What transparent pictures lie on in formats that have no transparency.",
    ),
    click.option("--strip", is_flag=True, help="Leave out profiles, EXIF and all other metadata."),
    click.option(
        "--max-pixels",
        type=click.IntRange(min=1),
        default=500_000_000,
        show_default=True,
        help="Refuse larger inputs.",
    ),
    options.as_json,
)


def restore_files(request: Request, task: Task, size: SizeRequest) -> int:
    """Do what a restoring command asks for; returns the exit code."""
    jobs = _plan(request, task, size)
    if request.save_kernel is not None:
        check_kernel_file(request.save_kernel, request.spec, jobs, overwrite=request.overwrite)
        if _backend(request) != "torch":
            raise UsageError("--save-kernel needs --backend torch, where the kernel comes out.")
        if request.check or request.skip_existing or request.resume:
            raise UsageError(
                "--save-kernel goes with neither --check, --skip-existing nor --resume."
            )
    if request.as_json and any(str(job.target) == "-" for job in jobs):
        raise UsageError("the picture and --json would share standard output. Name a file with -o.")
    if request.dry_run:
        return _show_plan(jobs, request)
    runner = _Runner(request, task, _side_by_side(jobs, request))
    if request.check:
        from srcli.commands.checking import check_jobs

        return check_jobs(jobs, request, runner.load)
    outcomes = list(_run(jobs, request, runner))
    if request.save_kernel is not None and runner.kernel is not None:
        save_kernel(runner.kernel[0, 0], request.save_kernel)
    if request.as_json:
        console.print_json({**runner.facts, "files": [_as_dict(o) for o in outcomes]})
    return _summary(outcomes)


def _side_by_side(jobs: Sequence[Job], request: Request) -> int:
    """How many pictures could be in the network at once: those that are likely to be done."""
    from srcli.batch import grouped

    keep = request.skip_existing or request.resume
    ahead = [j for j in jobs if j.size is not None and not (keep and j.exists)]
    if len({job.size.network_scale for job in ahead if job.size is not None}) > 1:
        return 1  # each scale has its own network, and tiles of its own
    return sum(1 for _ in grouped(ahead, request.batch))


def _backend(request: Request) -> str:
    # In PyTorch a blind network gives out its kernel, so that all tiles share one.
    return "torch" if request.backend == "auto" and request.spec.blind else request.backend


def _plan(request: Request, task: Task, size: SizeRequest) -> list[Job]:
    from srcli.jobs import Wishes, check_existing, plan_jobs

    if request.overwrite + request.skip_existing + request.resume > 1:
        raise UsageError("choose one of --overwrite, --skip-existing and --resume.")
    spec = request.spec
    if size.scale is not None and not 0 < size.scale <= spec.largest_scale(task):
        check_scale(spec, ceil(size.scale), task)
    wishes = Wishes(
        output=request.output,
        suffix=SUFFIXES.get(task, f"_{size.label}"),
        size=size,
        scales=(*spec.scales_for(task), *((spec.any_scale.largest,) if spec.any_scale else ())),
        grid=spec.any_scale.grid if spec.any_scale else None,
        options=_save_options(request),
        recursive=request.recursive,
        max_pixels=request.max_pixels,
    )
    jobs = plan_jobs(request.inputs, wishes)
    alone = jobs[0].error if len(jobs) == 1 else None
    if alone is not None:
        raise alone
    if not (request.overwrite or request.skip_existing or request.resume or request.check):
        check_existing(jobs)
    return jobs


def _save_options(request: Request) -> SaveOptions:
    from srcli.images import SaveOptions

    return SaveOptions(
        format=request.format,
        quality=request.quality,
        lossless=request.lossless,
        subsampling=request.subsampling,  # type: ignore[arg-type]  # click checked the choice
        background=request.background,
        strip=request.strip,
    )


class _Runner:
    """Opens the model at each scale that a picture needs, once."""

    def __init__(self, request: Request, task: Task, pictures: int) -> None:
        from srcli.backends import get_backend

        self.request, self.task = request, task
        self.pictures = pictures
        self.backend: Backend = get_backend(_backend(request), request.spec, request.precision)
        self.facts: dict[str, Any] = {
            "model": request.spec.name,
            "task": task,
            "backend": self.backend.name,
            "precision": request.precision,
            "tta": request.tta,
            "version": __version__,
            "weights_sha256": {},
        }
        self._open: dict[Scale, Restorer] = {}
        self._stack = ExitStack()

    def load(self, scale: Scale) -> LoadedModel:
        from srcli.loading import load

        request = self.request
        model: LoadedModel
        if request.model_file is not None:
            model = foreign(request.model_file)
        else:
            model = load(
                request.model,
                scale,
                task=self.task,
                kind=request.kind,
                weights=request.weights,
                note=console.note,
                prune_below=request.prune_below,
            )
        for line in model.removed() if model.prune_below is not None else ():
            console.note(line)
        self.facts["weights_sha256"][f"x{float(scale):g}"] = model.weights.sha256
        return model

    def restorer(self, scale: Scale) -> Restorer:
        from srcli.backends import open_model
        from srcli.backends.base import lanes_of
        from srcli.backends.ensemble import SelfEnsemble
        from srcli.pipeline import Restorer, sensible_lanes

        if scale not in self._open:
            model = self.load(scale)
            lanes = sensible_lanes(
                self.pictures,
                model.geometry,
                threads=self.request.threads,
                memory=self.request.memory,
                tile=self.request.tile,
            )
            self.backend, session = open_model(
                _backend(self.request), model, self.request.session_options(lanes)
            )
            self.facts["backend"] = self.backend.name
            self._stack.enter_context(closing(session))
            session = SelfEnsemble(session) if self.request.tta else session
            if self.request.backend == "auto":
                console.note(f"{model.label} with {self.backend.name}")
            self._open[scale] = Restorer(
                session=session,
                geometry=model.geometry,
                scale=model.grid,
                tile=self.request.tile,
                memory=self.request.memory,
                lanes=lanes_of(session),
                note=console.note,
            )
        return self._open[scale]

    @property
    def lanes(self) -> int:
        """How many pictures may be in the network at once."""
        return min((restorer.lanes for restorer in self._open.values()), default=1)

    @property
    def kernel(self) -> Batch | None:
        """The blur that a blind network saw in the picture that was restored last."""
        return next((r.kernel for r in self._open.values() if r.kernel is not None), None)

    def __enter__(self) -> _Runner:
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()


def _run(jobs: Sequence[Job], request: Request, runner: _Runner) -> list[Outcome]:
    from srcli.batch import Batch

    # Before the first picture is read: a model without weights stops everything.
    for scale in {job.size.network_scale for job in jobs if job.size is not None}:
        runner.restorer(scale)
    outcomes: list[Outcome] = []
    with runner, console.progress() as bar:

        def show(name: str, done: int, total: int) -> None:
            bar.show(f"{len(outcomes) + 1}/{len(jobs)} {name}", done, total)

        batch = Batch(
            restorer=runner.restorer,
            progress=show,
            lanes=runner.lanes,
            size=request.batch,
            resume=request.resume,
            skip_existing=request.skip_existing,
            facts=runner.facts,
            max_pixels=request.max_pixels,
        )
        for outcome in batch.run(jobs):
            outcomes.append(outcome)
            _tell(outcome, quiet=request.as_json)
    return outcomes


def _tell(outcome: Outcome, *, quiet: bool) -> None:
    job = outcome.job
    for note in outcome.notes:
        console.note(f"note: {note}")
    if outcome.error is not None:
        console.error(str(outcome.error))
    elif quiet or str(job.target) == "-":
        return
    elif outcome.status == "skipped":
        console.result(f"{job.target}  skipped")
    else:
        console.result(f"{job.target}  {_sizes(job)}  {outcome.seconds:.2f} s")


def _show_plan(jobs: Sequence[Job], request: Request) -> int:
    if request.as_json:
        console.print_json({"files": [_planned(job) for job in jobs]})
        return FAILED if any(job.error for job in jobs) else 0
    for job in jobs:
        if job.error is not None:
            console.error(str(job.error))
        else:
            console.result(f"{job.name} -> {job.target}  {_sizes(job)}{_kept(job, request)}")
            for note in job.notes:
                console.note(f"note: {note}")
    return FAILED if any(job.error for job in jobs) else 0


def _kept(job: Job, request: Request) -> str:
    """What will become of an output that is there already."""
    if request.check or not job.exists:
        return ""
    if request.resume:
        return "  (exists: kept, unless it was made otherwise)"
    return "  (exists: kept)" if request.skip_existing else "  (exists: replaced)"


def _sizes(job: Job) -> str:
    if job.header is None or job.size is None:
        return ""
    header, size = job.header, job.size
    return f"{header.width}x{header.height} -> {size.width}x{size.height}"


def _planned(job: Job) -> dict[str, Any]:
    header, size = job.header, job.size
    return {
        "input": job.name,
        "output": str(job.target),
        "input_size": None if header is None else [header.width, header.height],
        "output_size": None if size is None else [size.width, size.height],
        "scale": None if size is None else number(size.network_scale),
        "exists": job.exists,
        "error": None if job.error is None else str(job.error),
        "notes": list(job.notes),
    }


def _as_dict(outcome: Outcome) -> dict[str, Any]:
    return {
        **_planned(outcome.job),
        "status": outcome.status,
        "error": None if outcome.error is None else str(outcome.error),
        "seconds": round(outcome.seconds, 4),
        "notes": list(outcome.notes),
    }


def _summary(outcomes: Sequence[Outcome]) -> int:
    counts = {
        status: sum(outcome.status == status for outcome in outcomes)
        for status in ("done", "skipped", "failed")
    }
    if len(outcomes) > 1:
        console.note(", ".join(f"{count} {status}" for status, count in counts.items() if count))
    if not counts["failed"]:
        return 0
    alone = outcomes[0].error if len(outcomes) == 1 else None
    return FAILED if alone is None else alone.exit_code
