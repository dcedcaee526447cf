"""The process that measures the rows of one backend, and the one that computes references."""

from __future__ import annotations

import gc
import os
import signal
import statistics
import sys
import tempfile
import time
import warnings
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from srcli.backends import get_backend
from srcli.backends.base import Images, Model, Session, SessionOptions
from srcli.bench.events import between_events
from srcli.bench.memory import forget_peak, peak_bytes
from srcli.bench.messages import Habits, Opened, Taken, Truth
from srcli.bench.published import PublishedForm
from srcli.bench.rows import Row
from srcli.bench.timing import Step, clock, for_a_while
from srcli.checkpoints.shipped import weights_from_file
from srcli.errors import BackendError, SrcliError, WeightsError, first_line
from srcli.loading.model import LoadedModel, load
from srcli.models.registry import get_model
from srcli.models.spec import Geometry, Task
from srcli.pipeline.resample import resize
from srcli.system.allocator import keep_freed_memory, trim

if TYPE_CHECKING:
    import torch

    from srcli.bench.counting import Work

# Correctness is judged on an input of at most so many output pixels: the published network takes
# seconds for more, and gigabytes.
JUDGED_PIXELS = 640 * 360
WARM_UP = 0.3  # seconds, at least one run
FORMS = 3  # runs that are checked on a GPU: the first may take another form than later ones
FLUSH = 256 << 20  # bytes; more than any L2 cache
BURST = 50.0  # milliseconds of runs in a row, in each turn
MAX_IN_BURST = 100
HOST_RUNS = 3  # in each turn, timed by the host's clock


