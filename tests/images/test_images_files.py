"""Files that appear whole or not at all, rows in and out, and the pure functions on pixels."""

import os
import signal
import stat
import struct
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from support.pictures import KINDS, noise, picture, pillow_bytes, png_samples, smooth, stacked

from srcli.errors import InputError, OutputError, UsageError
from srcli.images import (
    FORMATS,
    Picture,
    SaveOptions,
    StripReader,
    StripWriter,
    bleed,
    encode,
    from_float,
    probe,
    read,
    to_8_bits,
    to_float,
    write,
)
from srcli.images.pixels import over

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX")
PNG = SaveOptions(format="png")


def strip_writer(target, shown, **options):
    return StripWriter(
        target,
        width=shown.width,
        height=shown.height,
        channels=shown.color.shape[2],
        has_alpha=shown.alpha is not None,
        bits=shown.bits,
        **options,
    )


# Names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "a[page=2].png",
        "a.tif[1].png",
        "[a].png",
        "größe 漢字 😀.png",
        "-.png",
        "%d.png",
        " .png",
        "x" * 251 + ".png",
        pytest.param("new\nline\x1b[31m.png", marks=posix),
        pytest.param('a"b\\c:*?.png', marks=posix),
        pytest.param(os.fsdecode(b"\xff\xfe.png"), marks=posix),
    ],
)
def test_names_are_only_names(name, tmp_path):
    path, shown = tmp_path / name, picture()
    write(shown, path)
    np.testing.assert_array_equal(read(path).color, shown.color)
    with StripReader(path) as reader, strip_writer(path, shown) as writer:
        writer.write(*reader.rows(0, shown.height))
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    assert png_samples(path.read_bytes()).shape == shown.color.shape
    path.write_bytes(b"no picture")
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).isprintable()


def test_a_name_for_standard_input():
    with pytest.raises(InputError, match=r"^standard input: not a picture"):
        read(b"x")
    with pytest.raises(InputError, match=r"^it: not a picture"):
        read(b"x", name="it")


# Whole or not at all -----------------------------------------------------------------------------


def test_write_replaces_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "new" / "x.png"
    for seed in (1, 2):
        shown = Picture(color=noise(9, 9, 3, seed=seed))
        write(shown, path)
        np.testing.assert_array_equal(read(path).color, shown.color)
    assert [entry.name for entry in path.parent.iterdir()] == ["x.png"]


def test_suffix_or_option_decides_the_format(tmp_path):
    write(picture(), tmp_path / "x.tif")
    write(picture(), tmp_path / "y.tif", SaveOptions(format="jpeg"))
    assert (tmp_path / "x.tif").read_bytes()[:2] in (b"II", b"MM")
    assert (tmp_path / "y.tif").read_bytes()[:2] == b"\xff\xd8"
    with pytest.raises(UsageError, match=r"\.png"):
        write(picture(), tmp_path / "z")


@posix
def test_files_get_usual_permissions(tmp_path):
    before = os.umask(0o027)
    try:
        write(picture(), tmp_path / "x.png")
        with strip_writer(tmp_path / "y.png", picture()) as writer:
            writer.write(picture().color)
    finally:
        os.umask(before)
    for name in ("x.png", "y.png"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o640


def test_folders_and_devices_are_not_replaced(tmp_path):
    pipe = tmp_path / "pipe.png"
    targets = [tmp_path]
    if hasattr(os, "mkfifo"):
        os.mkfifo(pipe)
        targets += [pipe, Path("/dev/null")]
    for target in targets:
        with pytest.raises(OutputError, match=r"folder|regular file"):
            write(picture(), target, PNG)
        with pytest.raises(OutputError, match=r"folder|regular file"):
            strip_writer(target, picture(), options=PNG)
    assert not any(entry.is_file() for entry in tmp_path.iterdir())


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"x\.png"):
        write(picture(), tmp_path / "file" / "x.png")
    with (
        pytest.raises(OutputError, match=r"x\.png"),
        strip_writer(tmp_path / "file" / "x.png", picture()) as writer,
    ):
        writer.write(picture().color)


FULL_DISK = """
import resource, sys
from pathlib import Path
import numpy as np
from srcli.errors import OutputError
from srcli.images import Picture, StripWriter, write
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
color = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for suffix in ("png", "jpg", "tif", "webp", "avif", "bmp"):
    try:
        write(Picture(color=color), Path(f"x.{suffix}"))
    except OutputError as error:
        print(error)
try:
    size = dict(width=300, height=300, channels=3, has_alpha=False, bits=8)
    with StripWriter(Path("s.png"), **size) as writer:
        writer.write(color)
except OutputError as error:
    print(error)
"""


