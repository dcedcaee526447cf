"""One page or frame of a file that has several, compared with other readers."""

import io

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.odd_files import RGB, jpeg
from support.pictures import noise, pillow_bytes

from srcli.errors import InputError
from srcli.images import SaveOptions, StripReader, encode, is_opaque, probe, read

FRAMES = [RGB, 255 - RGB, RGB[::-1].copy()]


def several(format, frames=FRAMES, **options):
    first, *others = (Image.fromarray(frame) for frame in frames)
    settings = {"WEBP": {"lossless": True}, "AVIF": {"quality": 90}}.get(format, {})
    return pillow_bytes(first, format, save_all=True, append_images=others, **(settings | options))


def theirs(data, page):
    with Image.open(io.BytesIO(data)) as image:
        image.seek(page)
        return np.asarray(image.convert("RGBA"))


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "TIFF", "AVIF", "MPO"])
def test_pages(format, tmp_path):
    """faults.md 26: `--page` counts from 1."""
    data = several(format)
    path = tmp_path / "x"
    path.write_bytes(data)
    for page in (1, 2, 3):
        for source in (data, path):
            shown = read(source, page=page)
            expected = theirs(data, page - 1)
            assert np.abs(shown.color.astype(int) - expected[..., :3]).max() <= 3
            header = probe(source, page=page)
            assert (header.height, header.width) == expected.shape[:2]
            assert header.channels == shown.color.shape[2]
            assert header.has_alpha == (shown.alpha is not None)
            with StripReader(source, page=page) as reader:
                rows = np.concatenate([color for _, color, _ in reader.strips(20)])
            np.testing.assert_array_equal(rows, shown.color)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "GIF", "TIFF", "AVIF"])
def test_which_page_has_to_be_said(format):
    """faults.md 26: the error names the option."""
    data = several(format)
    for action in (read, probe, StripReader):
        with pytest.raises(InputError, match=r"x: holds 3 pages or frames.*--page 1"):
            action(data, name="x")
        for page in (0, 4, -1):
            with pytest.raises(InputError, match=rf"has 3 pages or frames; --page {page} is none"):
                action(data, page=page)


def test_the_only_page():
    data = pillow_bytes(RGB, "PNG")
    np.testing.assert_array_equal(read(data, page=1).color, RGB)
    with pytest.raises(InputError, match=r"has only one page; --page 2"):
        read(data, page=2)


def test_frames_of_gif_are_whole():
    """A frame that only changes a part of the one before."""
    still = Image.fromarray(RGB).quantize(32)
    moved = still.copy()
    moved.paste(0, (4, 4, 9, 9))
    data = pillow_bytes(still, "GIF", save_all=True, append_images=[moved])
    expected = theirs(data, 1)
    np.testing.assert_array_equal(read(data, page=2).color, expected[..., :3])


def test_pages_of_tiff_differ_in_kind():
    """Sizes, bits, orientation and metadata are those of the page; reduced copies do not count."""
    file = io.BytesIO()
    grey = noise(20, 30, 1, 16)
    with tifffile.TiffWriter(file) as writer:
        writer.write(RGB, photometric="rgb", metadata=None)
        writer.write(RGB[::4, ::4].copy(), photometric="rgb", subfiletype=1, metadata=None)
        options = {"photometric": "minisblack", "metadata": None, "description": "second"}
        tags = [(274, 3, 1, 6, True)]
        writer.write(grey[..., 0], **options, extratags=tags, compression="zlib")
    shown = read(file.getvalue(), page=2)
    np.testing.assert_array_equal(shown.color, grey.transpose(1, 0, 2)[:, ::-1])
    assert b"second" in shown.metadata.exif
    np.testing.assert_array_equal(read(file.getvalue(), page=1).color, RGB)
    with pytest.raises(InputError, match=r"(20 x 30|30 x 20) is 600"):
        read(file.getvalue(), page=2, max_pixels=599)


def test_pages_of_heic():
    pillow_heif = pytest.importorskip("pillow_heif")
    made = pillow_heif.from_pillow(Image.fromarray(RGB))
    made.add_from_pillow(Image.fromarray(255 - RGB))
    file = io.BytesIO()
    made.save(file, quality=90)
    for page in (1, 2):
        expected = np.asarray(pillow_heif.open_heif(file.getvalue())[page - 1])
        np.testing.assert_array_equal(read(file.getvalue(), page=page).color, expected)
    with pytest.raises(InputError, match="--page 1"):
        read(file.getvalue())


def test_a_multi_picture_jpeg_is_its_first_picture():
    """As every reader has it; the others are noted."""
    shown = read(several("MPO"), name="x")
    np.testing.assert_array_equal(shown.color, read(jpeg(quality=75)).color)
    assert "main picture" in shown.notes[0]


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_that_hides_nothing(bits, orientation):
    """faults.md 25: such a picture can become a JPEG without a background."""
    color = noise(20, 30, 3, bits)
    top = 2**bits - 1
    options = {"extrasamples": [2], "extratags": [(274, 3, 1, orientation, True)]}
    for minimum, opaque in ((top, True), (top - 1, False)):
        alpha = np.full((20, 30, 1), top, color.dtype)
        alpha[3, 4] = minimum
        file = io.BytesIO()
        tifffile.imwrite(file, np.dstack([color, alpha]), photometric="rgb", **options)
        assert is_opaque(file.getvalue()) == opaque
    assert is_opaque(encode(read(pillow_bytes(RGB, "PNG")), SaveOptions(format="png")))
    made = encode(read(file.getvalue()), SaveOptions(format="jpeg", opaque=True))
    assert Image.open(io.BytesIO(made)).mode == "RGB"


def test_an_opaque_png_becomes_a_jpeg(srcli, tmp_path):
    """faults.md 25, from the shell."""
    opaque, glass = tmp_path / "opaque.png", tmp_path / "glass.png"
    Image.fromarray(np.dstack([RGB, np.full((48, 64), 255, np.uint8)])).save(opaque)
    Image.fromarray(np.dstack([RGB, RGB[..., 0]])).save(glass)
    target = tmp_path / "x.jpg"
    assert srcli("upscale", opaque, "-s", 2, "-o", target)[0] == 0
    with Image.open(target) as image:
        assert image.size == (128, 96)
    code, _, err = srcli("upscale", glass, "-s", 2, "-o", tmp_path / "y.jpg")
    assert code == 2
    assert "--background" in err


def test_a_folder_of_what_people_have(srcli, tmp_path):
    """faults.md 26: names of phones and web sites; what is only read becomes PNG."""
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg_large", "b.pjp", "c.jfif", "d.mpo"):
        (folder / name).write_bytes(several("MPO") if name == "d.mpo" else jpeg())
    (folder / "e.gif").write_bytes(pillow_bytes(Image.fromarray(RGB).quantize(60), "GIF"))
    assert srcli("upscale", folder, "-s", 2)[0] == 0
    out = tmp_path / "in_x2"
    made = [path for path in out.iterdir() if not path.name.startswith(".")]
    assert sorted(path.name for path in made) == [
        "a.jpg", "b.pjp", "c.jfif", "d.jpg", "e.png"
    ]  # fmt: skip
    for path in made:
        with Image.open(path) as image:
            assert image.format == ("PNG" if path.suffix == ".png" else "JPEG")
