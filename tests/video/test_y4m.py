"""Streams of Y4M: headers, frames, and what a hostile stream may do."""

import io
import itertools

import numpy as np
import pytest

from srcli.errors import InputError
from srcli.video.layout import Layout
from srcli.video.y4m import Frame, Reader, Writer, parsed

BEGIN = "YUV4MPEG2 W6 H4 F24000:1001 Ip A1:1"
COLORS = {
    "": ("4:2:0", 8, "center"),
    "C420": ("4:2:0", 8, "center"),
    "C420jpeg": ("4:2:0", 8, "center"),
    "C420mpeg2": ("4:2:0", 8, "left"),
    "C420paldv": ("4:2:0", 8, "paldv"),
    "C420p10": ("4:2:0", 10, None),
    "C422": ("4:2:2", 8, None),
    "C422p10": ("4:2:2", 10, None),
    "C444": ("4:4:4", 8, None),
    "C444p12": ("4:4:4", 12, None),
    "C444p14": ("4:4:4", 14, None),
    "C444p16": ("4:4:4", 16, None),
    "C420p9": ("4:2:0", 9, None),
    "C411": ("4:1:1", 8, None),
    "Cmono": ("grey", 8, None),
    "Cmono10": ("grey", 10, None),
}


class Pipe(io.RawIOBase):
    """A stream that gives a few bytes at a time, as a pipe may."""

    def __init__(self, content, most):
        self.content, self.most, self.asked = content, most, 0

    def readable(self):
        return True

    def readinto(self, buffer):
        count = min(len(buffer), self.most, len(self.content))
        buffer[:count] = self.content[:count]
        self.content = self.content[count:]
        return count


def line(color="", more=""):
    return f"{BEGIN} {color} {more}".encode()


def made(layout, count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        [rng.integers(0, 1 << layout.bits, shape).astype(layout.dtype) for shape in layout.shapes]
        for _ in range(count)
    ]


@pytest.mark.parametrize(("color", "said"), COLORS.items())
def test_every_kind_of_colour_is_known(color, said):
    header = parsed(line(color))
    assert (header.layout.subsampling, header.layout.bits, header.siting) == said
    assert float(header.rate) == pytest.approx(23.976, abs=1e-3)
    assert header.full_range is None


@pytest.mark.parametrize(("word", "full"), [("FULL", True), ("LIMITED", False)])
def test_the_range_is_read(word, full):
    assert parsed(line("C420jpeg", f"XCOLORRANGE={word}")).full_range is full


def test_a_larger_header_keeps_every_other_word():
    header = parsed(line("C420p10", "XYSCSS=420P10 XCOLORRANGE=LIMITED Xour"))
    words = header.enlarged(3).line().split()
    assert words == header.line().replace(b"W6", b"W18").replace(b"H4", b"H12").split()


@pytest.mark.parametrize("most", [1, 7, 1 << 20])
@pytest.mark.parametrize("color", ["", "C422p10", "C444", "Cmono"])
def test_frames_and_their_headers_come_back(color, most):
    header = parsed(line(color))
    out = io.BytesIO()
    writer = Writer(out, header)
    given = made(header.layout, 3)
    for planes, parameters in zip(given, (b"", b" Ippp", b" Xfoo"), strict=True):
        writer.write(Frame(planes, parameters))
    reader = Reader(Pipe(out.getvalue(), most), "x")
    assert reader.header.layout == header.layout
    found = list(reader.frames())
    assert [frame.parameters for frame in found] == [b"", b" Ippp", b" Xfoo"]
    for frame, planes in zip(found, given, strict=True):
        assert all(map(np.array_equal, frame.planes, planes))


@pytest.mark.parametrize(
    ("header", "word"),
    [
        (b"RIFF....AVI", "no Y4M stream"),
        (b"YUV4MPEG2 H4", "states no W"),
        (b"YUV4MPEG2 W6 H-4", "states no H"),
        (b"YUV4MPEG2 W0 H4", "0 pixels"),
        (b"YUV4MPEG2 W999999999 H999999999", "999999999 pixels"),
        (b"YUV4MPEG2 W6 H4 C420p11", "not known"),
        (b"YUV4MPEG2 W6 H4 C444alpha", "transparent"),
        (b"YUV4MPEG2 W6 H4 C422jpeg", "not known"),
        (b"YUV4MPEG2 W6 H4 It", "bwdif"),
        (b"YUV4MPEG2 W6 H4 Im", "interlaced"),
    ],
)
def test_headers_that_are_refused(header, word):
    with pytest.raises(InputError, match=word) as raised:
        parsed(header, "clip.y4m")
    assert "clip.y4m" in str(raised.value) and raised.value.remedy


def test_a_header_without_an_end_is_not_read_for_ever():
    endless = Pipe(b"YUV4MPEG2 " + b"X" * 10_000_000, 1 << 20)
    with pytest.raises(InputError, match="no end"):
        Reader(endless, "x")
    assert len(endless.content) > 9_000_000


def test_a_frame_that_is_cut_is_no_frame():
    header = parsed(line("C420"))
    out = io.BytesIO()
    writer = Writer(out, header)
    for planes in made(header.layout, 2):
        writer.write(Frame(planes))
    content = out.getvalue()
    start = len(header.line())
    of_frame = (len(content) - start) // 2
    for end in range(start, len(content)):
        frames = Reader(Pipe(content[:end], 100), "cut.y4m").frames()
        if (end - start) % of_frame == 0:
            assert len(list(frames)) == (end - start) // of_frame
            continue
        whole = list(itertools.islice(frames, (end - start) // of_frame))
        assert len(whole) == (end - start) // of_frame
        with pytest.raises(InputError, match=r"cut\.y4m: .*frame"):
            next(frames)


def test_values_of_too_many_bits_are_refused():
    layout = Layout(width=2, height=2, kind="grey", bits=10)
    content = b"YUV4MPEG2 W2 H2 Cmono10\nFRAME\n" + np.full(4, 1024, "<u2").tobytes()
    reader = Reader(Pipe(content, 100), "x")
    assert reader.header.layout == layout
    with pytest.raises(InputError, match="more than 10 bits"):
        next(reader.frames())


def test_what_stands_between_frames_is_refused():
    content = b"YUV4MPEG2 W2 H2 Cmono\nFRAME\n1234FRAMES"
    frames = Reader(Pipe(content + b"\n1234", 100), "x").frames()
    next(frames)
    with pytest.raises(InputError, match="frame 2 does not begin"):
        next(frames)