@posix
def test_a_full_disk_leaves_nothing(tmp_path):
    """A limit on the size of files stands in for it."""
    (tmp_path / "x.png").write_bytes(b"the old one")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) >= 5 and all("File too large" in line for line in lines)
    assert (tmp_path / "x.png").read_bytes() == b"the old one"
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


@posix
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("suffix", "side"), [("png", 2000), ("jpg", 2500), ("tif", 2000), ("webp", 1500), ("avif", 400)]
)
def test_interrupted_writing_leaves_nothing(suffix, side, tmp_path, capfd):
    """Ctrl-C arrives while the codec works: it must not be lost, nor wait for the end."""
    path = tmp_path / f"x.{suffix}"
    path.write_bytes(b"the old one")
    shown = Picture(color=noise(side, side, 3))

    def interrupt(*_):
        raise KeyboardInterrupt

    def interrupted(delay):
        try:
            signal.setitimer(signal.ITIMER_REAL, delay)
            write(shown, path)
        except KeyboardInterrupt:
            return True
        path.write_bytes(b"the old one")
        return False

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for delay in (0.01, 0.06):
            # Python itself drops what is raised in a weak reference's callback, which may just run.
            assert any(interrupted(delay) for _ in range(3))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"the old one"
    assert capfd.readouterr().err == ""


def test_writing_from_other_threads(tmp_path):
    shown = [Picture(color=noise(64, 64, 3, seed=seed)) for seed in range(8)]

    def work(number):
        write(shown[number], tmp_path / f"{number}.png")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        found = read(tmp_path / f"{number}.png").color
        np.testing.assert_array_equal(found, shown[number].color)


# Rows in and out ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("channels", "alpha"), KINDS)
@pytest.mark.parametrize("name", ["png", "tiff", "webp"])
def test_strips_are_the_whole(name, channels, alpha, bits, tmp_path):
    shown = picture(channels, alpha, bits, height=101)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = SaveOptions(format=name, lossless=name == "webp")
    write(shown, whole, options)
    with strip_writer(parts, shown, options=options) as writer:
        for top in range(0, 101, 17):
            mask = None if shown.alpha is None else shown.alpha[top : top + 17]
            writer.write(shown.color[top : top + 17], mask)
    assert parts.read_bytes() == whole.read_bytes()
    expected = read(whole)
    with StripReader(whole) as reader:
        assert reader.streams == (name != "webp")
        strips = list(reader.strips(23))
    assert [top for top, _, _ in strips] == [0, 23, 46, 69, 92]
    got = [stacked(Picture(color=color, alpha=mask)) for _, color, mask in strips]
    np.testing.assert_array_equal(np.concatenate(got), stacked(expected))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("kind", ["interlaced", "progressive", "cmyk", "tiled", "bmp"])
def test_strips_of_other_kinds(kind, tmp_path):
    color = smooth(64, 80)
    path = tmp_path / "x"
    if kind == "tiled":
        tifffile.imwrite(path, color, photometric="rgb", tile=(16, 32))
    elif kind == "cmyk":
        path.write_bytes(pillow_bytes(Image.fromarray(color).convert("CMYK"), "JPEG"))
    elif kind == "interlaced":
        image = pillow_bytes(color, "PNG")
        import pyvips

        path.write_bytes(pyvips.Image.pngload_buffer(image).pngsave_buffer(interlace=True))
    else:
        options = {"progressive": True} if kind == "progressive" else {}
        path.write_bytes(pillow_bytes(color, "BMP" if kind == "bmp" else "JPEG", **options))
    with StripReader(path) as reader:
        assert reader.streams == (kind in ("tiled", "cmyk"))
        got = np.concatenate([rows for _, rows, _ in reader.strips(11)])
    np.testing.assert_array_equal(got, read(path).color)


def test_rows_come_in_order(tmp_path):
    with StripReader(encode(picture(), PNG)) as reader:
        reader.rows(5, 9)
        for wrong in ((0, 5), (9, 9), (9, 99)):
            with pytest.raises(ValueError, match="rows"):
                reader.rows(*wrong)
        np.testing.assert_array_equal(reader.rows(12, 20)[0], picture().color[12:20])


