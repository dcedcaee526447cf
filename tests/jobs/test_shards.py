"""Batches from lists and in shards: every picture once, none lost, every failure on record."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.folders import make_pictures, tree

from srcli.errors import InputError
from srcli.jobs.listed import NameList, Places
from srcli.jobs.shards import Shard
from srcli.jobs.status import Outputs, merged, read_status

COMMAND = [sys.executable, "-m", "srcli", "upscale", "-s", "2"]
NAME = ".srcli-journal"


def outputs(folder):
    """Contents of all outputs by name, without journals."""
    return {name: content for name, content in tree(folder).items() if NAME not in str(name)}


def listed(folder, *, below="in"):
    """A list of the pictures in a folder, as `find` prints it."""
    names = sorted(str(p.relative_to(folder)) for p in (folder / below).rglob("*.png"))
    (folder / "list").write_text("".join(f"{name}\n" for name in names))
    return names


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with pictures in two folders and a list of them."""
    make_pictures(make_pictures(tmp_path / "in", 4, size=(20, 24)) / "sub", 3)
    listed(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_list_gives_what_the_folder_gives(srcli, place):
    assert srcli("upscale", "in", "-r", "-s", 2, "-o", "plain/")[0] == 0
    code, _, err = srcli(
        "upscale", "--files-from", "list", "--relative-to", "in", "-s", 2, "-o", "out/"
    )
    assert code == 0
    assert "7 pictures" in err
    assert outputs(place / "out") == outputs(place / "plain")
    again = srcli("upscale", "in", "-r", "-s", 2, "-o", "out/", "--resume", "--json")
    assert Counter(row["status"] for row in json.loads(again[1])["files"]) == {"skipped": 7}


def test_names_keep_their_folders(srcli, place):
    assert srcli("upscale", "--files-from", "list", "-s", 2, "-o", "out/")[0] == 0
    assert (place / "out" / "in" / "sub" / "000.png").exists()


@pytest.mark.parametrize("task", ["denoise", "deblock"])
def test_other_tasks_take_lists(srcli, place, task):
    assert srcli(task, "--files-from", "list", "-o", "out/", "--shard", "1/2")[0] == 0
    assert srcli(task, "--files-from", "list", "-o", "out/", "--shard", "2/2")[0] == 0
    assert read_status(Outputs(str(place / "out"))).done == 7


@pytest.mark.parametrize("of", [1, 2, 5])
def test_shards_together_are_the_whole(srcli, place, of):
    names = []
    for number in range(1, of + 1):
        code, out, _ = srcli(
            *("upscale", "--files-from", "list", "-s", 2, "-o", "out/"),
            *("--shard", f"{number}/{of}", "--json"),
        )
        assert code == 0
        names += [row["input"] for row in json.loads(out)["files"]]
    assert sorted(names) == (place / "list").read_text().split()
    status = read_status(Outputs(str(place / "out")))
    assert (status.done, status.total, status.missing, status.shards) == (7, 7, 0, (of, of))
    assert len(merged(Outputs(str(place / "out")))) == 7


def test_folders_are_cut_into_shards_too(srcli, place):
    for shard in ("1/3", "2/3", "3/3"):
        assert srcli("upscale", "in", "-r", "-s", 2, "-o", "out/", "--shard", shard)[0] == 0
    assert srcli("upscale", "in", "-r", "-s", 2, "-o", "plain/")[0] == 0
    assert outputs(place / "out") == outputs(place / "plain")
    assert read_status(Outputs(str(place / "out"))).total == 7


@given(st.lists(st.text(min_size=1), unique=True), st.integers(1, 20))
def test_each_name_is_in_one_shard(names, of):
    for name in names:
        assert sum(Shard(number, of).takes(name) for number in range(1, of + 1)) == 1


def test_shards_are_the_same_everywhere():
    """A change would send pictures to other shards in the middle of a batch."""
    assert [n for n in range(1, 1001) if Shard(n, 1000).takes("a/b.png")] == [741]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "1/0", "-1/4", "a/b", "1/4/2"])
