"""`benchmarks/on_cuda.py`: what is finished is never lost, and what is missing is told."""

from __future__ import annotations

import io
import json
import lzma
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SCRIPT = BENCHMARKS / "on_cuda.py"

SLEEPY = """
import sys
sys.path.insert(0, {benchmarks!r})
from on_cuda_stages import Run, Stage
def python(name, code, limit=30, **more):
    return Stage(name, limit, [sys.executable, "-c", code], **more)
run = Run({seconds}, resume={resume})
for stage in (
    python("first", "import json; print(json.dumps(dict(lines=['one'])))", json=True),
    python("failing", "print('because'); raise SystemExit(3)"),
    python("slow", {slow!r}, limit={limit}),
    Stage("missing", 9, ["no-such-tool"]),
):
    run.stage(stage)
sys.exit(run.end())
"""
SLOW = "import time; print('begun', flush=True); time.sleep({nap})"


@pytest.fixture
def place(tmp_path):
    """The environment of a script that keeps all it makes in a folder of this test."""
    home, out = tmp_path / "home", tmp_path / "out"
    return os.environ | {"SRCLI_ON_CUDA": str(home), "OUT": str(out), "PYTHONPATH": ""}


def sleepy(*, nap=0.0, limit=30, seconds=60, resume=False):
    slow = SLOW.format(nap=nap)
    words = {"seconds": seconds, "resume": resume, "limit": limit, "slow": slow}
    code = SLEEPY.format(benchmarks=str(BENCHMARKS), **words)
    return [sys.executable, "-c", code]


def test_the_tests_that_it_runs_are_there():
    """They were moved once, and the stage ran none."""
    shown = "import on_cuda; print(*on_cuda.tests(1, on_cuda.TINY).command, sep='\\n')"
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r}); {shown}",
    ]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    named = [Path(word) for word in words if word.endswith(".py") and "tests" in word]
    assert len(named) == 2
    assert all(file.is_file() for file in named)


def done(command, place):
    return subprocess.run(command, env=place, capture_output=True, text=True, check=False)


def packed(place):
    """Name -> content of the files that came back."""
    with tarfile.open(Path(place["OUT"]) / "results.tgz") as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def codes(place):
    return {name: row["code"] for name, row in json.loads(packed(place)["stages.json"]).items()}


def test_each_stage_is_run_and_told_whatever_became_of_the_others(place):
    answer = done(sleepy(), place)
    assert answer.returncode == 1
    assert codes(place) == {"first": 0, "failing": 3, "slow": 0, "missing": "missing"}
    table = answer.stdout.partition("\n\n")[2]
    assert re.search(r"first +0 .*\n +one\n", table)
    assert re.search(r"failing +3 .*\n +! because\n", table)
    assert "no-such-tool is not installed here" in table


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_cut_off_loses_nothing_and_the_rest_is_done_later(place, number):
    process = subprocess.Popen(sleepy(nap=60), env=place, stdout=subprocess.DEVNULL)
    said = Path(place["SRCLI_ON_CUDA"]) / "results" / "slow.txt"
    while not (said.exists() and said.read_text()):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(number)
    process.wait()
    assert codes(place) == {"first": 0, "failing": 3, "slow": "cut off"}
    assert json.loads(packed(place)["first.json"]) == {"lines": ["one"]}
    again = done(sleepy(resume=True), place)
    assert re.search(r"first +ended well before", again.stdout)
    assert codes(place) == {"first": 0, "failing": 3, "slow": 0, "missing": "missing"}


def test_a_stage_ends_at_its_limit_and_none_begins_without_time(place):
    done(sleepy(nap=60, limit=0.5), place)
    assert codes(place) == {"first": 0, "failing": 3, "slow": "cut off", "missing": "missing"}
    assert packed(place)["slow.txt"] == b"begun\n"
    done(sleepy(seconds=1), place)
    # Neither does it hide what was found before.
    assert codes(place)["first"] == 0


def test_what_came_back_is_taken_up_on_another_machine(place):
    done(sleepy(), place)
    elsewhere = place | {"SRCLI_ON_CUDA": place["SRCLI_ON_CUDA"] + "-2"}
    assert "ended well before" in done(sleepy(resume=True), elsewhere).stdout


