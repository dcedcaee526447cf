"""What programs and people are told while a batch runs: events, progress, quiet, notes."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from srcli import console

FIELDS = {
    "input",
    "output",
    "input_size",
    "output_size",
    "scale",
    "steps",
    "exists",
    "error",
    "notes",
}


@pytest.fixture
def source(tmp_path):
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 255, (10, 12, 3), np.uint8)
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(noise).save(tmp_path / "in" / f"{index}.png")
    (tmp_path / "in" / "bad.png").write_text("no picture")
    (tmp_path / "in" / "x.psd").write_text("no picture")
    return tmp_path / "in"


@pytest.fixture(autouse=True)
def normal_level():
    yield
    console.set_level(console.Level.NORMAL)


def events(out):
    return [json.loads(line) for line in out.splitlines()]


def test_one_line_for_each_event(srcli, source):
    """faults.md 27: `--json` was one document at the end."""
    code, out, err = srcli("upscale", source, "-s", 2, "--events", "jsonl")
    assert code == 1, err
    told = events(out)
    kinds = [event["event"] for event in told]
    assert kinds[:5] == ["planned"] * 4 + ["left_out"]
    assert kinds.count("started") == kinds.count("done") == 3
    assert kinds.count("failed") == 1
    assert told[-1] == {"event": "summary", "done": 3, "skipped": 0, "failed": 1, "left_out": 1}
    for event in told:
        if event["event"] == "planned":
            assert event.keys() == FIELDS | {"event"}
        if event["event"] in ("done", "failed"):
            assert event.keys() == FIELDS | {"event", "status", "seconds"}
    for name in ("0.png", "1.png", "2.png"):
        own = [event["event"] for event in told if event.get("input") == str(source / name)]
        assert own == ["planned", "started", "done"]
    (done,) = [e for e in told if e["event"] == "done" and e["input"] == str(source / "1.png")]
    with Image.open(done["output"]) as picture:
        assert list(picture.size) == done["output_size"] == [24, 20]


def test_events_of_what_is_skipped(srcli, source):
    """faults.md 27."""
    srcli("upscale", source, "-s", 2)
    for option in ("--resume", "--skip-existing"):
        _, out, _ = srcli("upscale", source, "-s", 2, "--events", "jsonl", option)
        kinds = [event["event"] for event in events(out)]
        assert kinds.count("skipped") == 3
        assert "started" not in kinds
        assert events(out)[-1]["skipped"] == 3


def test_events_of_a_plan(srcli, source):
    """faults.md 27: `--dry-run` says what would be done, and does nothing."""
    code, out, _ = srcli("upscale", source, "-s", 2, "--events", "jsonl", "--dry-run")
    assert code == 1
    assert [event["event"] for event in events(out)] == ["planned"] * 4 + ["left_out"]
    assert not source.with_name("in_x2").exists()


@pytest.mark.parametrize("option", [("--events", "jsonl"), ("--json",)])
@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_single_picture_that_fails_at_its_header(srcli, source, option, more):
    """faults.md 18: `--json` printed nothing."""
    code, out, err = srcli("upscale", source / "bad.png", "-s", 2, *option, *more)
    assert code == 1
    rows = json.loads(out)["files"] if option == ("--json",) else events(out)
    assert rows[0]["input"] == str(source / "bad.png")
    assert "not a picture" in rows[0]["error"]
    assert more or "error: " in err


def test_events_and_json_do_not_mix(srcli, source):
    """faults.md 27."""
    code, out, err = srcli("upscale", source, "-s", 2, "--events", "jsonl", "--json")
    assert (code, out, "share standard output" in err) == (2, "", True)
    code, out, err = srcli("upscale", source / "0.png", "-o", "-", "--events", "jsonl")
    assert (code, out, "share standard output" in err) == (2, "", True)


def test_events_come_while_the_batch_runs(source):
    """faults.md 27: a line of each thread is a line of its own, and comes at once."""
    for index in range(3, 30):
        Image.new("RGB", (40, 30), (index, 9, 9)).save(source / f"{index}.png")
    command = [sys.executable, "-m", "srcli", "upscale", "in", "-s", "2", "--events", "jsonl"]
    process = subprocess.Popen(
        command, cwd=source.parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with process:
        told = [json.loads(line)["event"] for line in process.stdout]
    assert told.count("started") == told.count("done") == 30
    assert told.index("done") < len(told) - told[::-1].index("started") - 1


def test_quiet_says_nothing_but_errors(srcli, source):
    """faults.md 27: there was no `-q`."""
    code, out, err = srcli("upscale", source, "-s", 2, "-q")
    assert (code, out) == (1, "")
    (line,) = err.splitlines()
    assert line.startswith(f"error: {source / 'bad.png'}: ")
    assert len(list(source.with_name("in_x2").glob("*.png"))) == 3
    code, out, _ = srcli("upscale", source, "-s", 2, "-q", "--json", "--overwrite")
    assert len(json.loads(out)["files"]) == 4


def test_verbose_says_how(srcli, source):
    """faults.md 24: `-v`."""
    assert "MB" in srcli("upscale", source / "0.png", "-s", 2, "-v")[2]


def test_progress_off_a_terminal(srcli, source, monkeypatch):
    """faults.md 27: no line between the first and the last, however long the work took."""
    monkeypatch.setattr(console, "EVERY", 0.0)
    _, _, err = srcli("upscale", source, "-s", 2)
    lines = [line for line in err.splitlines() if "% done" in line]
    assert lines
    assert lines[0].startswith("1/4 ")
    assert any("about 0:00:0" in line and line.endswith(" left") for line in lines)
    monkeypatch.setattr(console, "EVERY", 10.0)
    assert "% done" not in srcli("upscale", source, "-s", 2, "--overwrite")[2]


@pytest.mark.parametrize(
    ("done", "seconds", "said"),
    [(0, 5.0, "0% done"), (1, 5.0, "25% done, about 0:00:15 left"), (4, 9.0, "100% done")],
)
def test_time_left(done, seconds, said):
    """faults.md 27."""
    assert console._how_far(done, 4, seconds).startswith(said)


def test_notes_that_say_the_same_are_counted(srcli, tmp_path):
    """faults.md 10: a line for each of thousands of files tells nobody anything."""
    (tmp_path / "in").mkdir()
    for index in range(7):
        Image.new("RGB", (5, 4)).save(tmp_path / "in" / f"{index}.png")
    code, _, err = srcli("upscale", tmp_path / "in", "-s", 1.5)
    assert code == 0
    lines = [line for line in err.splitlines() if "enlarged by 2, then resampled" in line]
    assert len(lines) == 4
    assert lines[-1].endswith("(4 more files)")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain ü 写真 🙂", "plain ü 写真 🙂"),
        ("esc\x1b[31m\x9b", "esc\\x1b[31m\\x9b"),
        ("two\nlines\r", "two\\nlines\\r"),
        ("\u202eover", "\\u202eover"),
        ("10.00\u202fAM 👨\u200d👩", "10.00\u202fAM 👨\u200d👩"),
        ("\udcff", "\\udcff"),
    ],
)
def test_texts_command_no_terminal(text, expected):
    """faults.md 42."""
    assert console.shown(text) == expected


def test_the_bar_has_a_name_and_the_time_left():
    """faults.md 27: on a terminal, from the first report; a long path keeps its end."""
    from rich.console import Console
    from rich.progress import Progress

    terminal = Console(width=80, force_terminal=True, file=io.StringIO())
    with Progress(console=terminal) as progress:
        bar = console.Bar(progress)
        (task,) = progress.tasks
        assert task.fields["left"] == console.UNKNOWN
        bar.show("1/2 a.png", 0, 1)
        assert (task.description, task.fields["left"]) == ("1/2 a.png", console.UNKNOWN)
        bar.show("1/2 folder/of/a/long/name/holiday.png", 1, 4)
        assert len(task.description) == 24
        assert task.description.startswith("1/2 fo…")
        assert task.description.endswith("holiday.png")
        assert task.fields["left"].startswith("0:00:0")
        assert task.percentage == 25


@pytest.mark.parametrize("columns", [80, 160])
def test_help_in_sections(monkeypatch, columns):
    """faults.md 28: 81 flat lines, whatever the terminal."""
    monkeypatch.setenv("COLUMNS", str(columns))
    for command in ("upscale", "denoise"):
        command_line = [sys.executable, "-m", "srcli", command, "--help"]
        out = subprocess.run(command_line, capture_output=True, text=True).stdout
        titles = [line for line in out.splitlines() if line.endswith(":") and line[0] != " "]
        assert titles[-2:] == ["Messages:", "Other:"]
        assert {"Inputs and outputs:", "Model:", "Running:", "Files:"} <= set(titles)
        assert max(map(len, out.splitlines())) <= min(columns, 120)
        assert "INPUT..." not in out.partition("Inputs and outputs:")[2]


def test_quiet_is_for_one_command(srcli, tmp_path, photograph):
    """faults.md 27: in one process, `-q` of one command does not silence the next."""
    Image.fromarray(photograph[:8, :8]).save(tmp_path / "in.png")
    quiet = srcli("upscale", tmp_path / "in.png", "-s", 2, "-o", tmp_path / "a.png", "-q")
    assert quiet == (0, "", "")
    _, out, err = srcli("upscale", tmp_path / "in.png", "-s", 2, "-o", tmp_path / "b.png")
    assert "b.png" in out
    assert "native" in err or "with" in err


def test_a_narrow_terminal_cuts_no_number(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setenv("COLUMNS", "40")
    names = [letter * 9 for letter in "abcdef"]
    console.table(names, [["31.23456789"] * 6])
    out = capsys.readouterr().out
    assert "…" not in out
    assert len(re.findall(r"9", out)) == 6
