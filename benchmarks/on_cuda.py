"""Measure on any CUDA machine, the most valuable first; may be cut off at any moment.

    python benchmarks/on_cuda.py core --seconds 600

Needs Python 3.11 or newer and PyTorch for CUDA; srcli need not be installed. Each stage has a time
limit of its own. After each one, and every few seconds in between, all results so far are packed
into `$OUT/results.tgz`; OUT is a folder in the temporary folder if it is not set. With `--resume`
a stage that ended well before is not run again. What a stage lacks (a tool, a package, a GPU) is
told, and the next stage begins. `benchmarks/README.md` says what comes back.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # Python leaves it out where PYTHONSAFEPATH is set

from on_cuda_stages import HOME, OUT, PARTS, ROOT, Run, Stage, install  # noqa: E402

PROBE = HERE / "on_cuda_probe.py"

# The training queue, model:scale:seconds: to be edited for the run at hand. The pictures are tars
# (`python -m srcli.weights.training.packed`) in the carried folder `train`; what was trained so far
# comes back in pieces beside the results.
PLAN = "asdn-base:any:150,dcls-iso:x4:150,hpinet-s:x4:90"
TRAIN = (
    *("-m", "srcli.weights.training.cuda_train", "--plan", PLAN, "--data", str(PARTS / "train")),
    *("--out", str(HOME / "runs"), "--bring", str(OUT)),
)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large and how long the measurements are."""

    output: str
    seconds: int
    """Of one benchmark, warm."""

    tests: tuple[str, ...]
    """Further arguments of pytest."""


FULL = Sizes("1280x720", 12, ())
TINY = Sizes("64x48", 0, ("-k", "without_triton or other_networks or every_family"))


def core(sizes: Sizes) -> list[Stage]:
    """Return what every CUDA machine is asked, in about five minutes."""
    return [
        Stage("machine", 15, ["nvidia-smi", "-q", "-d", "CLOCK,POWER,TEMPERATURE,MEMORY"]),
        Stage("doctor", 40, python("-m", "srcli", "doctor")),
        probe("ceilings", 30),
        bench("lapar-c", 120, sizes, *graphs("lapar-c"), *precisions("fp32", "fp16", "bf16")),
        tests(90, sizes),
        bench("lapar-a-b", 90, sizes, *graphs("lapar-a", "lapar-b"), *precisions("fp32", "fp16")),
        probe("kernels", 40),
        probe("convolutions", 45),
        probe("variants", 75),
        probe("sweep", 40),
        bench("end-to-end", 60, sizes, *fused("lapar-c"), "--scope", "host", "--scope", "file"),
    ]


def quick(sizes: Sizes) -> list[Stage]:
    """Return what shows within a minute whether a change was right and faster."""
    short = Sizes(sizes.output, min(sizes.seconds, 5), sizes.tests or ("-k", "lapar-c"))
    return [
        probe("ceilings", 30),
        bench("lapar-c-fp16", 60, short, *graphs("lapar-c"), *precisions("fp16")),
        tests(60, short),
    ]


def rtx(sizes: Sizes) -> list[Stage]:
    """Return what TensorRT-RTX is asked, from a package or from what was carried."""
    return [
        probe("rtx", 60),
        bench("rtx", 90, sizes, *fused("lapar-c", "lapar-a"), "--backend", "trt"),
    ]


def train(sizes: Sizes) -> list[Stage]:
    """Return the training, which takes all the time that is left."""
    return [Stage("train", 3600, python(*TRAIN))]


GROUPS = {"core": core, "quick": quick, "rtx": rtx, "train": train}


def python(*words: str) -> list[str]:
    """Return a command of this Python."""
    return [sys.executable, *words]


def probe(name: str, limit: float) -> Stage:
    """Return a stage of `on_cuda_probe.py`."""
    return Stage(name, limit, python(str(PROBE), name), json=True)


def bench(name: str, limit: float, sizes: Sizes, *words: str) -> Stage:
    """Return a stage of `srcli bench`."""
    command = python("-m", "srcli", "bench", "--json", "--size", sizes.output)
    return Stage(f"bench-{name}", limit, [*command, "--seconds", str(sizes.seconds), *words], True)


def graphs(*models: str) -> list[str]:
    """Return the options for both graphs of models in PyTorch, with CUDA graphs and without."""
    named = [word for model in models for word in ("-m", model)]
    return [*named, "--backend", "torch", "--no-cuda-graph", "--roofline"]


def fused(*models: str) -> list[str]:
    """Return the options for the fused graph of models in PyTorch."""
    named = [word for model in models for word in ("-m", model)]
    return [*named, "--graph", "fused", "--backend", "torch", *precisions("fp32", "fp16")]


def precisions(*names: str) -> list[str]:
    """Return the options for precisions."""
    # A processor has no others in PyTorch, and shows that all stages work.
    names = names if has_cuda() else ("fp32",)
    return [word for name in names for word in ("--precision", name)]


def has_cuda() -> bool:
    """Return whether NVIDIA's driver is here; PyTorch would take seconds to ask."""
    return any(Path(name).exists() for name in ("/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg"))


def tests(limit: float, sizes: Sizes) -> Stage:
    """Return the tests that want a GPU."""
    folder = ROOT / "tests" / "backends"
    files = [str(folder / name) for name in ("test_cuda.py", "test_triton.py")]
    command = python("-m", "pytest", "-q", "-rfE", "-W", "ignore", "-p", "no:cacheprovider")
    command += ["--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml")]
    if find_spec("xdist") is not None:
        command += ["-n", str(min(6, os.cpu_count() or 1))]
    if find_spec("pytest_timeout") is not None:
        command += ["--timeout", "60"]
    return Stage("tests", limit, [*command, *files, *sizes.tests])


def parsed() -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("group", choices=GROUPS, help="Which stages.")
    parser.add_argument("--seconds", type=float, default=600, help="For all of them.")
    parser.add_argument("--only", help="Names of stages, with commas between them.")
    parser.add_argument("--list", action="store_true", help="Print the stages' names and limits.")
    parser.add_argument("--resume", action="store_true", help="Leave out what ended well before.")
    parser.add_argument("--tiny", action="store_true", help="Small and short: to try the script.")
    return parser.parse_args()


def main() -> int:
    """Run the stages of a group; the exit code is 1 if one of them did not end well."""
    wanted = parsed()
    if wanted.tiny:
        os.environ["SRCLI_ON_CUDA_TINY"] = "1"  # read by the probe
    stages = GROUPS[wanted.group](TINY if wanted.tiny else FULL)
    if wanted.only:
        names = wanted.only.split(",")
        known = [stage.name for stage in stages]
        if unknown := [name for name in names if name not in known]:
            print(f"{wanted.group} has no stage {unknown[0]}. Choose of {', '.join(known)}.")
            return 2
        stages = [stage for stage in stages if stage.name in names]
    if wanted.list:
        print(*(f"{stage.name:20} at most {stage.limit:.0f} s" for stage in stages), sep="\n")
        return 0
    run = Run(wanted.seconds, resume=wanted.resume)
    install(run.tell)
    for stage in stages:
        run.stage(stage)
    return run.end()


if __name__ == "__main__":
    sys.exit(main())