def test_a_machine_where_nothing_is_installed_is_told_so(place, tmp_path):
    """Not even PyTorch, pytest or NVIDIA's tool."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    (tmp_path / "empty").mkdir()
    place["PATH"] = str(tmp_path / "empty")
    answer = done([bare / "bin" / "python", SCRIPT, "core", "--tiny", "--seconds", "90"], place)
    assert answer.returncode == 1
    found = codes(place)
    assert found.pop("machine") == "missing"
    assert len(found) == 10
    assert set(found.values()) == {1}
    assert "nvidia-smi is not installed here" in answer.stdout
    assert "No module named pytest" in answer.stdout
    assert "No module named 'torch'" in answer.stdout


INSTALL = """
import sys
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
import on_cuda_stages as stages
stages.CARRIED, stages._compile = Path({carried!r}), lambda: None
stages.PARTS.mkdir(parents=True, exist_ok=True)
stages.install(lambda text: sys.stdout.write(text + "\\n"))
"""


def as_tar(name: str, content: bytes) -> bytes:
    """Return a tar with one file."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def test_what_is_carried_is_put_in_place(place, tmp_path):
    """TensorRT-RTX is too large for one call: its parts come one by one."""
    carried, home = tmp_path / "carried", Path(place["SRCLI_ON_CUDA"])
    command = INSTALL.format(benchmarks=str(BENCHMARKS), carried=str(carried))
    library = lzma.compress(as_tar("tensorrt_rtx_libs/libtensorrt_rtx.so.1", b"a library" * 1000))
    (carried / "train").mkdir(parents=True)
    (carried / "train" / "picture.png").write_bytes(b"picture")
    (carried / "_filters.abi3.so").write_bytes(b"compiled")
    (carried / "rtx.00").write_bytes(library[:50])
    (carried / "damaged.whl").write_bytes(b"not a zip")
    with zipfile.ZipFile(carried / "small-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("small/__init__.py", "")
    first = done([sys.executable, "-c", command], place)
    assert "damaged.whl: left out" in first.stdout
    assert "cannot be put together" in first.stdout
    shutil.rmtree(carried)
    carried.mkdir()
    (carried / "rtx.01").write_bytes(library[50:])
    second = done([sys.executable, "-c", command], place)
    assert "cannot be put together" not in second.stdout
    site = home / "site"
    assert (site / "tensorrt_rtx_libs" / "libtensorrt_rtx.so.1").read_bytes()[:9] == b"a library"
    assert (site / "small" / "__init__.py").exists()
    assert (site / "srcli" / "weights" / "manifest.toml").exists()
    assert (site / "srcli" / "export" / "engines.py").exists()
    compiled = site / "srcli" / "backends" / "filters" / "_filters.abi3.so"
    assert compiled.read_bytes() == b"compiled"
    assert compiled.with_name("_filters.c").exists()
    assert (home / "parts" / "train" / "picture.png").exists()


@pytest.mark.parametrize("group", ["core", "quick", "rtx", "train"])
def test_stages_are_listed_and_chosen(place, group):
    listed = done([sys.executable, SCRIPT, group, "--list"], place)
    assert re.fullmatch(r"(\S+ +at most \d+ s\n)+", listed.stdout)
    wrong = done([sys.executable, SCRIPT, group, "--only", "nothing"], place)
    assert (wrong.returncode, "has no stage nothing" in wrong.stdout) == (2, True)


@pytest.mark.slow
def test_all_of_core_works_on_a_processor_cut_off_at_three_random_moments(place):
    """The whole script, with small pictures: what a CUDA machine will be asked."""
    command = [sys.executable, SCRIPT, "core", "--tiny", "--seconds", "300", "--resume"]
    place["PYTHONPATH"] = os.environ.get("PYTHONPATH", "")
    finished, chance = {}, random.Random()
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        with pytest.raises(subprocess.TimeoutExpired):
            process = subprocess.Popen(command, env=place, stdout=subprocess.DEVNULL)
            process.wait(chance.uniform(3, 25))
        process.send_signal(number)
        process.wait()
        files = packed(place)
        for name, content in finished.items():
            assert files[name] == content
        whole = {name for name, code in codes(place).items() if code == 0}
        finished = {name: files[name] for name in files if Path(name).stem in whole}
    answer = done(command, place)
    found = codes(place)
    assert found.pop("machine") in (0, "missing")
    assert set(found.values()) == {0}, answer.stdout
    assert len(found) == 10
    for name, content in finished.items():
        assert packed(place)[name] == content
    assert re.search(r"lapar-c fused fp32 torch network: [\d.]+ ms", answer.stdout)
