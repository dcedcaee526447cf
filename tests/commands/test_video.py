"""`srcli video` with streams of Y4M: files, pipes, and how it ends."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from srcli.video.layout import Layout
from srcli.video.y4m import Frame, Reader, Writer, parsed

SRCLI = [sys.executable, "-m", "srcli"]


def stream_of(frames, color="C420mpeg2", interlacing="p", size=(24, 16)):
    """A Y4M stream of moving ramps, as bytes."""
    width, height = size
    line = f"YUV4MPEG2 W{width} H{height} F25:1 I{interlacing} A1:1 {color}"
    header = parsed(line.replace("It", "Ip").encode())
    rows, columns = np.mgrid[:height, :width]

    class Kept:
        def __init__(self):
            self.content = b""

        def write(self, content):
            self.content += bytes(content)
            return len(content)

    kept = Kept()
    writer = Writer(kept, header)
    for number in range(frames):
        values = (60 + 4 * rows + 3 * columns + 5 * number) << header.layout.bits - 8
        planes = [values[:h, :w].astype(header.layout.dtype) for h, w in header.layout.shapes]
        writer.write(Frame(planes, b" Ippp"))
    return kept.content.replace(b" Ip ", f" I{interlacing} ".encode(), 1)


def read(path):
    with path.open("rb", buffering=0) as opened:
        reader = Reader(opened, path.name)
        return reader.header, list(reader.frames())


@pytest.mark.parametrize("color", ["C420jpeg", "C422p10", "C444", "Cmono"])
def test_a_file_is_enlarged(srcli, tmp_path, color):
    (tmp_path / "in.y4m").write_bytes(stream_of(3, color))
    out = tmp_path / "out.y4m"
    code, stdout, said = srcli("video", tmp_path / "in.y4m", "-o", out, "-m", "lapar-c", "-s", 2)
    assert (code, stdout) == (0, ""), said
    header, frames = read(out)
    assert header.layout == parsed(stream_of(0, color).splitlines()[0]).layout.enlarged(2)
    assert [frame.parameters for frame in frames] == [b" Ippp"] * 3
    assert "24x16 to 48x32" in said and "guessed" in said and "3 frames in" in said
    # A ramp is a ramp, only finer: the network moves nothing.
    luma = frames[0].planes[0].astype(float) / (1 << header.layout.bits - 8)
    assert (
        np.abs(
            luma[8:-8, 8:-8]
            - (60 + 2 * np.mgrid[:32, :48][0] + 1.5 * np.mgrid[:32, :48][1])[8:-8, 8:-8]
        ).max()
        < 6
    )


def test_a_pipe_gives_the_same_as_a_file(srcli, tmp_path):
    content = stream_of(3)
    (tmp_path / "in.y4m").write_bytes(content)
    srcli("video", tmp_path / "in.y4m", "-o", tmp_path / "out.y4m")
    done = subprocess.run([*SRCLI, "video", "-", "-o", "-"], input=content, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (tmp_path / "out.y4m").read_bytes()


@pytest.mark.parametrize("option", ["--denoise", "--deblock"])
def test_restoring_alone_and_before_enlarging(srcli, tmp_path, option):
    (tmp_path / "in.y4m").write_bytes(stream_of(2))
    for scale in (1, 2):
        out = tmp_path / f"{scale}.y4m"
        code, _, said = srcli("video", tmp_path / "in.y4m", "-o", out, "-s", scale, option)
        assert code == 0, said
        assert read(out)[0].layout == Layout(width=24 * scale, height=16 * scale, across=2, down=2)


def test_tta(srcli, tmp_path):
    (tmp_path / "in.y4m").write_bytes(stream_of(1))
    made = []
    for more in ([], ["--tta"]):
        out = tmp_path / f"{len(more)}.y4m"
        assert srcli("video", tmp_path / "in.y4m", "-o", out, *more)[0] == 0
        made.append(read(out)[1][0].planes[0].astype(int))
    assert 0 < np.abs(made[0] - made[1]).max() < 20


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["in.y4m"], 2, "no output was named"),
        (["in.y4m", "-o", "there.y4m"], 2, "exists already"),
        (["in.y4m", "-o", "x.y4m", "-s", "1"], 2, "--denoise or --deblock"),
        (["in.y4m", "-o", "x.y4m", "-s", "7"], 2, "not by 7"),
        (["absent.y4m", "-o", "x.y4m"], 1, "cannot be read"),
        (["in.y4m", "in.y4m", "-o", "x.y4m"], 2, "one video at a time"),
        (["fields.y4m", "-o", "x.y4m"], 1, "bwdif"),
        (["cut.y4m", "-o", "x.y4m"], 1, "middle of frame 3"),
        (["in.y4m", "-o", "in.y4m", "-y"], 2, "is the input itself"),
    ],
)
def test_what_is_refused(srcli, tmp_path, monkeypatch, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in.y4m").write_bytes(stream_of(3))
    (tmp_path / "cut.y4m").write_bytes(stream_of(3)[:-5])
    (tmp_path / "fields.y4m").write_bytes(stream_of(1, interlacing="t"))
    (tmp_path / "there.y4m").write_bytes(b"mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    found, _, said = srcli("video", *arguments)
    assert found == code and words in said, said
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_reader_that_goes_ends_it_cleanly(tmp_path):
    (tmp_path / "in.y4m").write_bytes(stream_of(200, size=(64, 48)))
    with (
        (tmp_path / "in.y4m").open("rb") as given,
        subprocess.Popen(
            [*SRCLI, "video", "-", "-o", "-"], stdin=given, stdout=-1, stderr=subprocess.PIPE
        ) as process,
    ):
        process.stdout.read(10_000)
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait() == 0
    assert "error" not in said and "Traceback" not in said, said


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_an_interruption_leaves_nothing(tmp_path):
    out = tmp_path / "out.y4m"
    with subprocess.Popen(
        [*SRCLI, "video", "-", "-o", out], stdin=-1, stderr=subprocess.PIPE
    ) as process:
        process.stdin.write(stream_of(3))
        process.stdin.flush()
        while not list(tmp_path.glob(".srcli-*")):  # it waits for more frames
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait() == 130
    assert not list(tmp_path.iterdir())