def test_what_is_no_shard(srcli, text):
    code, _, err = srcli("upscale", "in.png", "--shard", text)
    assert code == 2
    assert "3/16" in err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"a.png\nb.png\n", ["a.png", "b.png"]),
        (b"a.png\r\nb.png", ["a.png", "b.png"]),
        (b"a\nb.png\0c.png\0", ["a\nb.png", "c.png"]),
        (b"\n\na.png\n\n", ["a.png"]),
        (b" a.png \n", [" a.png "]),
        (b"#1.png\n", ["#1.png"]),
        (b"\xff.png\n", ["\udcff.png"]),
        (b"", []),
    ],
)
def test_forms_of_lists(tmp_path, content, expected):
    (tmp_path / "list").write_bytes(content)
    with NameList.read(str(tmp_path / "list")) as names:
        assert [*names] == [*names] == expected


def test_a_list_longer_than_a_chunk(tmp_path):
    expected = [f"{number:06}/{'x' * 90}.png" for number in range(30_000)]
    (tmp_path / "list").write_text("\n".join(expected))
    with NameList.read(str(tmp_path / "list")) as names:
        assert [*names] == expected


@pytest.mark.parametrize(
    ("name", "base", "expected"),
    [
        ("a/b.png", None, "a/b.png"),
        ("./a/./b.png", None, "a/b.png"),
        ("a/../b.png", None, "b.png"),
        ("a//b.png", None, "a/b.png"),
        ("a/b.png", "a", "b.png"),
        ("{here}/a/b.png", None, "a/b.png"),
        ("{here}/a/b.png", "a", "b.png"),
        ("/elsewhere/b.png", None, "elsewhere/b.png"),
    ],
)
def test_names_of_outputs(tmp_path, monkeypatch, name, base, expected):
    monkeypatch.chdir(tmp_path)
    places = Places("out/", None, base)
    assert places.relative(name.format(here=tmp_path)) == expected


