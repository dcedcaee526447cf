"""`srcli ray`: real worker processes, which are killed; each picture once, as the plain batch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.folders import make_pictures, tree

from srcli.jobs.status import Outputs, merged, read_status

pytestmark = pytest.mark.services
pytest.importorskip("ray", reason="needs srcli[ray]")

LIMIT = 150  # seconds: a hang is an error
MARK = "SRCLI_TEST_MARK"
RAY = [sys.executable, "-m", "srcli", "ray", "upscale", "in", "-s", "2", "-o", "out/"]
PLAIN = [sys.executable, "-m", "srcli", "upscale", "in", "-s", "2"]
# Opening one file ends the process, as a fault in a library would.
CRASH = """
import os, sys
def end(event, arguments):
    if event == "open" and str(arguments[0]).endswith("crash.png"):
        os.kill(os.getpid(), 9)
sys.addaudithook(end)
"""


@pytest.fixture
def place(tmp_path):
    """300 pictures, and what the plain batch makes of them."""
    make_pictures(tmp_path / "in", 300, size=(20, 24))
    subprocess.run([*PLAIN, "-o", "plain/", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def start(command, place, **more):
    environment = {**os.environ, MARK: str(place), **more}
    return subprocess.Popen(
        command,
        cwd=place,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    out, err = process.communicate(timeout=LIMIT)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def processes(place, beginning):
    """Numbers of this test's processes whose titles begin so."""
    for folder in Path("/proc").iterdir():
        try:
            title = (folder / "cmdline").read_bytes()
            if (
                title.startswith(beginning)
                and os.fsencode(place) in (folder / "environ").read_bytes()
            ):
                yield int(folder.name)
        except (OSError, ValueError):
            continue


def wait_for_outputs(place, count):
    end = time.monotonic() + LIMIT
    while len([*(place / "out").glob("*.png")]) < count:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_worker_is_killed(place):
    process = start([*RAY, "--actors", "2", "--json"], place)
    wait_for_outputs(place, 30)
    victim = next(processes(place, b"ray::MapWorker"))
    os.kill(victim, signal.SIGKILL)
    code, out, err = finish(process)
    found = json.loads(out)
    assert (code, found["done"], found["total"]) == (0, 300, 300), err
    assert len(found["files"]) == 300
    assert tree(place / "out") == tree(place / "plain")
    assert len(merged(Outputs(str(place / "out")))) == 300
    code, out, _ = finish(start([*PLAIN, "-o", "out/", "--resume"], place))
    assert (code, out.count("skipped")) == (0, 300)


def test_a_picture_ends_its_process(place):
    (place / "in" / "crash.png").write_bytes((place / "in" / "000.png").read_bytes())
    (place / "in" / "bad.png").write_bytes(b"no picture")
    (place / "hook").mkdir()
    (place / "hook" / "sitecustomize.py").write_text(CRASH)
    command = [*RAY, "--tries", "2", "--events", "jsonl"]
    # The driver peeks at the first few names, and the crashing one is not among them.
    code, out, err = finish(start(command, place, PYTHONPATH=str(place / "hook")))
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 1, err
    summary = events[-1]
    assert (summary["done"], summary["failed"], summary["crashed"]) == (300, 1, 1), err
    assert "crash.png: ended its process in each of 2 tries" in err
    assert tree(place / "out") == tree(place / "plain")
    status = read_status(Outputs(str(place / "out")))
    assert status.done == 300
    assert sorted(status.failed) == ["bad.png", "crash.png"]
    assert status.failed["crash.png"].startswith("crashed: ")


def test_the_driver_is_killed_and_run_again(place):
    process = start(RAY, place)
    wait_for_outputs(place, 40)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    code, out, err = finish(start([*RAY, "--resume", "--json"], place))
    found = json.loads(out)
    assert (code, found["total"], found["failed"]) == (0, 300, 0), err
    assert found["skipped"] >= 40
    assert found["done"] + found["skipped"] == 300
    assert tree(place / "out") == tree(place / "plain")
    assert len(merged(Outputs(str(place / "out")))) == 300


def test_a_plain_batch_is_gone_on_with(place):
    """And outputs that are there are not replaced without a word."""
    command = [*PLAIN, "-o", "out/", "--shard", "1/3"]
    assert finish(start(command, place))[0] == 0
    count = len([*(place / "out").glob("*.png")])
    code, _, err = finish(start(RAY, place))
    assert code != 0
    assert "exists already" in err
    code, out, err = finish(start([*RAY, "--resume", "--json"], place))
    found = json.loads(out)
    assert (code, found["skipped"], found["done"]) == (0, count, 300 - count), err
    assert tree(place / "out") == tree(place / "plain")


def test_what_does_not_go_with_ray(srcli, tmp_path):
    make_pictures(tmp_path / "in", 1)
    for option in ("--retry-failed", "--check"):
        code, _, err = srcli("ray", "upscale", tmp_path / "in", "-o", f"{tmp_path}/out/", option)
        assert code == 2
        assert option in err


def test_dry_run_starts_no_cluster(srcli, tmp_path):
    make_pictures(tmp_path / "in", 2)
    code, out, _ = srcli(
        *("ray", "denoise", tmp_path / "in", "-o", f"{tmp_path}/out/", "--dry-run")
    )
    assert code == 0
    assert out.splitlines() == [
        f"{tmp_path}/in/00{n}.png -> {tmp_path}/out/00{n}.png" for n in range(2)
    ]
