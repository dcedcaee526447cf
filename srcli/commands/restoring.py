"""The work of `upscale`, `denoise` and `deblock`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from srcli import __version__, console
from srcli.commands import options
from srcli.commands.kernels import check_kernel_file, check_known_kernel, save_kernel
from srcli.commands.outcome import Teller, result, show_plan, tell_how_to_go_on
from srcli.commands.request import RestoreRequest, foreign
from srcli.errors import BackendError, UsageError, WeightsError
from srcli.models.spec import Task

if TYPE_CHECKING:
    from pathlib import Path

    from srcli.backends.base import Backend, BlurKernels
    from srcli.jobs.batch import Batch
    from srcli.jobs.job import Job, Outcome, Wishes
    from srcli.jobs.planning import Plan
    from srcli.jobs.sizes import SizeRequest
    from srcli.jobs.steps import Rules, Step
    from srcli.loading.foreign import ForeignModel
    from srcli.loading.model import LoadedModel
    from srcli.models.spec import ModelSpec
    from srcli.pipeline.restorer import Restorer

ON_RAY = "srcli.on_ray"  # in click's context: how to run on a cluster
MANY = 1000  # pictures: more do not change how many are in the network at once


def restore_files(request: RestoreRequest, task: Task, size: SizeRequest) -> int:
    """Do what a restoring command asks for; returns the exit code."""
    if (cluster := click.get_current_context().meta.get(ON_RAY)) is not None:
        from srcli.commands.ray import restore_on_ray

        return restore_on_ray(request, task, size, cluster)
    if request.is_listed:
        from srcli.commands.listing import restore_listed

        return restore_listed(request, wishes_of(request, task, size), Runner(request, task))
    plan = _plan(request, task, size)
    if request.save_kernel is not None:
        _check_kernel(request, plan, task)
    if request.kernel is not None:
        check_known_kernel(request, plan.jobs, _backend(request, task).name)
    if request.for_programs:
        console.check_stdout()
    to_stdout = any(job.to_stdout for job in plan)
    if to_stdout:
        _check_stdout(request)
    if request.dry_run:
        return show_plan(plan, request)
    runner = Runner(request, task, _side_by_side(plan.jobs, request))
    if request.check:
        from srcli.commands.checking import check_jobs

        return check_jobs(plan.jobs, request, runner.load)
    teller = Teller(as_events=request.events is not None, quiet=request.as_json)
    teller.planned(plan)
    outcomes = _run(plan, request, runner, teller)
    if request.save_kernel is not None and runner.kernel is not None:
        save_kernel(runner.kernel[0, 0], request.save_kernel, replace=request.overwrite)
    if request.as_json:
        console.print_json(result(runner.used, outcomes, plan))
    return teller.summary(len(plan.left_out))


def _check_stdout(request: RestoreRequest) -> None:
    """Refuse what cannot go to standard output, before any work."""
    if request.for_programs:
        option = "--json" if request.as_json else "--events"
        raise UsageError(
            f"the picture and {option} would share standard output", "Name a file with -o."
        )
    if request.dry_run or request.check:
        return
    options.check_stdout()


def _check_kernel(request: RestoreRequest, plan: Plan, task: Task) -> None:
    assert request.save_kernel is not None, "there is a kernel to be saved"
    check_kernel_file(request.save_kernel, request.spec, plan.jobs, overwrite=request.overwrite)
    if _backend(request, task).name != "torch":
        raise UsageError(
            "--save-kernel needs a backend that returns the kernel", "Choose --backend torch."
        )
    if request.check or request.skip_existing or request.resume:
        raise UsageError(
            "--save-kernel goes with neither --check, --skip-existing nor --resume",
            "Leave one of them out.",
        )


def _side_by_side(jobs: Sequence[Job], request: RestoreRequest) -> int:
    """Return how many pictures could be in the network at once, of those likely to be done."""
    from srcli.jobs.groups import grouped

    keep = request.skip_existing or request.resume
    ahead = [j for j in jobs if j.size is not None and not (keep and j.exists)]
    scales = {tuple(s.scale for s in job.steps if s.task == "upscale") for job in ahead}
    if len(scales) > 1:
        return 1  # networks of other scales have tiles of their own
    return sum(1 for _ in grouped(ahead, request.batch))


def _backend(request: RestoreRequest, task: Task) -> Backend:
    """Return the backend that runs the model of the request.

    Raises:
        BackendError: There is none.
        WeightsError: Nor are there weights, and what brings these brings a backend, too.
    """
    from srcli.backends import get_backend
    from srcli.checkpoints.shipped import left_out, shipped_weights
    from srcli.system.installation import bring

    try:
        return get_backend(request.backend, request.spec, request.precision)
    except BackendError as error:
        own = request.weights is not None or request.model_file is not None
        here = any((w.model, w.task) == (request.spec.name, task) for w in shipped_weights())
        distribution = None if own or here else left_out(request.spec, None, task)
        if distribution is None:
            raise
        raise WeightsError(
            f"{request.spec.name}: neither its weights nor a backend for it are installed",
            f"Run `{bring(distribution)}`, which brings both.",
        ) from error


def wishes_of(request: RestoreRequest, task: Task, size: SizeRequest) -> Wishes:
    """Return the wishes for all pictures.

    Raises:
        UsageError: Options exclude each other.
        WeightsError: Weights are wanted that the model does not have.
    """
    from srcli.jobs.job import Wishes
    from srcli.jobs.naming import usual_suffix

    if request.skip_existing and (request.overwrite or request.resume):
        raise UsageError(
            "--overwrite, --skip-existing and --resume exclude each other", "Choose one."
        )
    spec, rules = request.spec, _rules(request, task)
    return Wishes(
        output=request.output,
        suffix=usual_suffix(task, size.label) if request.suffix is None else request.suffix,
        size=size,
        scales=rules.scales(spec.reached(task)),
        rules=rules,
        grid=spec.scale_grid,
        options=request.save_options(),
        recursive=request.recursive,
        page=request.page,
        max_pixels=request.max_pixels,
        facts={"model": spec.name, "scale": size.label.removeprefix("x"), "task": task},
        shard=request.shard,
        own_outputs=request.resume or request.skip_existing,
    )


def _plan(request: RestoreRequest, task: Task, size: SizeRequest) -> Plan:
    from srcli.jobs.planning import check_existing, plan_jobs

    plan = plan_jobs(request.all_inputs, wishes_of(request, task, size))
    alone = plan[0].error if len(plan) == 1 else None
    if alone is not None and not request.for_programs:
        raise alone
    if not (request.overwrite or request.skip_existing or request.resume or request.check):
        check_existing(plan)
    return plan


def _rules(request: RestoreRequest, task: Task) -> Rules:
    """Return the rules for the networks that pictures go through.

    Raises:
        UsageError: The model does not do the task.
        WeightsError: Weights for photographs are wanted, and the model has none.
    """
    from srcli.jobs.steps import Rules, rules_for, steps_before
    from srcli.loading.model import no_photo_weights

    if request.model_file is not None:
        _check_foreign(request.model_file, request.spec, task)
        return Rules(task=task, before=steps_before(request.spec.name, request.before))
    own = request.weights is not None
    before = request.before
    rules = rules_for(request.spec, task, request.input, own_weights=own, before=before)
    if rules.input == "photo" and not rules.photo:
        raise no_photo_weights(request.spec)
    return rules


def _check_foreign(file: Path, spec: ModelSpec, task: Task) -> None:
    """Raise `UsageError` if another network enlarges for a task that does not, or the reverse."""
    if task in spec.tasks():
        return
    does = f"enlarges by {max(spec.scales)}" if task != "upscale" else "keeps the size of pictures"
    other = spec.tasks()[0]
    raise UsageError(f"{file}: {does}", f"Use `srcli {other} --model-file {file}`.")


class Runner:
    """Opens each network that a picture needs, once.

    Args:
        request: The user's options.
        task: What is to be done.
        pictures: Number of pictures that could be in the network at once.
    """

    def __init__(self, request: RestoreRequest, task: Task, pictures: int = MANY) -> None:
        self.request = request
        self.pictures = pictures
        self._weights_sha256: dict[str, str] = {}  # by scale
        self.facts: dict[str, object] = {
            "model": request.spec.name,
            "task": task,
            "backend": _backend(request, task).name,
            "precision": request.precision,
            "tta": request.tta,
            "version": __version__,
            "weights_sha256": self._weights_sha256,
        }
        self._blur = None
        if request.kernel is not None:
            from srcli.checkpoints.shipped import sha256_of
            from srcli.pipeline.kernels import read_kernel

            self._blur = read_kernel(request.kernel)
            self.facts["kernel_sha256"] = sha256_of(request.kernel)
        self._loaded: dict[Step, LoadedModel | ForeignModel] = {}
        self._open: dict[Step, Restorer] = {}
        self._stack = ExitStack()

    def load(self, step: Step) -> LoadedModel | ForeignModel:
        from srcli.loading.model import load

        if step in self._loaded:
            return self._loaded[step]
        request = self.request
        model: LoadedModel | ForeignModel
        if step.model is not None:
            model = load(step.model, step.scale, task=step.task, note=console.note)
        elif request.model_file is not None:
            model = foreign(request.model_file)
        else:
            model = own = load(
                request.model,
                step.scale,
                task=step.task,
                kind=step.kind,
                weights=request.weights,
                note=console.note,
                prune_below=request.prune_below,
            )
            for line in own.removed() if own.prune_below is not None else ():
                console.note(line)
        self._weights_sha256[step.label] = model.weights.sha256
        self._loaded[step] = model
        return model

    def restorer(self, step: Step) -> Restorer:
        from srcli.loading.restorer import open_restorer

        if step not in self._open:
            model = self.load(step)
            restorer = open_restorer(
                model,
                self.request.run_options(),
                scale=model.grid,
                pictures=self.pictures,
                alongside=next(iter(self._open.values()), None),
                blur=self._blur if step.model is None else None,
                note=console.note,
            )
            self._stack.enter_context(restorer)
            self.facts["backend"] = restorer.backend
            if self.request.backend == "auto":
                console.note(f"{model.label} with {restorer.backend}")
            self._open[step] = restorer
            console.detail(
                f"{model.label}: {restorer.concurrency} at a time, "
                f"{restorer.memory_of_all >> 20} MB, {restorer.session.facts}"
            )
        return self._open[step]

    @property
    def used(self) -> dict[str, object]:
        """Facts about the run, without those of networks that turned out not to be needed."""
        opened = {step.label for step in self._open}
        weights = {k: v for k, v in self._weights_sha256.items() if k in opened}
        return {**self.facts, "weights_sha256": weights}

    @property
    def concurrency(self) -> int:
        """Number of pictures that may be in the network at once."""
        return min((restorer.concurrency for restorer in self._open.values()), default=1)

    @property
    def memory(self) -> int | None:
        """Bytes that the run may take; None before a model is open."""
        return min((r.memory_of_all for r in self._open.values()), default=None)

    @property
    def kernel(self) -> BlurKernels | None:
        """The blur kernel that a blind network estimated in the picture that was restored last."""
        return next((r.kernel for r in self._open.values() if r.kernel is not None), None)

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, kind: type[BaseException] | None, *details: object) -> None:
        # After an interruption threads may still be computing, and the process ends soon.
        if kind is None or issubclass(kind, Exception):
            self._stack.close()


def _run(plan: Plan, request: RestoreRequest, runner: Runner, teller: Teller) -> list[Outcome]:
    # Before the first picture is read: a model without weights stops everything.
    for step in dict.fromkeys(step for job in plan for step in job.steps_if_jpeg):
        runner.load(step)  # opened when a picture turns out to need it
    for step in dict.fromkeys(step for job in plan for step in job.steps):
        runner.restorer(step)
    outcomes: list[Outcome] = []
    with runner, console.progress() as bar:

        def show(name: str, done: int, total: int) -> None:
            bar.show(f"{len(outcomes) + 1}/{len(plan)} {name}", done, total)

        if ahead := next((job for job in plan if job.error is None), None):
            show(ahead.name, 0, 1)  # a name from the first moment, not the first tile
        batch = batch_of(request, runner, teller, show)
        try:
            for outcome in batch.run(plan.jobs):
                outcomes.append(outcome)
                teller.finished(outcome)
        except (KeyboardInterrupt, SystemExit):
            if not any(job.content is not None or job.to_stdout for job in plan):
                tell_how_to_go_on(teller.finished_count)
            raise
    return outcomes


def batch_of(
    request: RestoreRequest, runner: Runner, teller: Teller, show: Callable[[str, int, int], None]
) -> Batch:
    """Return the batch that a request asks for, once its usual networks are open."""
    from srcli.jobs.batch import IN_FLIGHT, Batch
    from srcli.jobs.groups import IN_MEMORY

    held = (runner.memory or IN_MEMORY) // (4 * (runner.concurrency + IN_FLIGHT))
    return Batch(
        restorer=runner.restorer,
        progress=show,
        concurrency=runner.concurrency,
        size=request.batch,
        resume=request.resume,
        retry_failed=request.retry_failed,
        skip_existing=request.skip_existing,
        overwrite=request.overwrite,
        preserve=request.preserve,
        journal=request.journal,
        facts=runner.facts,
        max_pixels=request.max_pixels,
        in_memory=min(IN_MEMORY, held),
        note=console.note,
        event=teller.event,
    )
