"""The journal: written always, resumed after anything, shared by processes, safe to read."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from support.folders import make_pictures, tree

from srcli.errors import OutputError, OutputExistsError
from srcli.jobs.journal import NAME, Journal

COMMAND = [sys.executable, "-m", "srcli", "upscale", "-s", "2"]


def leftovers(folder):
    return [path for path in folder.rglob(".srcli-*") if path.name != NAME]


def journal(root, **options):
    return Journal(root, lambda file: True, **options)


def statuses(srcli, *arguments):
    code, out, err = srcli("upscale", "-s", 2, "--json", *arguments)
    return code, [row["status"] for row in json.loads(out)["files"]], err


@pytest.mark.parametrize("between", ["nothing", "one is missing"])
def test_a_folder_is_resumed_as_the_readme_shows_it(srcli, tmp_path, between):
    """faults.md 11: the journal was written only when the first run had `--resume`."""
    source = make_pictures(tmp_path / "in", 3)
    make_pictures(source / "deep", 1)
    assert statuses(srcli, source, "-r")[:2] == (0, ["done"] * 4)
    before = tree(tmp_path)
    expected = ["skipped"] * 4
    if between != "nothing":
        (tmp_path / "in_x2" / "001.png").unlink()
        expected[1] = "done"
    assert statuses(srcli, source, "-r", "--resume")[:2] == (0, expected)
    assert tree(tmp_path) == before
    assert [file.name for file in tmp_path.rglob("*.jsonl")] == ["main.jsonl"]
    assert not leftovers(tmp_path)


def test_a_pattern_is_resumed_by_the_same_command(srcli, tmp_path, monkeypatch):
    """faults.md 11 and 25: the second `*.png` holds the outputs of the first."""
    make_pictures(tmp_path, 3)
    monkeypatch.chdir(tmp_path)
    expanded = sorted(file.name for file in tmp_path.glob("*.png"))
    assert statuses(srcli, *expanded)[1] == ["done"] * 3
    before = tree(tmp_path)
    again = sorted(file.name for file in tmp_path.glob("*.png"))
    assert len(again) == 6
    for option in ("--resume", "--skip-existing"):
        code, found, err = statuses(srcli, *again, option)
        assert (code, found) == (0, ["skipped"] * 3)
        assert "left out (the output of another input): 000_x2.png" in err
    assert statuses(srcli, "*.png", "--resume")[1] == ["skipped"] * 3
    assert tree(tmp_path) == before


def test_a_template_is_resumed(srcli, tmp_path):
    """faults.md 11 and 24."""
    source = make_pictures(tmp_path / "in", 2)
    template = f"{tmp_path}/out/{{model}}/{{stem}}_x{{scale}}{{ext}}"
    assert statuses(srcli, source, "-o", template)[1] == ["done"] * 2
    assert statuses(srcli, source, "-o", template, "--resume")[1] == ["skipped"] * 2
    assert (tmp_path / "out" / "lapar-c" / "001_x2.png").exists()


def test_a_single_picture_leaves_no_journal_beside_it(srcli, tmp_path):
    """faults.md 11: and yet it can be resumed, also as a part of a batch."""
    source = make_pictures(tmp_path / "in", 2)
    assert srcli("upscale", source / "000.png", "-s", 2)[0] == 0
    assert sorted(file.name for file in source.iterdir()) == ["000.png", "000_x2.png", "001.png"]
    assert statuses(srcli, source / "000.png", "--resume")[1] == ["skipped"]
    both = (source / "000.png", source / "001.png", "--resume")
    assert statuses(srcli, *both)[1] == ["skipped", "done"]


def interrupt(folder, arguments, sent, after):
    """Run until some lines were printed, then send a signal."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(after):
        process.stdout.readline()
    time.sleep(random.uniform(0, 0.03))
    process.send_signal(sent)
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    return process.returncode, err, time.monotonic() - began


