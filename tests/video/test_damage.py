"""Damaged files end with a line that says what to do, or with a whole result."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from support.clips import clip, decoded
from support.damage import damaged

from srcli.video import files

pytestmark = pytest.mark.services
pytest.importorskip("av", reason="needs PyAV")


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    monkeypatch.setattr(files, "SEGMENT_SECONDS", 0.4)


def frames_in(path):
    """The number of frames that another program decodes, and what it says of errors."""
    shown = ["-count_frames", "-select_streams", "v", "-show_entries", "stream=nb_read_frames"]
    command = ["ffprobe", "-v", "error", *shown, "-of", "json", path]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(json.loads(found.stdout)["streams"][0]["nb_read_frames"]), found.stderr


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_damaged_files(srcli, programs, tmp_path, suffix):
    source = tmp_path / f"in.{suffix}"
    clip(source, codec="libx264", size=(64, 48), times=range(0, 2400, 40), options={"bf": "2"})
    said, kept = {}, 0
    for number, (name, content) in enumerate(damaged(source.read_bytes(), suffix)):
        broken, target = tmp_path / f"{number} {name}.{suffix}", tmp_path / f"{number}.mkv"
        broken.write_bytes(content)
        code, out, err = srcli("video", broken, "-o", target, "--codec", "ffv1")
        if code == 0:
            said[name] = out
            count, errors = frames_in(target)
            assert f"{target}  {count} frames" in out and not errors, name
            assert count == 60 or f"note: {broken}: " in err, name
        else:
            said[name] = err.splitlines()[-1]
            assert code == 1 and not target.exists(), name
            assert str(broken) in err.splitlines()[-1], name
            assert "Traceback" not in err
            kept += any(tmp_path.glob(f"{number}.mkv.segments/*.segment"))
    assert len(said) == 20
    assert kept, "the segments before the damage stay"
    assert not [*tmp_path.glob("**/*.partial*")]


@pytest.fixture
def programs():
    if shutil.which("ffprobe") is None:
        pytest.skip("needs ffprobe")


def test_the_whole_file_in_place_of_the_damaged_one(srcli, tmp_path):
    """Its segments are made anew, and the result is that of an undisturbed run."""
    source, whole, target = (tmp_path / name for name in ("in.mp4", "whole.mkv", "out.mkv"))
    clip(source, codec="libx264", size=(64, 48), times=range(0, 2400, 40))
    content = source.read_bytes()
    assert srcli("video", source, "-o", whole, "--codec", "ffv1")[0] == 0
    source.write_bytes(dict(damaged(content, "mp4"))["hole"])
    command = ("video", source, "-o", target, "--codec", "ffv1")
    code, _, err = srcli(*command)
    assert code == 1 and "is damaged at " in err and "Finished segments stay in " in err
    kept = [*tmp_path.glob("out.mkv.segments/*.segment")]
    assert kept and not target.exists()
    source.write_bytes(content)
    code, _, err = srcli(*command, "--resume")
    assert code == 0, err
    found, wanted = decoded(target), decoded(whole)
    assert [time for _, time in found] == [time for _, time in wanted] and len(found) == 60
    assert all(all(map(np.array_equal, a, b)) for (a, _), (b, _) in zip(found, wanted, strict=True))
