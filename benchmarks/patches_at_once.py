"""How much faster HPINet is with all patches at once than with one after the other.

All forms run in turn (A B C A B C) on one input of 320x180 on the CPU, with the numbers of threads
given; the ratio of the fastest runs counts. The loop runs in PyTorch, all patches at once in each
runtime. Weights are random: the arithmetic is the same.

    python benchmarks/patches_at_once.py hpinet-s 4 --threads 1 --threads 2
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import click
import torch

from srcli.backends.base import Session, SessionOptions
from srcli.backends.eager import TorchSession
from srcli.backends.openvino.session import OpenVinoBackend, OpenVinoSession
from srcli.backends.ort import OnnxRuntimeSession
from srcli.export.to_onnx import to_onnx
from srcli.loading.model import load
from srcli.models.registry import get_model

HEIGHT, WIDTH = 180, 320


def seconds(run: Callable[[], object]) -> float:
    """How long one run takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def runs_of(model: str, scale: int, threads: int, folder: Path) -> dict[str, Callable[[], object]]:
    """The loop, and all patches at once in each runtime that is installed."""
    torch.manual_seed(0)
    published = get_model(model).build(scale).eval().requires_grad_(False)
    file = folder / "random.pth"
    torch.save(published.state_dict(), file)
    loaded = load(model, scale, weights=file)
    x = torch.rand(1, 3, HEIGHT, WIDTH)
    picture = x.numpy()
    graph = folder / "graph.onnx"
    graph.write_bytes(to_onnx(loaded).SerializeToString())
    options = SessionOptions(threads=threads)
    sessions: dict[str, Session] = {
        "PyTorch": TorchSession(loaded.network(), options),
        "ONNX Runtime": OnnxRuntimeSession(graph, options),
    }
    if OpenVinoBackend().unavailable() is None:
        sessions["OpenVINO"] = OpenVinoSession(graph, options)
    runs: dict[str, Callable[[], object]] = {"loop": lambda: published(x)}
    for name, session in sessions.items():
        session(picture)
        runs[f"at once, {name}"] = partial(session, picture)
    return runs


def compare(model: str, scale: int, threads: int, rounds: int) -> dict[str, object]:
    """Time all forms in turn."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        runs = runs_of(model, scale, threads, Path(folder))
        times = [{name: seconds(run) for name, run in runs.items()} for _ in range(rounds)]
    fastest = {name: min(each[name] for each in times) for name in runs}
    return {
        "model": model,
        "scale": scale,
        "input": f"{WIDTH}x{HEIGHT}",
        "threads": threads,
        "seconds": {name: round(value, 2) for name, value in fastest.items()},
        "ratio": {name: round(fastest["loop"] / value, 2) for name, value in fastest.items()},
        "load": [round(value, 1) for value in os.getloadavg()],
        "torch": torch.__version__,
    }


@click.command()
@click.argument("model", default="hpinet-s")
@click.argument("scale", type=int, default=4)
@click.option("--threads", type=int, multiple=True, default=(1, 2))
@click.option("--rounds", type=int, default=3)
@click.option("--output", type=click.Path(path_type=Path), help="Write the results as JSON.")
def main(
    model: str, scale: int, threads: tuple[int, ...], rounds: int, output: Path | None
) -> None:
    """Compare the forms of MODEL at SCALE."""
    results = [compare(model, scale, count, rounds) for count in threads]
    text = json.dumps(results, indent=2)
    click.echo(text)
    if output is not None:
        output.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