def test_no_output_leaves_the_folder(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    for name in ("../../../../../../etc/x.png", "../x.png", "a/../../x.png"):
        relative = Places("out/", None, None).relative(name)
        assert ".." not in relative.split("/")
        assert not relative.startswith("/")


@pytest.mark.parametrize(
    ("lines", "arguments", "said"),
    [
        (["a.png", "a.png"], [], "names a.png twice"),
        (["a.png", "A.png"], [], "would both become"),
        (["a.bmp", "a.png"], ["-f", "png"], "would both become"),
        (["x/a.png", "./x/a.png"], [], "would both become"),
        (["out/b.png", "b.png"], [], "is an input and would be replaced"),
        ([], [], "names no pictures"),
        (["a.png"], ["b.png"], "Name all of them in one way"),
        (["a.png"], ["--batch", "2"], "--batch does not go with"),
        (["a.png"], ["--check"], "--check does not go with"),
    ],
)
def test_lists_that_are_refused(srcli, tmp_path, monkeypatch, lines, arguments, said):
    monkeypatch.chdir(tmp_path)
    Path("list").write_text("\n".join(lines))
    code, _, err = srcli("upscale", "--files-from", "list", "-s", 2, "-o", "out/", *arguments)
    assert code == (2 if lines else InputError.exit_code)
    assert said in err
    assert not Path("out").exists()


@pytest.mark.parametrize("output", [None, "one.png", "-", "{stem}.png"])
def test_a_list_wants_a_folder(srcli, place, output):
    arguments = [] if output is None else ["-o", output]
    code, _, err = srcli("upscale", "--files-from", "list", "-s", 2, *arguments)
    assert code == 2
    assert "go into a folder" in err


def test_standard_input_does_not_go_to_a_store(srcli):
    code, _, err = srcli("upscale", "-", "-s", 2, "-o", "s3://bucket/out/")
    assert code == 2
    assert "standard input cannot be read beside URLs" in err


def test_a_list_that_is_not_there(srcli, tmp_path):
    code, _, err = srcli("upscale", "--files-from", tmp_path / "none", "-o", f"{tmp_path}/out/")
    assert code == InputError.exit_code
    assert "none: the list cannot be read" in err


def test_a_list_from_standard_input(place):
    command = [*COMMAND, "--files-from", "-", "-o", "out/", "--shard", "1/1"]
    with (place / "list").open("rb") as stream:
        assert subprocess.run(command, stdin=stream, cwd=place).returncode == 0
    assert read_status(Outputs(str(place / "out"))).done == 7


def test_outputs_that_are_there_are_not_replaced(srcli, place):
    arguments = ("upscale", "--files-from", "list", "-s", 2, "-o", "out/")
    assert srcli(*arguments)[0] == 0
    before = outputs(place / "out")
    code, _, err = srcli(*arguments)
    assert code != 0
    assert "exists already" in err
    assert srcli(*arguments, "--overwrite")[0] == 0
    assert outputs(place / "out") == before


def test_dry_run_reads_no_file(srcli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("list").write_text("a/b.jpg\nc.png\n")
    arguments = ("upscale", "--files-from", "list", "-s", 2, "-o", "out/", "--dry-run")
    code, out, _ = srcli(*arguments)
    assert (code, out.splitlines()) == (0, ["a/b.jpg -> out/a/b.jpg", "c.png -> out/c.png"])
    code, out, _ = srcli(*arguments, "-f", "webp", "--json")
    assert [json.loads(line)["output"] for line in out.splitlines()] == [
        "out/a/b.webp",
        "out/c.webp",
    ]


def test_a_million_names_take_little_memory(tmp_path):
    """Here a tenth of it: beyond the start, 30 bytes for each name."""
    (tmp_path / "list").write_text("".join(f"a/{n // 1000}/{n}.jpg\n" for n in range(100_000)))
    code = (
        "import sys; from srcli.cli import run; "
        "sys.stdout = open('/dev/null', 'w'); "
        "code = run(['upscale', '--files-from', 'list', '-s', '2', '-o', 'out/', '--dry-run']); "
        "print(open('/proc/self/status').read(), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr
    peak = next(line for line in done.stderr.splitlines() if line.startswith(b"VmHWM"))
    assert int(peak.split()[1]) < 200_000  # KiB


def spoil(folder):
    """Put bad files into a folder; return their names."""
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")
    whole = (folder / "000.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    return ["cut.png", "empty.png", "text.png"]


def test_failures_are_on_record_and_can_be_tried_again(srcli, place):
    bad = spoil(place / "in")
    (place / "list").write_text((place / "list").read_text() + "in/gone.png\n")
    listed_bad = [f"in/{name}" for name in bad]
    with (place / "list").open("a") as names:
        names.write("".join(f"{name}\n" for name in listed_bad))
    arguments = ("upscale", "--files-from", "list", "-s", 2, "-o", "out/", "--events", "jsonl")
    code, out, _ = srcli(*arguments, "--shard", "1/2")
    other, more, _ = srcli(*arguments, "--shard", "2/2")
    assert 1 in (code, other)
    events = [json.loads(line) for line in (out + more).splitlines()]
    assert Counter(event["event"] for event in events)["failed"] == 4
    status = read_status(Outputs(str(place / "out")))
    assert (status.done, status.total, status.missing) == (7, 11, 0)
    assert sorted(status.failed) == sorted([*listed_bad, "in/gone.png"])
    reasons = status.failed
    assert "empty" in reasons["in/empty.png"]
    assert "cannot be read" in reasons["in/gone.png"]
    assert len({*reasons.values()}) == 4

    (place / "in" / "cut.png").write_bytes((place / "in" / "000.png").read_bytes())
    code, out, _ = srcli(*arguments, "--retry-failed")
    again = Counter(json.loads(line)["event"] for line in out.splitlines())
    assert (code, again["done"], again["failed"]) == (1, 1, 3)
    status = read_status(Outputs(str(place / "out")))
    assert (status.done, len(status.failed), len(merged(Outputs(str(place / "out"))))) == (8, 3, 11)


def test_status_and_verify_for_people_and_programs(srcli, place):
    arguments = ("upscale", "--files-from", "list", "-s", 2, "-o", "out/")
    assert srcli(*arguments, "--shard", "1/2")[0] == 0
    code, out, _ = srcli("batch", "status", "out", "--json")
    found = json.loads(out)
    assert (code, found["shards_begun"], found["shards"]) == (0, 1, 2)
    assert srcli(*arguments, "--shard", "2/2")[0] == 0
    code, out, _ = srcli("batch", "status", "out")
    assert "7 done, 0 failed, 0 missing of 7, 2 of 2 shards begun" in out
    assert srcli("batch", "verify", "out")[:2] == (0, "7 whole, 0 not as recorded\n")

    (place / "out" / "in" / "000.png").unlink()
    (place / "out" / "in" / "001.png").write_bytes(b"changed")
    code, out, _ = srcli("batch", "verify", "out", "--json")
    assert code == 1
    assert json.loads(out) == {
        "whole": 5,
        "flawed": [
            {"output": "in/000.png", "flaw": "is not there"},
            {"output": "in/001.png", "flaw": "is not what the batch had made"},
        ],
    }
    found = json.loads(srcli("batch", "status", "out", "--json")[1])
    assert (found["done"], found["lost"], found["missing"]) == (6, ["in/000.png"], 1)


@pytest.mark.parametrize("command", ["status", "verify"])
def test_a_folder_without_a_journal(srcli, tmp_path, command):
    code, _, err = srcli("batch", command, tmp_path)
    assert code == InputError.exit_code
    assert "no batch has written there" in err


def test_a_list_is_interrupted_and_goes_on(srcli, place):
    make_pictures(place / "in", 40, size=(60, 80))
    listed(place)
    command = [*COMMAND, "--files-from", "list", "-o", "out/"]
    process = subprocess.Popen(command, cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert subprocess.run([*command, "--resume"], cwd=place).returncode == 0
    assert srcli("upscale", "in", "-r", "-s", 2, "-o", "plain/in/")[0] == 0
    assert outputs(place / "out") == outputs(place / "plain")


@pytest.mark.slow
@pytest.mark.parametrize("bad", [0, 30])
def test_a_thousand_pictures_in_shards_that_are_killed(tmp_path, bad):
    """Eight shards, four processes at a time, each killed once at a random moment."""
    random.seed(bad)
    folder = make_pictures(tmp_path / "in", 1000, size=(20, 24))
    for number in range(bad):
        content = (folder / f"{number:03}.png").read_bytes()
        (folder / f"bad-{number}.png").write_bytes(content[: number * 5])
    listed(tmp_path)
    plain = subprocess.run([*COMMAND, "in", "-o", "plain/"], cwd=tmp_path, capture_output=True)
    assert plain.returncode == (1 if bad else 0)

    def start(number):
        shard = ["--shard", f"{number}/8", "--resume", "--threads", "1"]
        command = [*COMMAND, "--files-from", "list", "--relative-to", "in", "-o", "out/", *shard]
        return subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    left, codes = [*range(1, 9)] * 2, []  # the second time for good
    running = {}
    while left or running:
        while left and len(running) < 4:
            number = left.pop(0)
            last = number not in left
            due = None if last else time.monotonic() + random.uniform(0.3, 1.5)
            running[start(number)] = due
        for process, due in [*running.items()]:
            if process.poll() is not None:
                del running[process]
                codes.append((due, process.returncode))
            elif due is not None and time.monotonic() > due:
                process.kill()
        time.sleep(0.01)
    assert {code for due, code in codes if due is None} <= ({0, 1} if bad else {0})
    assert any(code == -signal.SIGKILL for due, code in codes)

    assert outputs(tmp_path / "out") == outputs(tmp_path / "plain")
    records, status = (
        merged(Outputs(str(tmp_path / "out"))),
        read_status(Outputs(str(tmp_path / "out"))),
    )
    assert len(records) == 1000 + bad
    assert (status.done, len(status.failed), status.missing) == (1000, bad, 0)
    assert (status.unfinished, status.shards) == (0, (8, 8))
    assert len([*records]) == len({*records})
    command = [sys.executable, "-m", "srcli", "batch", "verify", "out"]
    verified = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert verified.stdout == "1000 whole, 0 not as recorded\n"
