"""What is found where the user points, and what is left out and said so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from srcli.errors import InputError, UsageError
from srcli.jobs.finding import LeftOut, find, told


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "deep/b.png", "deep/er/c.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4), "teal").save(tmp_path / "in" / name)
    return tmp_path / "in"


def found(*inputs, recursive=True, output=None):
    result = find([str(text) for text in inputs], recursive=recursive, output=output)
    return [entry.source.name for entry in result.inputs], result.left_out


@pytest.mark.skipif(os.name == "nt", reason="needs permissions of POSIX")
def test_a_folder_that_cannot_be_read_is_an_error(srcli, folder, monkeypatch):
    """faults.md 10: it was left out in silence, "2 done", exit 0."""
    real = os.scandir

    def scandir(path):
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    code, out, err = srcli("upscale", folder, "-r", "-s", 2, "--json")
    assert code == 1
    assert [row["status"] for row in json.loads(out)["files"]] == ["done", "failed"]
    assert f"{folder / 'deep'}: this folder cannot be read (Permission denied)" in err
    code, _, err = srcli("upscale", folder, "-r", "-s", 2, "--resume")
    assert (code, "1 skipped, 1 failed" in err) == (1, True)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
@pytest.mark.parametrize("mode", [0o000, 0o100, 0o400])
def test_permissions_of_the_system(folder, mode):
    """faults.md 10 and 19: no traceback, whatever may not be looked at; without root's rights."""
    command = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"] if os.geteuid() == 0 else []
    command += [sys.executable, "-m", "srcli", "upscale", "-s", "2"]
    inside = folder / "deep" / "b.png"
    (folder / "deep").chmod(mode)
    try:
        for inputs in ([folder, "-r"], [inside], [folder / "deep"], [f"{folder}/deep/*.png"]):
            done = subprocess.run([*command, *inputs, "-o", f"{folder}/out/"], capture_output=True)
            reached = mode == 0o100 and inputs == [inside]
            assert done.returncode == (0 if reached else 1), done.stderr
            assert b"Traceback" not in done.stderr
            shutil.rmtree(folder / "out", ignore_errors=True)
    finally:
        (folder / "deep").chmod(0o700)


def test_what_is_left_out_is_said(srcli, folder):
    """faults.md 10: other formats, links that lead out, folders; in `--json` too."""
    for name in ("x.psd", "y.jxl", "z.psd", "w.psd", "notes.txt", ".hidden.png"):
        (folder / name).write_text("x")
    outside = folder.parent / "outside.png"
    Image.new("RGB", (5, 4)).save(outside)
    (folder / "link.png").symlink_to(outside)
    (folder / "tree").symlink_to(folder.parent)
    code, out, err = srcli("upscale", folder, "-s", 2, "--json")
    assert code == 0
    reasons = {Path(e["path"]).name: e["reason"] for e in json.loads(out)["left_out"]}
    assert set(reasons) == {"x.psd", "y.jxl", "z.psd", "w.psd", "link.png", "tree", "deep"}
    assert "-r was not given" in reasons["deep"]
    assert "leads out" in reasons["link.png"]
    assert "a link to a folder" in reasons["tree"]
    (line,) = [line for line in err.splitlines() if "a format that is not read" in line]
    assert line.endswith("and 1 more")
    assert "notes.txt" not in err
    _, left_out = found(folder)
    assert "deep" not in {entry.path.name for entry in left_out}


def test_links_inside_are_followed_once(folder):
    """faults.md 10."""
    (folder / "same.png").symlink_to("deep/b.png")
    assert found(folder)[0] == ["a.png", "same.png", "b.png", "c.png"]


def test_a_link_to_itself_fails_alone(srcli, folder):
    """faults.md 19: it was a traceback, and ended the batch."""
    (folder / "round.png").symlink_to("round.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    code, out, err = srcli("upscale", folder, "-r", "-s", 2, "--json")
    assert (code, "Traceback" in err) == (1, False)
    rows = {Path(row["input"]).name: row["status"] for row in json.loads(out)["files"]}
    assert rows == {
        **{"a.png": "done", "b.png": "done", "c.png": "done"},
        **{"round.png": "failed", "gone.png": "failed"},
    }
    code, _, err = srcli("upscale", folder / "round.png", "-s", 2)
    assert (code, err.startswith(f"error: {folder / 'round.png'}: ")) == (1, True)


def test_a_name_that_is_too_long_fails_alone(srcli, folder):
    """faults.md 19."""
    name = "n" * 300 + ".png"
    code, out, err = srcli("upscale", name, folder / "a.png", "-s", 2, "--json")
    assert code == 1
    assert [row["status"] for row in json.loads(out)["files"]] == ["failed", "done"]
    assert "too long" in err


@pytest.mark.parametrize("name", ["br[a]ck", "a*b", "what?", "[!x]"])
def test_patterns_in_folders_with_brackets(folder, name):
    """faults.md 24: brackets of a folder that exists are only letters."""
    if os.name == "nt" and set(name) & set("*?"):
        pytest.skip("no such names here")
    odd = folder.parent / name
    folder.rename(odd)
    assert found(f"{odd}/*.png")[0] == ["a.png"]
    assert found(f"{odd}/**/*.png")[0] == ["a.png", "b.png", "c.png"]
    assert found(f"{odd}/*/er/[c].png")[0] == ["c.png"]
    Image.new("RGB", (4, 4)).save(odd / "x[1].png")
    assert found(f"{odd}/x[1].png")[0] == ["x[1].png"]


def test_the_folder_of_outputs_holds_no_inputs(folder, monkeypatch):
    """faults.md 25: however either is written."""
    (folder / "out").mkdir()
    shutil.copy(folder / "a.png", folder / "out" / "a.png")
    monkeypatch.chdir(folder / "deep")
    for inside, output in ((folder, folder / "out"), ("..", "../out/"), ("..", folder / "out")):
        assert found(inside, output=str(output))[0] == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("inside", [".", ".."])
def test_this_folder_and_the_one_above(srcli, folder, monkeypatch, inside):
    """faults.md 24: outputs lie beside the folder, in one called like it."""
    monkeypatch.chdir(folder if inside == "." else folder / "deep")
    assert srcli("upscale", inside, "-s", 2)[0] == 0
    with Image.open(folder.parent / "in_x2" / "a.png") as picture:
        assert picture.size == (10, 8)


def test_nothing_found_says_where_more_may_be(folder):
    """faults.md 10."""
    (folder / "a.png").unlink()
    with pytest.raises(InputError, match="Add -r"):
        found(folder, recursive=False)
    with pytest.raises(UsageError, match="once"):
        found("-", "-")


def test_few_names_are_told():
    """faults.md 10: a line for each reason."""
    many = [LeftOut(f"{index}.gif", "why") for index in range(9)]
    assert list(told(many)) == ["left out (why): 0.gif, 1.gif, 2.gif and 6 more"]
    assert list(told([])) == []
