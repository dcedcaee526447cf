"""Look closer at one thing on a CUDA device, for `on_cuda.py`: JSON on stdout.

    python benchmarks/on_cuda_probe.py ceilings|kernels|convolutions|variants|sweep|rtx

`lines` of the JSON are for people. What was found until a SIGTERM is printed all the same. Without
a CUDA device, or where SRCLI_ON_CUDA_TINY is set, sizes are small: to see that it works.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))  # left out where PYTHONSAFEPATH is set
from on_cuda_timing import CUDA, Step, timed

TINY = not CUDA or "SRCLI_ON_CUDA_TINY" in os.environ
DEVICE = "cuda" if CUDA else "cpu"
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
HALF = "fp16" if CUDA else "fp32"
SCALE = 4
SIDES = (9, 16) if TINY else (180, 320)
"""Of the input, whose output is 1280 x 720."""

Found = dict[str, Any]


def recorded(step: Step) -> Step:
    """Return a step that replays a recording of another as one CUDA graph."""
    if not CUDA:
        return step
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        step()
    return graph.replay


def ceilings(found: Found) -> None:
    """What the device does at best, and what launches cost."""
    size = 1 << (24 if TINY else 30)
    source = torch.empty(size, dtype=torch.uint8, device=DEVICE).random_()
    target = torch.empty_like(source)
    found["copy_terabytes_per_s"] = 2 * size / timed(lambda: target.copy_(source))["once"] / 1e9
    for name in ("bf16", "fp16", "tf32", "fp32") if CUDA else ("fp32",):
        found[f"{name}_teraflops_per_s"] = matrix_rate(name, 256 if TINY else 8192)
    small = torch.zeros(8, device=DEVICE)
    for count in (1, 50, 200):
        step = recorded(lambda count=count: [small.add_(1) for _ in range(count)])
        found[f"graph_of_{count}_tiny_kernels_us"] = 1e3 * timed(step)["once"]
    if CUDA:
        properties = torch.cuda.get_device_properties(0)
        found["device"] = f"{properties.name}, {properties.major}.{properties.minor}"
        found["versions"] = f"torch {torch.__version__}, cudnn {torch.backends.cudnn.version()}"
    found["lines"] = [f"{name}: {shown(value)}" for name, value in found.items()]


def matrix_rate(name: str, side: int) -> float:
    """Return 10^12 operations a second, two for each multiply-add, of a product of matrices."""
    torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    kind = TYPES.get(name, torch.float32)
    left, right = (torch.randn(side, side, device=DEVICE).to(kind) for _ in range(2))
    rate = 2 * side**3 / timed(lambda: left @ right)["once"] / 1e9
    torch.backends.cuda.matmul.allow_tf32 = False
    return rate


# Layer: inputs, outputs, kernel, and by what its input is smaller than the output of the network.
LAYERS = {
    "mix": (16, 16, 5, 1), "merge": (16, 16, 3, 1), "taps": (16, 13, 3, 1),
    "taps padded": (16, 16, 3, 1), "up": (16, 256, 3, 4), "body": (16, 16, 3, 4),
    "reduction": (64, 16, 3, 4), "head": (3, 16, 3, 4), "head padded": (8, 16, 3, 4),
    "mix A": (32, 32, 5, 1), "taps A padded": (32, 16, 3, 1),
}  # fmt: skip


def convolutions(found: Found) -> None:
    """cuDNN on LAPAR's shapes: without a bias, with one, and with bias and rectifier in one."""
    torch.backends.cudnn.benchmark = True
    found["columns"] = ["layer", "type", "layout", "ms", "with bias", "bias and rectifier"]
    found["table"], found["lines"] = [], []
    kinds = (("fp16", "NHWC"), ("fp32", "NHWC"), ("tf32", "NHWC"), ("fp16", "NCHW"))
    for kind, layout in kinds if CUDA else (("fp32", "NHWC"),):
        torch.backends.cudnn.allow_tf32 = kind == "tf32"
        for layer in LAYERS:
            row = [layer, kind, layout, *convolution_times(layer, kind, layout)]
            found["table"].append(row)
            if (kind, layout) == (HALF, "NHWC"):
                found["lines"].append(" ".join(map(shown, row)))