def test_strips_that_were_not_announced(tmp_path):
    shown = picture()
    for color, alpha in (
        (noise(5, 9, 3), None),
        (noise(5, 53, 1), None),
        (noise(5, 53, 3, 16), None),
        (noise(5, 53, 3), noise(5, 53, 1)[..., 0]),
    ):
        with (
            pytest.raises(ValueError, match="announced"),
            strip_writer(tmp_path / "x.png", shown) as writer,
        ):
            writer.write(color, alpha)
    for rows in (0, 36, 38):
        with (
            pytest.raises(ValueError, match="rows"),
            strip_writer(tmp_path / "x.png", shown) as writer,
        ):
            writer.write(noise(rows, 53, 3))
    assert list(tmp_path.iterdir()) == []


def test_strips_are_abandoned_whole(tmp_path):
    path = tmp_path / "x.png"
    with pytest.raises(KeyboardInterrupt), strip_writer(path, picture()) as writer:
        writer.write(picture().color[:10])
        assert len(list(tmp_path.iterdir())) == 1
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_strips_onto_a_background(tmp_path):
    shown = picture(1, alpha=True)
    options = SaveOptions(background=(10, 200, 30))
    with strip_writer(tmp_path / "x.bmp", shown, options=options) as writer:
        writer.write(shown.color[:20], shown.alpha[:20])
        writer.write(shown.color[20:], shown.alpha[20:])
    expected = over(shown.color, shown.alpha, (10, 200, 30))
    with Image.open(tmp_path / "x.bmp") as image:
        np.testing.assert_array_equal(np.asarray(image), expected)
    with pytest.raises(UsageError, match="--background"):
        strip_writer(tmp_path / "y.jpg", shown)


MEMORY = """
import sys
from pathlib import Path
import numpy as np
from srcli.images import StripReader, StripWriter, vips
vips.library()
def peak():  # `ru_maxrss` would begin with what the parent had
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
def copy(source, target, height):
    size = dict(width=1000, height=height, channels=3, has_alpha=False, bits=8)
    with StripWriter(target, **size) as out:
        made = (np.full((20, 1000, 3), top % 251, np.uint8) for top in range(0, height, 20))
        for strip in source or made:
            out.write(strip)
copy(None, Path("a.png"), 400)  # whatever is needed anyway
before = peak()
copy(None, Path("a.png"), 52_000)
for name in ("b.jpg", "c.tif"):
    with StripReader(Path("a.png")) as reader:
        copy((color for _, color, _ in reader.strips(32)), Path(name), 52_000)
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_strips_need_little_memory(tmp_path):
    """1000 x 52000 is 156 MB as samples; several copies pass through."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < 60e6


# Pixels ------------------------------------------------------------------------------------------


def test_float_and_back_is_exact():
    for bits, kind in ((8, np.uint8), (16, np.uint16)):
        levels = np.arange(2**bits).astype(kind)
        values = to_float(levels)
        assert values.dtype == np.float32 and values[0] == 0 and values[-1] == 1
        np.testing.assert_array_equal(from_float(values, bits), levels)
        np.testing.assert_array_equal(from_float(values.astype(np.float64), bits), levels)


def test_from_float_rounds_and_clamps():
    values = np.array([-np.inf, -0.2, 0.4 / 255, 0.6 / 255, 1.7, np.inf], np.float32)
    np.testing.assert_array_equal(from_float(values, 8), [0, 0, 0, 1, 255, 255])
    assert from_float(values, 16).dtype == np.uint16
    with pytest.raises(ValueError, match="not numbers"):
        from_float(np.array([0.5, np.nan]), 8)
    with pytest.raises(ValueError, match="8 or 16"):
        from_float(values, 12)


@given(hnp.arrays(np.uint16, 20))
def test_eight_bits_of_sixteen(values):
    np.testing.assert_array_equal(to_8_bits(values), np.rint(values / 257))
    np.testing.assert_array_equal(to_8_bits(to_8_bits(values)), to_8_bits(values))


arrays = st.tuples(
    st.integers(1, 24), st.integers(1, 24), st.sampled_from([1, 3]), st.sampled_from([8, 16])
)


@st.composite
def shown_pictures(draw):
    height, width, channels, bits = draw(arrays)
    kind = np.uint8 if bits == 8 else np.uint16
    color = draw(hnp.arrays(kind, (height, width, channels)))
    alpha = draw(st.none() | hnp.arrays(kind, (height, width)))
    return Picture(color=color, alpha=alpha)


@settings(max_examples=60, deadline=None)
@given(shown_pictures(), st.sampled_from(["png", "tiff"]))
def test_any_picture_survives(shown, name):
    again = read(encode(shown, SaveOptions(format=name)))
    assert again.bits == shown.bits and (again.alpha is None) == (shown.alpha is None)
    np.testing.assert_array_equal(stacked(again), stacked(shown))


