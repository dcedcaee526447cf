"""`srcli ray`: a batch on a Ray cluster.

Names travel, never pictures: actors read and write files or objects that all machines see. Outputs
and their records are the truth; what Ray loses is found by counting.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from srcli.commands.deblock import deblock
from srcli.commands.denoise import denoise
from srcli.commands.sections import SectionedCommand
from srcli.commands.upscale import upscale
from srcli.errors import FAILED, BackendError, InputError, OutputExistsError, UsageError, first_line

if TYPE_CHECKING:
    from srcli.commands.ray_worker import Order, Row
    from srcli.commands.request import RestoreRequest
    from srcli.jobs.listed import ListedPlan
    from srcli.jobs.sizes import SizeRequest
    from srcli.models.spec import Task

BLOCK = 16  # names that travel together: an actor that dies loses at most these
MOST_BLOCKS = 4000
WHOLE = 200  # letters of a command's first sentence
AT_ONCE = 64  # pictures that are done again
SHARE = 0.9  # of a core for each thread, so that some is left for what moves names


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Options for running on Ray."""

    address: str | None
    actors: int | None
    tries: int


_OPTIONS = (
    click.Option(
        ["--address"],
        metavar="ADDRESS",
        help="Connect to the cluster at this address, or `auto`.  [default: start one on this "
        "machine]",
    ),
    click.Option(
        ["--actors"],
        type=click.IntRange(min=1),
        metavar="N",
        help="Restore in so many processes.  [default: one for each --threads cores]",
    ),
    click.Option(
        ["--tries"],
        type=click.IntRange(min=1),
        default=3,
        show_default=True,
        metavar="N",
        help="Try a picture that ends its process so many times.",
    ),
)


@click.group("ray")
def ray_group() -> None:
    """Run a batch on a Ray cluster, or on this machine as if it were one.

    All machines must see the inputs and the outputs under the same names: a shared file system, or
    an object store. A Ray batch may be gone on with by a plain one and the other way round.

    \b
    Examples:
        srcli ray upscale holiday/ -r -s 2 -o out/ --threads 1
        srcli ray upscale s3://photos/in/ -r -s 2 -o s3://photos/out/ --address auto --actors 32
        srcli batch status out/
    """


def _on_ray(command: click.Command) -> click.Command:
    """Return a restoring command that runs on Ray, with the options for that."""
    from srcli.commands.restoring import ON_RAY

    def callback(address: str | None, actors: int | None, tries: int, **given: Any) -> Any:
        cluster = Cluster(address=address, actors=actors, tries=tries)
        click.get_current_context().meta[ON_RAY] = cluster
        assert command.callback is not None, "the command does something"
        return command.callback(**given)

    options = [copy(option) for option in _OPTIONS]
    for option in options:
        option.srcli_section = "Cluster"  # type: ignore[attr-defined]  # as `section` notes it
    return SectionedCommand(
        command.name,
        callback=callback,
        params=[*command.params, *options],
        short_help=command.get_short_help_str(WHOLE),
        help=f"{command.get_short_help_str(WHOLE)}\n\nOptions are those of `srcli {command.name}` "
        "and of the cluster.",
    )


for _command in (upscale, denoise, deblock):
    ray_group.add_command(_on_ray(_command))


def restore_on_ray(request: RestoreRequest, task: Task, size: SizeRequest, cluster: Cluster) -> int:
    """Do what a restoring command asks for on a cluster; returns the exit code.

    Raises:
        UsageError: Options do not go with Ray.
        MissingPartError: Ray is not installed.
    """
    from srcli.commands.listing import names_of, open_usual, show_names
    from srcli.commands.ray_worker import Order
    from srcli.commands.restoring import Runner, wishes_of
    from srcli.jobs.listed import plan_list

    _check(request)
    kept = request.overwrite or request.skip_existing or request.resume
    request = _with_full_paths(request)
    wishes = wishes_of(request, task, size)
    with names_of(request) as names:
        base = _full_base(request)
        plan = plan_list(names, wishes, relative_to=base, refuse=not (kept or request.dry_run))
        if request.dry_run:
            return show_names(plan, request)
        with Runner(request, task) as runner:
            open_usual(plan, runner)  # a model without weights stops everything, here
        if not kept:
            _check_empty(plan)
        order = Order(request=request, task=task, size=size, base=base)
        return _run(plan, order, cluster)


