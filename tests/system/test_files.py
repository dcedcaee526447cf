"""Files that appear whole or not at all, never in the place of another, and as their owner's."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srcli.errors import OutputError, OutputExistsError
from srcli.images.spool import RowSpool
from srcli.system import files
from srcli.system.files import atomic_path, check_place, leftovers, temporary_name

POSIX = pytest.mark.skipif(os.name == "nt", reason="needs permissions of POSIX")


def mode_of(file):
    return stat.S_IMODE(file.stat().st_mode)


@pytest.fixture(params=[None, errno.EPERM, errno.ENOTSUP, errno.EACCES], ids=str)
def links(request, monkeypatch):
    """Hard links, or a file system without them."""

    def link(source, target):
        raise OSError(request.param, os.strerror(request.param))

    if request.param is not None:
        monkeypatch.setattr(os, "link", link)
    return request.param


def test_a_name_is_given_without_replacing(tmp_path, links):
    """faults.md 8: a file that appeared meanwhile was replaced; also where there are no links."""
    target = tmp_path / "out.png"
    with atomic_path(target, replace=False) as partial:
        partial.write_bytes(b"ours")
        assert not target.exists()
    assert target.read_bytes() == b"ours"
    with (
        pytest.raises(OutputExistsError, match=r"out\.png: another program made this file"),
        atomic_path(target, replace=False) as partial,
    ):
        partial.write_bytes(b"later")
    assert target.read_bytes() == b"ours"
    assert [file.name for file in tmp_path.iterdir()] == ["out.png"]


def test_links_that_lead_nowhere_are_names_too(tmp_path, links):
    """faults.md 8."""
    (tmp_path / "out.png").symlink_to("nowhere")
    with (
        pytest.raises(OutputExistsError),
        atomic_path(tmp_path / "out.png", replace=False) as partial,
    ):
        partial.write_bytes(b"ours")
    assert (tmp_path / "out.png").is_symlink()
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.ENAMETOOLONG])
def test_a_full_disk_is_no_reason_for_the_other_way(tmp_path, monkeypatch, code):
    """faults.md 8 and 20: nothing is left under the name, and the advice fits the reason."""

    def link(source, target):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    with (
        pytest.raises(OutputError) as caught,
        atomic_path(tmp_path / "a.png", replace=False) as partial,
    ):
        partial.write_bytes(b"x")
    assert ("Free some space" in str(caught.value)) == (code == errno.ENOSPC)
    assert not list(tmp_path.iterdir())


def test_an_interruption_right_after_the_file_was_made(tmp_path, monkeypatch):
    """It was made and not yet noted, so nobody removed it."""
    create = files._create

    def interrupted(partial, target):
        create(partial, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "_create", interrupted)
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a.png"):
        pytest.fail("is never reached")
    assert not list(tmp_path.iterdir())


def test_an_interruption_while_a_name_is_taken(tmp_path, links, monkeypatch):
    """Where there are no links the name is taken by an empty file first."""

    def interrupted(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    if links is None:
        pytest.skip("a link takes the name and the content at once")
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "a.png", replace=False) as part:
        part.write_bytes(b"x")
    assert not list(tmp_path.iterdir())


def test_an_interruption_right_after_a_spool_was_made(tmp_path, monkeypatch):
    """The process that ends then removes it."""
    path = tmp_path / temporary_name(".tif")
    opened = Path.open

    def interrupted(self, *mode):
        opened(self, *mode).close()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "open", interrupted)
    with pytest.raises(KeyboardInterrupt):
        RowSpool(path, 4, 4, 3, 8)
    monkeypatch.undo()
    assert path.exists()
    files.discard_unfinished()
    assert not path.exists()
    files.end(path)


def test_a_spool_that_cannot_be_made_is_not_noted(tmp_path):
    """It is somebody else's file."""
    path = tmp_path / "theirs.tif"
    path.write_bytes(b"theirs")
    with pytest.raises(FileExistsError):
        RowSpool(path, 4, 4, 3, 8)
    files.discard_unfinished()
    assert path.read_bytes() == b"theirs"