@settings(max_examples=60, deadline=None)
@given(shown_pictures(), st.tuples(*[st.integers(0, 255)] * 3))
def test_over_is_a_weighted_mean(shown, background):
    if shown.alpha is None:
        shown = replace(shown, alpha=shown.color[..., 0])
    top = 2**shown.bits - 1
    opacity = shown.alpha[..., None] / top
    expected = shown.color * opacity + np.array(background) * (top / 255) * (1 - opacity)
    got = over(shown.color, shown.alpha, background)
    assert got.dtype == shown.color.dtype
    assert np.abs(got - expected).max() <= 0.5 + 1e-6


def slow_bleed(color, alpha, radius):
    """The definition, pixel by pixel."""
    filled, known = color.astype(int), alpha > 0
    for _ in range(radius):
        new, fresh = filled.copy(), known.copy()
        for y, x in np.argwhere(~known):
            window = np.s_[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            near = filled[window][known[window]]
            if len(near):
                new[y, x] = np.floor(near.sum(0) / len(near) + 0.5)
                fresh[y, x] = True
        filled, known = new, fresh
    return filled


@settings(max_examples=60, deadline=None)
@given(
    hnp.arrays(np.uint8, (12, 14, 3)),
    hnp.arrays(np.uint8, (12, 14), elements=st.sampled_from([0, 0, 0, 0, 7, 255])),
    st.integers(0, 5),
)
def test_bleed_is_as_defined(color, alpha, radius):
    got = bleed(color, alpha, radius)
    np.testing.assert_array_equal(got, slow_bleed(color, alpha, radius))
    np.testing.assert_array_equal(got[alpha > 0], color[alpha > 0])


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 4))
def test_bleed_is_local(data, radius):
    """Strips that overlap by the radius give the same as the whole picture."""
    color = data.draw(hnp.arrays(np.uint16, (20, 9, 1)))
    alpha = data.draw(hnp.arrays(np.uint16, (20, 9), elements=st.sampled_from([0, 0, 0, 1])))
    top = data.draw(st.integers(0, 19))
    bottom = data.draw(st.integers(top + 1, 20))
    above, below = max(0, top - radius), min(20, bottom + radius)
    strip = bleed(color[above:below], alpha[above:below], radius)
    whole = bleed(color, alpha, radius)
    np.testing.assert_array_equal(strip[top - above : bottom - above], whole[top:bottom])


def test_bleed_without_transparency_is_a_copy():
    color = noise(5, 5, 3)
    for value in (0, 1, 255):
        got = bleed(color, np.full((5, 5), value, np.uint8), 3)
        np.testing.assert_array_equal(got, color)
        assert not np.shares_memory(got, color)


# Imports -----------------------------------------------------------------------------------------


def test_nothing_heavy_is_imported_early():
    code = (
        "import sys, srcli.images; "
        "heavy = {'torch', 'onnxruntime', 'rich', 'click', 'pyvips', 'PIL'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_format_says_what_it_holds():
    for name, fmt in FORMATS.items():
        shown = picture(3, alpha=fmt.alpha, bits=16 if fmt.bits > 8 else 8)
        options = SaveOptions(format=name, lossless=fmt.lossless and fmt.lossy)
        again = read(encode(shown, options))
        assert (again.alpha is not None) == fmt.alpha and again.bits == shown.bits
        grey = read(encode(picture(1), SaveOptions(format=name)))
        assert (grey.color.shape[2] == 1) == fmt.grey
        if fmt.lossless and fmt.bits != 12:
            np.testing.assert_array_equal(stacked(again), stacked(shown))


@pytest.mark.parametrize("orientation", [1, 5])
def test_a_header_that_promises_more_than_the_file_holds(tmp_path, orientation):
    file = tmp_path / "lying.tif"
    pixels = np.zeros((24, 18, 3), np.uint8)
    tifffile.imwrite(file, pixels, photometric="rgb", extratags=[(274, 3, 1, orientation, True)])
    data = bytearray(file.read_bytes())
    at = data.index(b"\x00\x01")  # the tag of the width, little-endian
    width = data.index(struct.pack("<I", 18), at)
    data[width : width + 4] = struct.pack("<I", 8_388_626)
    file.write_bytes(data)
    with pytest.raises(InputError, match="holds only"):
        read(file)


def test_a_blank_page_is_no_lie(tmp_path):
    file = tmp_path / "blank.png"
    Image.new("1", (12_000, 9_000)).save(file, optimize=True)
    assert probe(file).width == 12_000
