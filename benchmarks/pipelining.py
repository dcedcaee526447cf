"""What it is worth that decoding, the network and encoding overlap.

    python benchmarks/pipelining.py --pictures ../shared/data/eval/B100/HR --scale 2

A folder of pictures of 480 x 320 is enlarged by one call of the batch runner, and by a loop that
decodes, restores and encodes one picture after the other, in turn (A B A B), in one process with
sessions opened alike. Prints the ratio of each pair and their median.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from PIL import Image

from srcli.backends import open_model
from srcli.backends.base import SessionOptions
from srcli.images import SaveOptions, read, write
from srcli.jobs.batch import Batch
from srcli.jobs.planning import Job, Wishes, plan_jobs
from srcli.jobs.sizes import SizeRequest
from srcli.loading.model import load
from srcli.loading.restorer import RunOptions, restorer_of
from srcli.pipeline.budget import sensible_concurrency
from srcli.pipeline.restorer import Restorer


def make_folder(pictures: Path, folder: Path, count: int) -> None:
    folder.mkdir()
    files = sorted(pictures.iterdir())
    for index in range(count):
        with Image.open(files[index % len(files)]) as picture:
            picture.convert("RGB").resize((480, 320)).save(folder / f"{index:03}.png")


def jobs_for(source: Path, target: Path, scale: int) -> list[Job]:
    size = SizeRequest(scale=scale)  # type: ignore[arg-type]
    wishes = Wishes(
        output=f"{target}/",
        suffix="",
        size=size,
        scales=(scale,),
        options=SaveOptions(),
    )
    return plan_jobs([str(source)], wishes)


def one_call(jobs: list[Job], restorer: Restorer) -> None:
    batch = Batch(restorer=lambda scale: restorer, concurrency=restorer.concurrency)
    assert all(outcome.status == "done" for outcome in batch.run(jobs))


def one_after_the_other(jobs: list[Job], restorer: Restorer) -> None:
    for job in jobs:
        write(restorer(read(job.source)), job.target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--model", default="lapar-c")
    parser.add_argument("--scale", type=int, default=2)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "int8"))
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    model = load(arguments.model, arguments.scale)
    # The loop has one picture at a time, so all cores work on it; the call has one on each core, as
    # `srcli upscale` does with a folder.
    loop, call = (
        restorer_of(
            open_model(
                "auto",
                model,
                SessionOptions(concurrency=concurrency, precision=arguments.precision),
            )[1],
            model.geometry,
            arguments.scale,
            RunOptions(),
        )
        for concurrency in (1, sensible_concurrency(arguments.count, model.geometry))
    )
    ratios = []
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary, "in")
        make_folder(arguments.pictures, source, arguments.count)
        for index in range(arguments.rounds):
            seconds = []
            for name, run, restorer in (
                ("loop", one_after_the_other, loop),
                ("call", one_call, call),
            ):
                jobs = jobs_for(source, Path(temporary, f"{name}{index}"), arguments.scale)
                Path(temporary, f"{name}{index}").mkdir()
                started = time.perf_counter()
                run(jobs, restorer)
                seconds.append(time.perf_counter() - started)
            ratios.append(seconds[0] / seconds[1])
            print(f"loop {seconds[0]:.2f} s   one call {seconds[1]:.2f} s   {ratios[-1]:.2f} x")
    print(f"median {statistics.median(ratios):.2f} x")


if __name__ == "__main__":
    main()