@pytest.mark.parametrize("name", ["folder", "pattern", "inside"])
def test_interrupted_at_any_moment(srcli, tmp_path, name):
    """faults.md 11 and 14: by Ctrl-C and by kill -9; the tree is that of an undisturbed run."""
    random.seed(name)
    folders = [tmp_path / "cut", tmp_path / "whole"]
    for folder in folders:
        make_pictures(make_pictures(folder / "in", 9, size=(40, 50)) / "sub", 2)
    arguments = {
        "folder": ["in", "-r"],
        "pattern": ["in/*.png", "in/sub/*.png"],
        "inside": ["in", "-r", "-o", "in/out/"],
    }[name]
    assert subprocess.run([*COMMAND, *arguments], cwd=folders[1]).returncode == 0
    for number, sent in enumerate([signal.SIGINT, signal.SIGKILL] * 2):
        more = ["--resume"] if number else []
        code, err, _ = interrupt(folders[0], [*arguments, *more], sent, after=number % 3 + 1)
        assert "Traceback" not in err
        unfinished = tree(folders[0]) != tree(folders[1])
        if sent == signal.SIGINT and code == 130 and unfinished:
            assert "To go on: srcli upscale -s 2 " in err
            assert "--resume" in err
    done = subprocess.run([*COMMAND, *arguments, "--resume"], cwd=folders[0], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert tree(folders[0]) == tree(folders[1])
    assert not leftovers(folders[0])


def test_ctrl_c_ends_the_eight_passes_soon(tmp_path):
    """faults.md 14: it took 27 seconds, as nothing looked up between the passes."""
    make_pictures(tmp_path, 2, size=(700, 900))
    environment = [*COMMAND, "--tta", "--threads", "1", "--events", "jsonl", "000.png", "001.png"]
    process = subprocess.Popen(
        environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while json.loads(process.stdout.readline())["event"] != "started":
        pass
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - began < 20  # about 2 here; machines that test may be busy
    assert sorted(file.name for file in tmp_path.glob("[!.]*")) == ["000.png", "001.png"]
    assert not leftovers(tmp_path)


def test_processes_share_a_folder(tmp_path):
    """faults.md 12: two `--resume` runs could not; where both make a file, the slower skips it."""
    make_pictures(tmp_path / "in", 12, size=(30, 40))
    make_pictures(tmp_path / "alone" / "in", 12, size=(30, 40))
    assert subprocess.run([*COMMAND, "in"], cwd=tmp_path / "alone").returncode == 0
    started = [
        subprocess.Popen(
            [*COMMAND, "in", "--resume"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in started:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
    assert tree(tmp_path / "in_x2") == tree(tmp_path / "alone" / "in_x2")
    assert not leftovers(tmp_path)
    done = subprocess.run([*COMMAND, "in", "--resume"], cwd=tmp_path, capture_output=True)
    assert b"12 skipped" in done.stderr


def test_the_slower_process_waits_for_the_record(tmp_path):
    """faults.md 12: between the name of an output and its record lies a moment."""
    target = tmp_path / "a.png"
    with journal(tmp_path) as first, journal(tmp_path, needed=True) as second:
        first.announce(target, "input", "recipe")
        assert not second.is_done(target, "input", "recipe")
        target.write_bytes(b"whole")
        later = threading.Timer(0.2, first.finish, (target, "input", "recipe"))
        later.start()
        assert second.is_made_meanwhile(target, "input", "recipe")
        later.join()
        assert second.is_done(target, "input", "recipe")
        assert not second.is_made_meanwhile(target, "other", "recipe")
        target.write_bytes(b"somebody's")
        assert not second.is_made_meanwhile(target, "input", "recipe")


def test_what_others_append_is_read_once(tmp_path):
    """faults.md 12: also where the other process has ended, and written its file anew."""
    with journal(tmp_path) as reader:
        with journal(tmp_path) as writer:
            for index in range(3):
                target = tmp_path / f"{index}.png"
                target.write_bytes(b"%d" % index)
                writer.finish(target, "input", f"recipe {index}")
                assert reader.is_done(target, "input", f"recipe {index}")
            target.write_bytes(b"new")
            writer.finish(target, "input", "recipe 3")
            assert reader.is_done(target, "input", "recipe 3")
        assert reader.is_done(tmp_path / "0.png", "input", "recipe 0")
        with pytest.raises(OutputExistsError, match="changed"):
            (tmp_path / "1.png").write_bytes(b"somebody's")
            reader.is_done(tmp_path / "1.png", "input", "recipe 1")


NO_JOURNALS = {
    "pipe": os.mkfifo if hasattr(os, "mkfifo") else None,
    "folder": lambda file: file.mkdir(),
    "link": lambda file: file.symlink_to(file.parent.parent.parent / "mine"),
    "dangling link": lambda file: file.symlink_to("nowhere"),
    "link to itself": lambda file: file.symlink_to(file.name),
}


@pytest.mark.skipif(os.name == "nt", reason="needs pipes and links")
@pytest.mark.parametrize("name", ["main.jsonl", "other.jsonl"])
@pytest.mark.parametrize("kind", NO_JOURNALS)
def test_what_is_no_journal(srcli, tmp_path, kind, name):
    """faults.md 38: a FIFO hung, a link was written through; a batch needs no journal to go on."""
    source = make_pictures(tmp_path / "in", 2)
    (tmp_path / "mine").write_text("mine")
    file = tmp_path / "in_x2" / NAME / name
    file.parent.mkdir(parents=True)
    NO_JOURNALS[kind](file)
    code, found, err = statuses(srcli, source)
    assert (code, found) == (0, ["done"] * 2)
    assert err.count("is no journal") == 1
    assert "The batch goes on" in err
    code, _, err = srcli("upscale", source, "-s", 2, "--resume")
    assert code == 1
    assert f"{name}: is no journal. Move it away" in err
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (file.parent / "nowhere").exists()


@pytest.mark.parametrize("taken", ["file", "locked"])
def test_a_journal_that_cannot_be_written(srcli, tmp_path, monkeypatch, taken):
    """faults.md 38: it ended the batch after 36 of 285."""
    source = make_pictures(tmp_path / "in", 3)
    if taken == "file":
        (tmp_path / "in_x2").mkdir()
        (tmp_path / "in_x2" / NAME).write_text("in the way")
    else:
        from srcli.jobs import journal as module

        def fail(descriptor, line):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module, "write_all", fail)
    code, found, err = statuses(srcli, source)
    assert (code, found) == (0, ["done"] * 3)
    assert err.count("the journal cannot be written") == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-30],
        lambda content: content + b'{"output": "003.png", "inp',
        lambda content: content + b"[" * 100_000 + b"\n",
        lambda content: content + b"\0\xff\xfe\n[]\n3\n{}\n" + b'{"output": 3, "recipe": {}}\n',
        lambda content: b"\xef\xbb\xbf" + content,
    ],
    ids=["cut", "announced", "deep", "noise", "mark"],
)
def test_damaged_lines_are_left_out(srcli, tmp_path, damage):
    """faults.md 38: the cut last line of a journal was glued to the next."""
    source = make_pictures(tmp_path / "in", 3)
    assert statuses(srcli, source)[1] == ["done"] * 3
    file = tmp_path / "in_x2" / NAME / "main.jsonl"
    file.write_bytes(damage(file.read_bytes()))
    make_pictures(source, 5)
    _, found, err = statuses(srcli, source, "--resume")
    assert "Traceback" not in err
    assert found.count("skipped") >= 2
    assert found[3:] == ["done"] * 2
    lost = found.index("failed") if "failed" in found else None
    if lost is not None:  # nobody knows who made it
        (tmp_path / "in_x2" / f"{lost:03}.png").unlink()
    assert statuses(srcli, source, "--resume")[0] == 0
    for line in file.read_bytes().splitlines():
        assert json.loads(line)["output"].endswith(".png")


def test_a_link_that_leads_nowhere_is_somebodys(srcli, tmp_path):
    """faults.md 8: resuming replaced it."""
    source = make_pictures(tmp_path / "in", 2)
    (tmp_path / "in_x2").mkdir()
    link = tmp_path / "in_x2" / "001.png"
    link.symlink_to("nowhere.png")
    assert statuses(srcli, source, "--resume")[1] == ["done", "failed"]
    assert link.is_symlink()


def test_finished_work_needs_no_permission(srcli, tmp_path, monkeypatch):
    """faults.md 11: what is done in a folder that may not be written to is skipped."""
    source = make_pictures(tmp_path / "in", 2)
    assert statuses(srcli, source)[1] == ["done"] * 2
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode & os.W_OK == 0 and real(path, mode))
    for option in ("--resume", "--skip-existing"):
        assert statuses(srcli, source, option)[:2] == (0, ["skipped"] * 2)
    (tmp_path / "in_x2" / "000.png").unlink()
    code, found, err = statuses(srcli, source, "--resume")
    assert (code, found) == (1, ["failed", "skipped"])
    assert "may not be written to" in err


def test_only_a_needed_journal_is_refused(tmp_path):
    """faults.md 38."""
    (tmp_path / NAME / "main.jsonl").mkdir(parents=True)
    told = []
    with journal(tmp_path, note=told.append):
        assert len(told) == 1
    with pytest.raises(OutputError, match="is no journal"), journal(tmp_path, needed=True):
        pass
    assert not list((tmp_path / NAME).glob("*.lock"))