def picture(file, seed=1, size=(40, 50)):
    file.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(noise).save(file)
    return file


def test_a_file_that_appears_during_the_run(srcli, tmp_path, monkeypatch):
    """faults.md 8: it was replaced without `--overwrite`; by strips too."""
    from srcli.pipeline.restorer import Restorer

    picture(tmp_path / "in.png")
    target = tmp_path / "out.png"
    original = Restorer._raw_strips

    def meanwhile(self, *rest):
        target.write_bytes(b"somebody's")
        return original(self, *rest)

    monkeypatch.setattr(Restorer, "_raw_strips", meanwhile)
    for memory in ("1G", "1M"):
        target.unlink(missing_ok=True)
        arguments = ("upscale", tmp_path / "in.png", "-s", 2, "-o", target, "--memory", memory)
        code, _, err = srcli(*arguments)
        assert (code, "another program made this file meanwhile" in err) == (2, True)
        assert target.read_bytes() == b"somebody's"
        assert srcli(*arguments, "--overwrite")[0] == 0
        with Image.open(target) as result:
            assert result.size == (100, 80)
    assert not list(tmp_path.glob(".srcli-*"))


def test_two_processes_and_one_output(tmp_path):
    """faults.md 8: both exited with 0."""
    picture(tmp_path / "in.png")
    command = [sys.executable, "-m", "srcli", "upscale", "in.png", "-o", "out.png", "-s", "2"]
    started = [
        subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    errors = [process.communicate(timeout=120)[1] for process in started]
    codes = sorted(process.returncode for process in started)
    assert codes == [0, 2, 2], errors
    with Image.open(tmp_path / "out.png") as result:
        result.load()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["in.png", "out.png"]


@POSIX
@pytest.mark.parametrize("mode", [0o640, 0o600, 0o664, 0o444])
def test_replacing_keeps_the_mode(srcli, tmp_path, mode):
    """faults.md 42: `--overwrite` turned 640 into 644."""
    target = picture(tmp_path / "out.png")
    target.chmod(mode)
    picture(tmp_path / "in.png", 2)
    before = target.read_bytes()
    assert srcli("upscale", tmp_path / "in.png", "-s", 2, "-o", target, "--overwrite")[0] == 0
    assert mode_of(target) == mode
    assert target.read_bytes() != before


@POSIX
@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="only root gives files away")
def test_replacing_keeps_the_owner(srcli, tmp_path):
    """faults.md 42: the owner became root."""
    target = picture(tmp_path / "out.png")
    os.chown(target, 12345, 23456)
    target.chmod(0o640)
    picture(tmp_path / "in.png", 2)
    assert srcli("upscale", tmp_path / "in.png", "-s", 2, "-o", target, "--overwrite")[0] == 0
    found = target.stat()
    assert (found.st_uid, found.st_gid, mode_of(target)) == (12345, 23456, 0o640)


@POSIX
def test_new_files_have_the_mode_of_the_user(srcli, tmp_path):
    """faults.md 42."""
    picture(tmp_path / "in.png")
    before = os.umask(0o027)
    try:
        assert srcli("upscale", tmp_path / "in.png", "-s", 2)[0] == 0
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "in_x2.png") == 0o640


@POSIX
@pytest.mark.parametrize("memory", ["1G", "1M"])
def test_time_and_mode_are_preserved(srcli, tmp_path, memory):
    """faults.md 30: `--preserve`; without it the time is now."""
    source = picture(tmp_path / "in.png")
    source.chmod(0o604)
    os.utime(source, ns=(10**18, 1_234_567_890_123_456_789))
    common = ("upscale", source, "-s", 2, "--memory", memory)
    assert srcli(*common, "--preserve")[0] == 0
    kept = tmp_path / "in_x2.png"
    assert (kept.stat().st_mtime_ns, mode_of(kept)) == (1_234_567_890_123_456_789, 0o604)
    assert srcli(*common, "-o", tmp_path / "b.png")[0] == 0
    assert abs((tmp_path / "b.png").stat().st_mtime - time.time()) < 600
    assert srcli(*common, "--preserve", "--resume")[0] == 0
    assert mode_of(kept) == 0o604