def serve(connection: Connection, habits: Habits) -> None:
    """Answer requests until the connection ends: names of methods of `Worker` with arguments."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the parent, which ends us
    with suppress(OSError):  # a library that prints must not print into the parent's result
        os.dup2(sys.stderr.fileno(), 1)
    with suppress(OSError):  # if memory runs out after all, let it be us and nobody else
        Path("/proc/self/oom_score_adj").write_text("1000")
    warnings.simplefilter("ignore")
    worker = Worker(habits)
    while True:
        try:
            method, arguments = connection.recv()
        except EOFError:
            worker.end()
            return
        try:
            answer = (True, getattr(worker, method)(*arguments))
        except Exception as error:
            text = first_line(error)
            known = isinstance(error, SrcliError)
            answer = (False, text if known else f"{type(error).__name__}: {text}")
        connection.send(answer)


class Worker:
    """Holds open sessions, and measures them when asked."""

    def __init__(self, habits: Habits) -> None:
        self._habits = habits
        kept = habits.keep_memory and keep_freed_memory()
        self._allocator = "keep" if kept else "default"
        self._open: dict[Row, _Open] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="srcli-bench-")

    def prepare(self, row: Row, folder: Path) -> tuple[Truth, dict[str, Work]]:
        """Compute the reference result for a row, and count the work of both graphs at its size."""
        import torch

        from srcli.bench.counting import count

        model, drawn = _model_or_random(row.model, row.scale, folder)
        published = model.published_network()
        height, width = _judged_size(row)
        name = f"{row.model}-x{row.scale}-{width}x{height}"
        truth = Truth(
            weights=drawn,
            picture=folder / f"{name}-in.npy",
            restored=folder / f"{name}-out.npy",
        )
        if not truth.restored.exists():  # large sizes and batches are all judged on one small input
            picture = smooth_noise(1, height, width)
            with torch.inference_mode():
                restored = published(torch.from_numpy(picture)).numpy()
            np.save(truth.picture, picture)
            np.save(truth.restored, restored)
        shape = (row.batch, 3, row.height, row.width)
        work = {}
        for graph, network in (("published", published), ("fused", model.network())):
            try:
                found = count(network, shape)
            except Exception:  # whatever an operation has against tensors without values
                continue
            work[graph] = found
        return truth, work

    def open(self, row: Row, truth: Truth, threads: int | None) -> Opened:
        """Open a row's session, compare its result with the reference, and warm it up."""
        model = _model(row, truth)
        options = SessionOptions(
            shape=(row.batch, 3, row.height, row.width),
            threads=threads,
            precision=row.precision,
            cuda_graph=row.cuda_graph,
        )
        subject: Model = (
            model if row.graph == "fused" else PublishedForm(model, Path(self._folder.name))
        )
        _reset_peak()
        session = get_backend(row.backend).open(subject, options)
        opened = _Open(session, row, self._step(session, row, model.geometry))
        self._open[row] = opened
        error = _error(session, truth, FORMS if opened.by_events else 1)
        for_a_while(opened.sample, WARM_UP)
        return Opened(
            error=error,
            tolerance=model.spec.tolerance_for(row.precision),
            facts={
                **session.facts,
                "clock": "events" if opened.by_events else "host",
                "allocator": self._allocator,
                **_peak(opened.by_events),
                "weights": "random" if truth.weights else model.weights.sha256,
            },
        )

    def _step(self, session: Session, row: Row, geometry: Geometry) -> Step:
        """Return a function that runs the row once; on CUDA it may return before it is done."""
        batch = smooth_noise(row.batch, row.height, row.width)
        if row.scope == "network" and (staged := session.stage(batch)) is not None:
            return staged
        if row.scope != "file":
            return lambda: session(batch)
        if self._habits.files is None:
            raise BackendError(
                "this worker was started without a function that reads and writes pictures",
                "Choose another --scope than file.",
            )
        pictures = np.ascontiguousarray(np.round(255 * batch.transpose(0, 2, 3, 1)), np.uint8)
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        return self._habits.files(session, geometry, row.scale, list(pictures), folder)

    def sample(self, row: Row, seconds: float) -> Taken:
        """Run a row repeatedly for some time."""
        opened = self._open[row]
        faults, others, started = page_faults(), cpu_of_others(), time.perf_counter()
        samples = for_a_while(opened.sample, seconds)
        elapsed = time.perf_counter() - started
        faults_after, others_after = page_faults(), cpu_of_others()
        return Taken(
            samples=samples,
            host=opened.host_times(),
            burst=opened.burst(statistics.median(samples)),
            faults=None
            if faults is None or faults_after is None
            else (faults_after - faults) / len(samples),
            # A GPU does not mind what the CPU is busy with.
            others=None
            if opened.by_events or others is None or others_after is None
            else max(0.0, others_after - others) / elapsed,
        )

    def clear(self) -> None:
        """Close all sessions and free their memory: other rows follow."""
        for opened in self._open.values():
            opened.session.close()
        self._open.clear()
        gc.collect()
        if _cuda_is_used():
            import torch

            torch.cuda.empty_cache()
        trim()

    def end(self) -> None:
        """Close all sessions and remove all files."""
        self.clear()
        self._folder.cleanup()

    def ceilings(self) -> dict[str, float]:
        """Measure the device's ceilings: bytes copied per second, multiply-adds per second."""
        from srcli.bench.ceilings import ceilings

        return ceilings()


class _Open:
    """A session, staged for its row, with the clock that times its runs."""

    def __init__(self, session: Session, row: Row, step: Step) -> None:
        self.session, self._step = session, step
        device = str(session.facts.get("device", "cpu"))
        # Sessions of a GPU all stage.
        self.on_cuda = device != "cpu" and row.scope == "network"
        # Events of a stream tell nothing of what was launched on another and waited for.
        self.by_events = self.on_cuda and not session.waits
        self._flush: torch.Tensor | None = None
        if self.by_events and row.cold:
            import torch

            self._flush = torch.empty(FLUSH, dtype=torch.uint8, device="cuda")

    def sample(self) -> float:
        return self._between_events(1) if self.by_events else clock(self._step)

    def burst(self, single: float) -> float | None:
        """Return milliseconds of a run among many, each of which takes about `single` alone."""
        if not self.by_events or self._flush is not None:
            return None
        return self._between_events(max(3, min(MAX_IN_BURST, int(BURST / max(single, 1e-3)))))

    def host_times(self) -> list[float]:
        """Return milliseconds from the launch of a run to its end, on CUDA."""
        if not self.by_events:
            return []
        return [clock(self._to_the_end) for _ in range(HOST_RUNS)]

    def _to_the_end(self) -> None:
        self._step()
        self._stream.synchronize()

    @property
    def _stream(self) -> torch.cuda.Stream:
        import torch

        return self.session.cuda_stream or torch.cuda.current_stream()

    def _between_events(self, runs: int) -> float:
        """Return milliseconds of a run, of so many in a row."""
        import torch

        with torch.cuda.stream(self._stream):
            if self._flush is not None:
                self._flush.zero_()
            torch.cuda.synchronize()
            return between_events(self._step, runs)