def convolution_times(layer: str, kind: str, layout: str) -> list[float | str]:
    """Return milliseconds of a layer, in CUDA graphs, in three forms; a text says what failed."""
    inputs, outputs, kernel, smaller = LAYERS[layer]
    memory = torch.channels_last if layout == "NHWC" else torch.contiguous_format
    height, width = (SCALE * side // smaller for side in SIDES)

    def tensor(*shape: int) -> torch.Tensor:
        made = torch.randn(*shape, device=DEVICE).to(TYPES.get(kind, torch.float32))
        return made.to(memory_format=memory) if len(shape) == 4 else made

    x, weight = tensor(1, inputs, height, width), tensor(outputs, inputs, kernel, kernel)
    bias, pad = tensor(outputs), kernel // 2
    ways: list[Step] = [
        lambda: F.conv2d(x, weight, None, padding=pad),
        lambda: F.conv2d(x, weight, bias, padding=pad),
        lambda: torch.cudnn_convolution_relu(x, weight, bias, (1, 1), (pad, pad), (1, 1), 1),
    ]
    return [attempt(lambda way=way: timed(recorded(way), 0.03)["once"]) for way in ways]


def attempt(measure: Callable[[], float]) -> float | str:
    """Return what is measured, or why it cannot be."""
    try:
        with torch.inference_mode():
            return measure()
    except Exception as error:  # whatever a library has against it
        return f"{type(error).__name__}: {str(error)[:30]}"


def session(precision: str, *, published: bool = False, graph: bool = True, name: str = "lapar-c"):  # noqa: ANN201  srcli is imported here
    """Return a session of srcli's own, as `--backend torch` opens it."""
    from srcli.backends.base import SessionOptions
    from srcli.backends.eager import TorchSession
    from srcli.loading.model import load

    model = load(name, SCALE)
    options = SessionOptions(precision=precision, cuda_graph=graph)
    return TorchSession(model.published_network() if published else model.network(), options)


def staged(opened: Any, count: int = 1, sides: tuple[int, int] = SIDES) -> Step:
    """Return a run of a session on pictures that lie on the device."""
    import numpy as np

    batch = np.random.default_rng(0).random((count, 3, *sides), np.float32)
    step: Step = opened.stage(batch)
    return step


def kernels(found: Found) -> None:
    """Every kernel of a run: how often, and microseconds of the device."""
    found["columns"] = ["kernel", "times in a run", "us in a run"]
    found["lines"] = []
    for precision in dict.fromkeys((HALF, "fp32")):
        for published in (False, True):
            label = f"{'published' if published else 'fused'} {precision}"
            opened = session(precision, published=published, graph=False)
            rows = profiled(staged(opened))
            found[label] = {"facts": opened.facts, "table": rows}
            total = sum(row[2] for row in rows)
            found["lines"].append(f"{label}: {total:.0f} us in {sum(r[1] for r in rows):.0f}")
            if not published:
                found["lines"] += [
                    f"  {n[:70]}: {c:.0f} times, {us:.1f} us" for n, c, us in rows[:8]
                ]
            opened.close()


Row = tuple[str, float, float]


def profiled(step: Step, runs: int = 5) -> list[Row]:
    """Return name, count and microseconds of each kernel of a run, the longest first."""
    from torch.profiler import ProfilerActivity, profile

    for _ in range(4):
        step()
    kind = ProfilerActivity.CUDA if CUDA else ProfilerActivity.CPU
    try:
        with profile(activities=[kind]) as seen:
            several(step, runs)
        rows = rows_of(seen, "device" if CUDA else "cpu", runs)
    except RuntimeError:  # the driver's profiler cannot be had on every machine
        rows = []
    return rows or operations(step, runs)


def operations(step: Step, runs: int) -> list[Row]:
    """Return the same by operations of PyTorch, which are timed by events."""
    with torch.autograd.profiler.profile(
        use_device="cuda" if CUDA else None, use_kineto=False
    ) as seen:
        several(step, runs)
    return rows_of(seen, "device" if CUDA else "cpu", runs)


def several(step: Step, runs: int) -> None:
    """Run a few times, to the end."""
    for _ in range(runs):
        step()
    if CUDA:
        torch.cuda.synchronize()


def rows_of(seen: Any, where: str, runs: int) -> list[Row]:
    """Return what a profiler has seen, without what took no time."""
    name = f"self_{where}_time_total"
    rows = [(e.key[:120], e.count / runs, getattr(e, name) / runs) for e in seen.key_averages()]
    return sorted((row for row in rows if row[2]), key=lambda row: -row[2])[:60]


def variants(found: Found) -> None:
    """The fast form with one thing changed at a time."""
    found["lines"] = []
    for name in ("lapar-c", "lapar-a"):
        for precision in dict.fromkeys((HALF, "bf16" if CUDA else "fp32", "fp32")):
            for label, step in ways(name, precision):
                taken = attempt_both(step)
                found[f"{name} {precision} {label}"] = taken
                found["lines"].append(f"{name} {precision} {label}: {shown(taken)}")


def ways(name: str, precision: str) -> Iterator[tuple[str, Callable[[], Step]]]:
    """Return how a model may be run, each as a function that prepares it."""
    yield "graph", lambda: staged(session(precision, name=name))
    yield "kernel by kernel", lambda: staged(session(precision, name=name, graph=False))
    if CUDA and precision == "fp32":
        yield "TF32, graph", lambda: with_tf32(name)
    if CUDA and name == "lapar-c" and precision == "fp16":
        yield "torch.compile, graph", lambda: compiled(name, precision)


def attempt_both(prepare: Callable[[], Step]) -> dict[str, float] | str:
    """Return the times of a way, or why there are none."""
    try:
        return timed(prepare())
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:80]}"