def name_of_a_killed_process(suffix):
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    return temporary_name(suffix).replace(f"-{os.getpid()}-", f"-{killed.pid}-")


def test_leftovers_of_killed_processes_go_at_the_next_run(srcli, tmp_path):
    """faults.md 42: they stayed for ever unless `--resume` followed."""
    name = name_of_a_killed_process(".png")
    picture(tmp_path / "in.png")
    for folder in (tmp_path, tmp_path / "out"):
        folder.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"half")
        (folder / ".srcli-notes").write_bytes(b"mine")
    assert srcli("upscale", tmp_path / "in.png", "-s", 2, "-o", f"{tmp_path}/out/")[0] == 0
    assert not (tmp_path / "out" / name).exists()
    assert (tmp_path / name).exists()  # nothing is written there
    assert (tmp_path / "out" / ".srcli-notes").exists()


@pytest.mark.parametrize("resume", [[], ["--resume"]])
def test_leftovers_in_the_journal_go_too(srcli, tmp_path, resume):
    """Killed while it wrote its journal anew; with --resume nothing else is written."""
    for name in ("a.png", "b.png"):  # a single one has its journal in the cache
        picture(tmp_path / "in" / name)
    assert srcli("upscale", tmp_path / "in", "-s", 2)[0] == 0
    folder = tmp_path / "in_x2" / ".srcli-journal"
    before = sorted(folder.iterdir())
    (folder / name_of_a_killed_process(".jsonl")).write_bytes(b'{"half')
    assert srcli("upscale", tmp_path / "in", "-s", 2, *(resume or ["--overwrite"]))[0] == 0
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    "command",
    [
        ["filters", "--dictionary", "-o", "place/file.png"],
        ["export", "-m", "lapar-c", "-s", 2, "-o", "place/file.onnx"],
        ["upscale", "in.png", "-s", 2, "-o", "place/file.png"],
    ],
    ids=lambda command: command[0],
)
def test_whatever_writes_a_file_removes_leftovers_beside_it(srcli, tmp_path, monkeypatch, command):
    """Not batches alone: every command that was killed may have left one."""
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "in.png")
    (tmp_path / "place").mkdir()
    left = tmp_path / "place" / name_of_a_killed_process(".onnx")
    left.write_bytes(b"half")
    assert srcli(*command)[0] == 0
    assert not left.exists()


def test_leftovers_that_go_meanwhile(tmp_path, monkeypatch):
    """faults.md 42: the other process finishes its file between the look and the next."""
    monkeypatch.setattr(files, "_listed", lambda folder: [folder / temporary_name(".png")])
    assert leftovers([tmp_path]) == []


def test_leftovers_that_may_not_be_removed(srcli, tmp_path, monkeypatch):
    """faults.md 42: another user's, in a folder that many may write to."""
    picture(tmp_path / "in.png")
    monkeypatch.setattr(files, "leftovers", lambda folders: [tmp_path])  # unlinking it fails
    assert srcli("upscale", tmp_path / "in.png", "-s", 2)[0] == 0


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch, code):
    """faults.md 20."""

    def fail(file):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "_flush", fail)
    with (
        pytest.raises(OutputError, match=r"a\.png: cannot be written"),
        atomic_path(tmp_path / "a.png") as partial,
    ):
        partial.write_bytes(b"x")
    assert not list(tmp_path.iterdir())


def test_places_are_checked_without_a_trace(tmp_path):
    """faults.md 20."""
    check_place(tmp_path / "new" / "deep" / "a.png")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("x")
    for place, reason in {
        tmp_path / "file" / "a.png": "is a file, not a folder",
        tmp_path / ("n" * 300): "the name has 300 bytes",
        tmp_path / ("ü" * 200): "the name has 400 bytes",
        tmp_path: "it is a folder",
    }.items():
        with pytest.raises(OSError, match=reason):
            check_place(place)