def page_faults() -> int | None:
    """Return the pages that the system has provided to this process, without reading a disk."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def cpu_of_others() -> float | None:
    """Return the CPU seconds that all other processes have had; None if this is not known."""
    try:
        words = Path("/proc/stat").read_text().split(maxsplit=9)
        tick = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
    user, nice, system, _, _, irq, soft_irq, steal = map(int, words[1:9])
    own = os.times()
    return (user + nice + system + irq + soft_irq + steal) / tick - own.user - own.system


def smooth_noise(batch: int, height: int, width: int) -> Images:
    """Return pictures n x 3 x h x w in [0, 1], detailed at all sizes, the same on every machine."""
    rng = np.random.default_rng(0)
    picture = np.full((height, width, 3), 0.5)
    cell, share = 64, 0.25
    while cell >= 1:
        rows, columns = -(-height // cell) + 1, -(-width // cell) + 1
        grid = rng.random((rows, columns, 3)) - 0.5
        grown = resize(grid, rows * cell, columns * cell) if cell > 1 else grid
        picture += share * grown[:height, :width]
        cell, share = cell // 4, share / 1.5
    planes = np.clip(picture, 0, 1).astype(np.float32).transpose(2, 0, 1)
    return np.ascontiguousarray(np.broadcast_to(planes, (batch, 3, height, width)))


def _judged_size(row: Row) -> tuple[int, int]:
    """Return height and width of the input that correctness is judged on."""
    shrink = (JUDGED_PIXELS / (row.height * row.width * row.scale**2)) ** 0.5
    if shrink >= 1:
        return row.height, row.width
    return max(1, round(row.height * shrink)), max(1, round(row.width * shrink))


def _error(session: Session, truth: Truth, runs: int) -> float:
    """Return the largest error of several runs; no number if one is none."""
    picture, restored = np.load(truth.picture), np.load(truth.restored)
    return float(np.max([_difference(session(picture), restored) for _ in range(runs)]))


def _difference(restored: Images, truth: Images) -> float:
    return float(np.abs(restored - truth).max() / max(1.0, float(np.abs(truth).max())))


def _model(row: Row, truth: Truth) -> LoadedModel:
    task: Task = "upscale" if row.scale > 1 else "denoise"
    return load(row.model, row.scale, task=task, weights=truth.weights)


def _model_or_random(name: str, scale: int, folder: Path) -> tuple[LoadedModel, Path | None]:
    """Return a model with the weights that ship; if none do, with random weights."""
    task: Task = "upscale" if scale > 1 else "denoise"
    try:
        return load(name, scale, task=task), None
    except WeightsError:
        pass
    import torch
    from safetensors.torch import save_file

    spec = get_model(name)
    torch.manual_seed(0)
    file = folder / f"{spec.name}-x{scale}.safetensors"
    state = spec.build(scale).state_dict()
    save_file({key: value.clone().contiguous() for key, value in state.items()}, file)
    weights = weights_from_file(spec, scale, task, file)
    return LoadedModel(spec=spec, scale=scale, weights=weights), file


def _reset_peak() -> None:
    trim()  # what earlier rows left over is not this row's
    forget_peak()
    if _cuda_is_used():
        import torch

        torch.cuda.reset_peak_memory_stats()


def _cuda_is_used() -> bool:
    """Tell whether this process may have used a GPU by PyTorch, without importing that."""
    if "torch" not in sys.modules:
        return False
    import torch

    return torch.cuda.is_available()


def _peak(on_cuda: bool) -> dict[str, int]:
    """Return the peak of memory since `_reset_peak`, in MiB."""
    found: dict[str, int] = {}
    if (resident := peak_bytes()) is not None:
        found["process_peak_mib"] = resident >> 20
    if on_cuda:
        import torch

        found["device_peak_mib"] = torch.cuda.max_memory_allocated() >> 20
    return found