def with_tf32(name: str) -> Step:
    """Return a run in which cuDNN may round products of float32 to ten bits."""
    opened = session("fp32", name=name)
    torch.backends.cudnn.allow_tf32 = True  # the session has switched it off
    step = staged(opened)
    torch.backends.cudnn.allow_tf32 = False
    return step


def compiled(name: str, precision: str) -> Step:
    """Return the fused network as PyTorch's own compiler makes it."""
    from srcli.loading.model import load

    network = load(name, SCALE).network().eval().to(DEVICE, TYPES[precision])
    network = network.to(memory_format=torch.channels_last)
    x = torch.rand(1, 3, *SIDES, device=DEVICE).to(TYPES[precision])
    x = x.to(memory_format=torch.channels_last)
    quick = torch.compile(network, mode="max-autotune-no-cudagraphs", dynamic=False)
    with torch.inference_mode():
        return recorded(lambda: quick(x))


def sweep(found: Found) -> None:
    """Sizes and batches of LAPAR-C."""
    found["columns"] = ["width", "height", "batch", "ms", "burst ms", "MP/s"]
    found["table"], found["lines"] = [], []
    opened = session(HALF)
    sizes = ((9, 16),) if TINY else ((90, 160), (135, 240), (180, 320), (270, 480), (540, 960))
    for height, width in sizes:
        for count in (1, 2, 4, 8, 16):
            try:
                taken = timed(staged(opened, count, (height, width)), 0.1)
            except Exception as error:
                found["lines"].append(f"{SCALE * width}x{SCALE * height} x {count}: {error}"[:120])
                continue
            pixels = count * SCALE**2 * width * height
            size = SCALE * width, SCALE * height
            row = [*size, count, taken["once"], taken["burst"], pixels / taken["once"] / 1e3]
            found["table"].append(row)
            if count in (1, 4, 16):
                found["lines"].append(" ".join(map(shown, row)))
        opened.free()


def rtx(found: Found) -> None:
    """Which plans of TensorRT-RTX load and run here, by the GPU that they were built for."""
    from on_cuda_rtx import plans

    found["lines"] = []
    for label, told in plans(TINY):
        found[label] = told
        found["lines"].append(f"{label}: {shown(told)}")


def shown(value: object) -> str:
    """Return a value for people."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {shown(part)}" for name, part in value.items())
    return str(value)


PROBES: dict[str, Callable[[Found], None]] = {
    "ceilings": ceilings, "convolutions": convolutions, "kernels": kernels,
    "variants": variants, "sweep": sweep, "rtx": rtx,
}  # fmt: skip


def main() -> None:
    """Run one of them and print what it found, also where it is told to end."""
    warnings.simplefilter("ignore")
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    answer = os.dup(1)
    os.dup2(2, 1)  # libraries write to stdout as they like
    found: Found = {}
    try:
        PROBES[sys.argv[1]](found)
    finally:
        with os.fdopen(answer, "w", encoding="utf-8") as out:
            json.dump(found, out, indent=1, default=str)


if __name__ == "__main__":
    main()
