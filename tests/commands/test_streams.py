"""Standard streams that are closed, joined, full or left: data and messages never mix."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs a shell of POSIX")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of two pictures, and a file that is none."""
    folder = tmp_path_factory.mktemp("streams")
    for index in range(2):
        noise = np.random.default_rng(index).integers(0, 255, (10, 12, 3), np.uint8)
        (folder / "in").mkdir(exist_ok=True)
        Image.fromarray(noise).save(folder / "in" / f"{index}.png")
    (folder / "text.png").write_text("no picture")
    return folder


def shell(folder, line, **options):
    """Run a line of a shell in which `upscale` is `srcli upscale -s 2`."""
    command = shlex.join([sys.executable, "-m", "srcli", "upscale", "-s", "2"])
    script = f'set -o pipefail; upscale() {{ {command} "$@"; }}; {line}'
    return subprocess.run(
        ["bash", "-c", script], cwd=folder, capture_output=True, timeout=120, **options
    )


def size_of(content):
    with Image.open(io.BytesIO(content)) as picture:
        picture.load()
        return picture.format, picture.size


@pytest.mark.parametrize(
    "redirected",
    [
        "in/0.png -o - > out.png 2>&-",
        "in/0.png -o - 2>&- | cat > out.png",
        "in/0.png -o - > out.png 2>&- <&-",
        "in/0.png -o - > out.png 2>&1",
        "in/0.png -o - 2>&1 | cat > out.png",
        "- < in/0.png > out.png 2>&1",
    ],
)
def test_a_picture_on_standard_output_is_nothing_else(pictures, redirected):
    """faults.md 2: the note was written into the picture, into a file or a pipe."""
    done = shell(pictures, f"upscale {redirected}")
    assert done.returncode == 0, done.stderr
    content = (pictures / "out.png").read_bytes()
    assert size_of(content) == ("PNG", (24, 20))
    assert content.startswith(b"\x89PNG")
    assert content.endswith(b"IEND\xaeB`\x82")


def test_an_error_is_told_where_it_can_be(pictures):
    """faults.md 2: where it ends the work there is no data that it could be mixed with."""
    done = shell(pictures, "upscale text.png -o - 2>&1 | cat")
    assert done.returncode == 1
    assert done.stdout.startswith(b"error: text.png: ")


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-", ">/dev/full"])
def test_no_stream_is_needed_for_files(pictures, closed):
    """faults.md 2: the output is written, and no file gets the number of a closed stream."""
    target = pictures / "plain.png"
    target.unlink(missing_ok=True)
    done = shell(pictures, f"upscale in/0.png -o plain.png {closed}")
    assert done.returncode == (1 if "full" in closed else 0)
    assert size_of(target.read_bytes()) == ("PNG", (24, 20))
    assert b"Traceback" not in done.stderr
    assert not list(pictures.glob(".srcli-*"))


@pytest.mark.parametrize("closed", ["2>&-", "<&-"])
def test_json_is_nothing_else(pictures, closed):
    """faults.md 2: `--json 2>&-` printed notes among the JSON."""
    done = shell(pictures, f"upscale in/0.png -o json.png --overwrite --json {closed}")
    assert [row["status"] for row in json.loads(done.stdout)["files"]] == ["done"]


@pytest.mark.parametrize("option", ["--json", "--events jsonl"])
def test_results_for_programs_need_a_place(pictures, option):
    """faults.md 2: found out before the work, not after it."""
    done = shell(pictures, f"upscale in/0.png -o never.png {option} >&-")
    assert done.returncode == 2
    assert b"standard output: is closed" in done.stderr
    assert not (pictures / "never.png").exists()


@pytest.mark.parametrize(
    ("given", "reason"),
    [("<&-", b"is closed"), ("</dev/null", b"is empty"), ("< text.png", b"not a picture")],
)
def test_no_picture_on_standard_input(pictures, given, reason):
    """faults.md 2: `srcli upscale - <&-` was a traceback."""
    done = shell(pictures, f"upscale - {given}")
    assert (done.returncode, done.stdout) == (1, b"")
    (line,) = done.stderr.splitlines()
    assert line.startswith(b"error: standard input: ")
    assert reason in line


def test_standard_output_that_is_closed_takes_no_picture(pictures):
    """faults.md 2."""
    done = shell(pictures, "upscale in/0.png -o - >&-")
    assert done.returncode == 2
    assert b"error: standard output: is closed" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
@pytest.mark.parametrize("option", ["", "--events jsonl"])
def test_a_full_disk_under_standard_output_ends_no_batch(pictures, option):
    """faults.md 14: all pictures are done, the error is told once, and the exit code tells it."""
    done = shell(pictures, f"upscale in -o full{option[2:8]}/ {option} > /dev/full")
    assert done.returncode == 1
    assert done.stderr.count(b"standard output: cannot be written") == 1
    assert len(list((pictures / f"full{option[2:8]}").glob("*.png"))) == 2


@pytest.mark.parametrize("option", ["", "--events jsonl", "--json"])
def test_a_reader_that_leaves_ends_no_batch(pictures, option):
    """faults.md 14: `| head -1` stopped the batch in silence."""
    folder = f"head{option[2:6]}"
    done = shell(pictures, f"upscale in/*.png in/no.png -o {folder}/ {option} | head -1")
    assert len(list((pictures / folder).glob("*.png"))) == 2
    assert b"2 done, 1 failed" in done.stderr
    assert b"Traceback" not in done.stderr
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("command", ["--help", "models", "doctor --help"])
def test_other_commands_do_without_streams(pictures, command):
    """faults.md 2."""
    line = f"{shlex.quote(sys.executable)} -m srcli {command} <&- >&- 2>&-"
    done = subprocess.run(["bash", "-c", line], cwd=pictures)
    assert done.returncode == 0