def _full_base(request: RestoreRequest) -> str | None:
    """Return the folder below which the names of outputs begin, in full."""
    from srcli.commands.listing import base_of
    from srcli.system import stores

    base = base_of(request)
    if base is None and request.files_from is None:
        return None
    return base if base is not None and stores.is_url(base) else os.path.abspath(base or "")


def _check(request: RestoreRequest) -> None:
    if request.retry_failed:
        raise UsageError(
            "--retry-failed is not for Ray",
            "Leave out `ray`; or give --resume, which tries again what failed too.",
        )
    for option, given in (("--check", request.check), ("--save-kernel", request.save_kernel)):
        if given:
            raise UsageError(f"{option} is not for Ray", f"Leave out {option}.")


def _with_full_paths(request: RestoreRequest) -> RestoreRequest:
    """Return the request with names that mean the same in the folder of an actor."""
    from srcli.system import stores

    output = request.output
    if output is not None and not stores.is_url(output):
        slash = "/" if output.endswith("/") or os.path.isdir(output) else ""
        output = os.path.abspath(output) + slash
    weights = request.weights and request.weights.absolute()
    model_file = request.model_file and request.model_file.absolute()
    return replace(
        request,
        output=output,
        weights=weights,
        model_file=model_file,
        threads=request.threads or 1,
    )


def _check_empty(plan: ListedPlan) -> None:
    """Raise `OutputExistsError` if there is something in a store's folder of outputs."""
    from srcli.jobs.journal import NAME
    from srcli.system import stores

    if plan.places.url is None:
        return
    with suppress(InputError):  # there is no such folder yet
        for name in stores.find(plan.places.url, recursive=True):
            if f"/{NAME}/" not in name:
                raise OutputExistsError(
                    f"{name}: exists already",
                    "Go on with --resume, replace it with --overwrite, or choose another place.",
                )


def _run(plan: ListedPlan, order: Order, cluster: Cluster) -> int:
    from srcli import console

    report = _Report(order.request)
    with console.progress() as bar, _connected(cluster):
        bar.show("starting", 0, len(plan))
        for row in _rows(plan, order, cluster):
            report.tell(row)
            bar.show(row.name, len(report.seen), len(plan))
        lost = [name for name in _full_names(plan) if name not in report.seen]
        for row in _alone(lost, order, cluster.tries):
            report.tell(row)
            bar.show(row.name, len(report.seen), len(plan))
    _record(report.crashed, order)
    return report.summary(len(plan))


class _Report:
    """Reports the result of each picture, and counts."""

    def __init__(self, request: RestoreRequest) -> None:
        self._request = request
        self._counts: Counter[str] = Counter()
        self._files: list[dict[str, object]] = []
        self.seen: set[str] = set()
        self.crashed: dict[str, str] = {}

    def tell(self, row: Row) -> None:
        from srcli import console

        if row.name in self.seen:
            return  # of an actor that died after it had told
        self.seen.add(row.name)
        if row.status == "skipped" and not (self._request.resume or self._request.skip_existing):
            row = replace(row, status="done")  # by an actor that died before it told
        if row.status == "crashed":
            self.crashed[row.name] = row.error
        self._counts[row.status] += 1
        if row.error:
            console.error(row.error)
        if self._request.events is not None:
            console.print_event({"event": row.status, **asdict(row)})
        elif self._request.as_json:
            self._files.append(asdict(row))
        elif not row.error:
            console.report(f"{row.name}  {row.status}")

    def summary(self, total: int) -> int:
        """Tell how many there were; return the exit code."""
        from srcli import console

        counts = {kind: self._counts[kind] for kind in ("done", "skipped", "failed", "crashed")}
        if self._request.as_json:
            console.print_json({**counts, "total": total, "files": self._files})
        if self._request.events is not None:
            console.print_event({"event": "summary", **counts, "total": total})
        console.note(", ".join(f"{count} {kind}" for kind, count in counts.items() if count))
        if len(self.seen) != total:
            console.error(
                f"{total - len(self.seen)} of {total} pictures have no result. "
                "Repeat the command with --resume."
            )
            return FAILED
        return FAILED if counts["failed"] or counts["crashed"] else 0


