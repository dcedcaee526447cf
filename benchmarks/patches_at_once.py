"""How much faster HPINet is with all patches at once than with one after the other.

Both forms run in turn (A B A B) on one input of 320x180, in PyTorch on the CPU, with the numbers of
threads given; the ratio of the fastest runs counts. Weights are random: the arithmetic is the same.

    python benchmarks/patches_at_once.py hpinet-s 4 --threads 1 --threads 2
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import click
import torch
from torch import Tensor, nn

from srcli.registry import get_model

HEIGHT, WIDTH = 180, 320


def seconds(network: nn.Module, x: Tensor) -> float:
    """How long one run takes."""
    start = time.perf_counter()
    network(x)
    return time.perf_counter() - start


def compare(model: str, scale: int, threads: int, rounds: int) -> dict[str, object]:
    """Time both forms in turn."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    published = get_model(model).build(scale).eval().requires_grad_(False)
    fused = published.fuse()  # type: ignore[operator]
    assert isinstance(fused, nn.Module)
    fused = fused.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.rand(1, 3, HEIGHT, WIDTH)
    packed = x.to(memory_format=torch.channels_last)
    with torch.inference_mode():
        fused(packed)
        runs = [(seconds(published, x), seconds(fused, packed)) for _ in range(rounds)]
    loop, at_once = (min(times) for times in zip(*runs, strict=True))
    return {
        "model": model,
        "scale": scale,
        "input": f"{WIDTH}x{HEIGHT}",
        "threads": threads,
        "loop_s": round(loop, 2),
        "at_once_s": round(at_once, 2),
        "ratio": round(loop / at_once, 2),
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
    """Compare both forms of MODEL at SCALE."""
    results = [compare(model, scale, count, rounds) for count in threads]
    text = json.dumps(results, indent=2)
    click.echo(text)
    if output is not None:
        output.write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