@contextmanager
def _connected(cluster: Cluster) -> Iterator[None]:
    import ray

    from srcli.system.machine import usable_cores

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    own = cluster.address is None and "RAY_ADDRESS" not in os.environ
    # It tells of each actor that dies, at length; what became of a picture is told by its row.
    logging.disable(logging.CRITICAL)
    # Nothing else keeps it from printing to standard output, where our results go.
    ray._private.worker._worker_logs_enabled = False
    warnings.simplefilter("ignore")
    try:
        ray.init(
            address=cluster.address,
            num_cpus=usable_cores() if own else None,
            include_dashboard=False if own else None,
            log_to_driver=False,
        )
    except (ConnectionError, ValueError) as error:
        raise BackendError(
            f"the Ray cluster {cluster.address or ''} cannot be reached ({first_line(error)})",
            "Start one with `ray start --head`, or leave out --address.",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
        logging.disable(logging.NOTSET)


def _rows(plan: ListedPlan, order: Order, cluster: Cluster) -> Iterator[Row]:
    """Yield a row for each picture, but for those whose actor died again and again."""
    import ray

    from srcli.commands.ray_worker import NAME, Row, Worker

    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1  # what is missing is counted
    context.enable_progress_bars = False
    context.execution_options.verbose_progress = False
    threads = order.request.threads or 1
    resources: Mapping[str, float] = ray.cluster_resources()
    cores = int(resources.get("CPU", 1))
    actors = cluster.actors or max(1, cores // threads)
    names = [{NAME: name} for name in _full_names(plan)]
    size = max(1, min(BLOCK, len(names) // (2 * actors)), len(names) // MOST_BLOCKS)
    blocks = -(-len(names) // size)
    rows = ray.data.from_items(names, override_num_blocks=max(1, blocks)).map_batches(
        Worker,
        fn_constructor_args=(order,),
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=SHARE if threads == 1 else threads,
        max_restarts=-1,
        max_task_retries=cluster.tries - 1,
    )
    for row in rows.iter_rows():
        yield Row(**row)


def _alone(names: Sequence[str], order: Order, tries: int) -> Iterator[Row]:
    """Do what was lost again, each picture in a process of its own."""
    import ray

    from srcli.commands.ray_worker import Row, alone

    task = ray.remote(num_cpus=SHARE, max_calls=1, max_retries=tries - 1)(alone)
    waiting = iter(names)
    running = {task.remote(order, name): name for name in islice(waiting, AT_ONCE)}
    while running:
        (ref,), _ = ray.wait([*running], num_returns=1)
        name = running.pop(ref)
        for another in islice(waiting, 1):
            running[task.remote(order, another)] = another
        try:
            yield ray.get(ref)
        except ray.exceptions.RayError as error:
            reason = f"{name}: ended its process in each of {tries} tries ({first_line(error)})"
            yield Row(name=name, status="crashed", error=reason, seconds=0.0)


def _full_names(plan: ListedPlan) -> Iterator[str]:
    """Yield the names of inputs, which mean the same in every folder."""
    for job in plan.jobs():
        yield job.source_url or os.path.abspath(job.source)


def _record(crashed: Mapping[str, str], order: Order) -> None:
    """Put pictures that end their process on record."""
    from srcli.commands.restoring import wishes_of

    if not crashed:
        return
    places = order.places()
    wishes = wishes_of(order.request, order.task, order.size)
    with order.journal() as journal:
        for name, reason in crashed.items():
            journal.fail(places.job(name, wishes).target, "", "", f"crashed: {reason}")
