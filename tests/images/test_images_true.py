"""What is written beside the pixels is true of them: scaled, turned, gone, or said to be lost."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image
from support.enlarging import FACTOR, HOLD_ALL, enlarged, packet_of, tag, with_xmp
from support.odd_files import (
    RGB,
    jpeg,
    longs,
    png_with,
    shorts,
    tiff_by_tifffile,
    tiff_of,
    with_segment,
    xmp,
)
from support.pictures import pillow_array, pillow_bytes

from srcli.images import Picture, SaveOptions, check_output, encode, exif, read
from srcli.images.geometry import Change
from srcli.images.picture import Metadata

# EXIF, Photoshop, PNG -----------------------------------------------------------------------------

NOTE = b"MAKER\0" + bytes(range(200))


def blob(order="<", orientation=1, subject=(16, 18, 16, 12), note=NOTE):
    """EXIF data with maker notes at a place of their own, by hand."""

    def entry(tag, kind, count, value):
        raw = struct.pack(order + ("H" if kind == 3 and count == 1 else "I"), value)
        return struct.pack(order + "HHI", tag, kind, count) + raw.ljust(4, b"\0")

    inner_at, values_at = 8 + 2 + 3 * 12 + 4, 8 + 2 + 3 * 12 + 4 + 2 + 5 * 12 + 4
    numbers = struct.pack(order + "4H", *subject)
    ratios = struct.pack(order + "4I", 4000, 10, 2000, 10)
    note_at = values_at + len(numbers) + len(ratios)
    first = [
        entry(0x0111, 4, 1, 4711),
        entry(0x0112, 3, 1, orientation),
        entry(0x8769, 4, 1, inner_at),
    ]
    inner = [
        entry(0x9214, 3, 4, values_at), entry(0x927C, 7, len(note), note_at),
        entry(0xA002, 3, 1, 64), entry(0xA20E, 5, 1, values_at + 8),
        entry(0xA20F, 5, 1, values_at + 16),
    ]  # fmt: skip
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    tables = [struct.pack(order + "H", len(t)) + b"".join(t) + bytes(4) for t in (first, inner)]
    return head + b"".join(tables) + numbers + ratios + note, note_at


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", [1, 6, 3])
def test_exif_that_describes_pixels(order, orientation):
    """faults.md 6: subject, sensor, and pointers to samples that are not there."""
    data = jpeg(exif=b"Exif\0\0" + blob(order, orientation)[0])
    found = Image.open(io.BytesIO(enlarged(data)[0])).getexif()
    details = found.get_ifd(0x8769)
    expected = {1: (48, 54, 48, 36), 3: (144, 90, 48, 36), 6: (90, 48, 36, 48)}[orientation]
    assert details[0x9214] == expected
    focal = [float(details[tag]) for tag in (0xA20E, 0xA20F)]
    assert focal == ([1200, 600] if orientation != 6 else [600, 1200])
    assert 0x0111 not in found
    assert details[0x927C] == NOTE


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("name", HOLD_ALL)
def test_maker_notes_stay_where_they_were(name, order):
    """faults.md 7: their offsets count from the start of the data, in its order of bytes."""
    data, note_at = blob(order)
    made, notes = enlarged(jpeg(exif=b"Exif\0\0" + data), name)
    start = {"tiff": 0, "jpeg": made.find(b"Exif\0\0") + 6}.get(name)
    if start is None:
        start = made.rindex(data[:8])
    assert made[start : start + 2] == (b"II" if order == "<" else b"MM")
    assert made[start + note_at :].startswith(NOTE)
    assert "maker" not in notes
    if name == "tiff":
        with tifffile.TiffFile(io.BytesIO(made)) as file:
            np.testing.assert_array_equal(
                file.pages[0].asarray(), read(jpeg()).color.repeat(FACTOR, 0).repeat(FACTOR, 1)
            )
            assert file.pages[0].tags["ExifTag"].value["MakerNote"] == NOTE
        again = enlarged(made, "jpeg", 1)[0]
        place = again.find(b"Exif\0\0") + 6
        assert again[place + note_at :].startswith(NOTE), "and from TIFF to JPEG"


def test_maker_notes_that_would_break_are_left_out_with_a_note():
    """faults.md 7: 16-bit samples and EXIF data of another order of bytes in one TIFF file."""
    wide = Picture(color=RGB.astype(np.uint16) * 257, metadata=Metadata(exif=blob(">")[0]))
    arguments = (64, 48, False, 16, "tiff", SaveOptions(), "x")
    assert "maker's notes" in check_output(*arguments, metadata=wide.metadata)[0]
    made = encode(wide, SaveOptions(format="tiff"))
    assert NOTE not in made
    np.testing.assert_array_equal(read(made).color, wide.color)
    # Those that count from their own start may move.
    nikon = b"Nikon\0\2\x10\0\0" + bytes(50)
    metadata = Metadata(exif=blob(">", note=nikon)[0])
    assert check_output(*arguments, metadata=metadata) == []
    assert nikon in encode(Picture(color=wide.color, metadata=metadata), SaveOptions(format="tiff"))


def resource(number, data):
    return b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data + b"\0" * (len(data) % 2)


IPTC = b"\x1c\x02\x19\0\x07keyword"


def resources_of(data):
    return Image.open(io.BytesIO(data)).info["photoshop"]


@pytest.mark.parametrize("orientation", [1, 6])
def test_photoshop_resources(orientation):
    """faults.md 6: guides scale; what cannot be turned goes, with a note."""
    guides = struct.pack(">IIII", 1, 0, 0, 2) + struct.pack(">IBIB", 320, 0, 640, 1)
    paths, caption = resource(0x07D0, bytes(26)), resource(0x0404, IPTC)
    content = paths + resource(0x0408, guides) + resource(0x0422, b"old EXIF") + caption
    own = Image.Exif()
    own[0x0112] = orientation
    data = with_segment(jpeg(exif=own), 0xED, b"Photoshop 3.0\0" + content)
    made, notes = enlarged(data, "jpeg")
    found = resources_of(made)
    assert found[0x0404] == IPTC
    assert 0x0422 not in found
    if orientation == 1:
        assert struct.unpack(">IBIB", found[0x0408][16:]) == (960, 0, 1920, 1)
        assert 0x07D0 in found
    else:
        assert not {0x0408, 0x07D0} & set(found)
        assert "guides" in notes
        assert "paths" in notes


def test_iptc_beside_photoshop_resources():
    """faults.md 7: a TIFF file with both tags; the records are not lost."""
    tags = {33723: (7, len(IPTC), IPTC)}
    other = resource(0x03ED, bytes(16))
    tags[34377] = (7, len(other), other)
    made, notes = enlarged(tiff_of(RGB, tags), "jpeg")
    assert resources_of(made)[0x0404] == IPTC
    assert notes == ""


@pytest.mark.parametrize("prefix", [b"Exif\0\0", b""])
def test_raw_exif_in_png_text(prefix):
    """faults.md 7: with and without the prefix, orientation included."""
    own = Image.Exif()
    own[0x0112], own[0x010F] = 6, "Maker"
    content = prefix + own.tobytes().removeprefix(b"Exif\0\0")
    text = f"\nexif\n{len(content):8}\n{content.hex()}\n".encode()
    data = png_with([(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))])
    assert read(data).color.shape == (64, 48, 3)
    made = Image.open(io.BytesIO(enlarged(data)[0]))
    assert made.getexif()[0x010F] == "Maker"
    assert made.getexif()[0x0112] == 1


def test_comments():
    """faults.md 7: kept in JPEG and PNG; elsewhere their loss is said."""
    data = jpeg(comment=b"a comment")
    assert Image.open(io.BytesIO(enlarged(data, "jpeg")[0])).info["comment"] == b"a comment"
    assert Image.open(io.BytesIO(enlarged(data, "png")[0])).text["Comment"] == "a comment"
    for name in ("tiff", "webp", "avif", "bmp"):
        assert "cannot take over: comment" in enlarged(data, name)[1]


def aspects(data):
    if data[:2] == b"II":
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            tags = file.pages[0].tags
            x, y = (tags[code].value[0] / tags[code].value[1] for code in (282, 283))
            return tags[296].value == 1, x / y
    info = Image.open(io.BytesIO(data)).info
    if "jfif_unit" in info:
        return info["jfif_unit"] == 0, info["jfif_density"][0] / info["jfif_density"][1]
    return True, info["aspect"][0] / info["aspect"][1]


@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_are_not_square(turned):
    """faults.md 7: kept, turned with the picture; where a format has no place for it, said."""
    own = Image.Exif()
    own[0x0112] = 6 if turned else 1
    flat = jpeg(exif=own)
    at = flat.index(b"JFIF\0") + 7
    data = flat[:at] + b"\0\0\2\0\1" + flat[at + 5 :]
    for name in ("jpeg", "png", "tiff"):
        made, notes = enlarged(data, name)
        assert aspects(made) == (True, pytest.approx(0.5 if turned else 2, abs=0.002))
        assert notes == ""
    assert "stretched" in enlarged(data, "webp")[1]


def test_resolution_turns_with_the_picture():
    """faults.md 6: dots per inch along x and y."""
    own = Image.Exif()
    own[0x0112], own[0x011A], own[0x011B], own[0x0128] = 6, 300.0, 150.0, 2
    made = enlarged(jpeg(exif=own, dpi=(300, 150)), "jpeg")[0]
    image = Image.open(io.BytesIO(made))
    assert image.info["jfif_density"] == (150, 300)
    assert (image.getexif()[0x011A], image.getexif()[0x011B]) == (150, 300)


def test_map_coordinates_in_any_of_their_tags():
    """faults.md 6: the scale of a pixel is not true of a smaller one."""
    for number, count in ((33550, 3), (33922, 6), (34264, 16)):
        tags = {number: (12, count, bytes(8 * count))}
        made, notes = enlarged(tiff_of(RGB, tags), "tiff")
        assert "GeoTIFF" in notes
        with tifffile.TiffFile(io.BytesIO(made)) as file:
            assert number not in file.pages[0].tags


def test_descriptions_of_a_layout():
    """faults.md 6: what tifffile, ImageJ or OME wrote of shapes would mislead their readers."""
    for text in (b'{"shape": [48, 64, 3]}\0', b"ImageJ=1.53\nimages=1\n\0", b"<OME xmlns=''/>\0"):
        made, notes = enlarged(tiff_of(RGB, {270: (2, len(text), text)}), "tiff")
        assert "description" in notes
        with tifffile.TiffFile(io.BytesIO(made)) as file:
            assert "ImageDescription" not in file.pages[0].tags
    text = b"A holiday\0"
    made, notes = enlarged(tiff_of(RGB, {270: (2, len(text), text)}), "tiff")
    assert notes == ""
    with tifffile.TiffFile(io.BytesIO(made)) as file:
        assert file.pages[0].description == "A holiday"


@pytest.mark.parametrize("name", ["tiff", "png", "jpeg"])
def test_white_and_primaries_of_a_tiff(name):
    """faults.md 7: they say what colours mean where there is no profile."""
    white = struct.pack("<4I", 3127, 10_000, 3290, 10_000)
    primaries = struct.pack("<12I", *range(1, 13))
    data = tiff_of(RGB, {318: (5, 2, white), 319: (5, 6, primaries)})
    found = Image.open(io.BytesIO(enlarged(data, name)[0])).getexif()
    assert [round(float(value), 4) for value in found[318]] == [0.3127, 0.329]
    assert len(found[319]) == 6


def test_content_credentials():
    """faults.md 6: they sign the old pixels."""
    data = with_segment(jpeg(), 0xEB, b"JP\0\1\0\0\0\1" + bytes(30))
    chunk = png_with([(b"caBX", bytes(30))])
    tags = tiff_of(RGB, {52545: (7, 30, bytes(30))})
    for content in (data, chunk, tags):
        made, notes = enlarged(content)
        assert "content credentials" in notes
        assert b"caBX" not in made


def test_png_chunks_that_are_not_true_any_more():
    """faults.md 6."""
    chunks = [(b"oFFs", bytes(9)), (b"sCAL", b"\x011\x001"), (b"hIST", bytes(6))]
    made, notes = enlarged(png_with(chunks[:2]))
    assert "oFFs" in notes
    assert "sCAL" in notes
    assert not any(chunk[0] in made for chunk in chunks)


def test_a_suggested_background():
    """faults.md 6: kept where it means the same, GIMP writes one into most of its files."""
    for value in (b"\0\x10\0\x20\0\x30", b"\0\x10", b""):
        made, notes = enlarged(png_with([(b"bKGD", value)]))
        assert ((b"bKGD" + value) in made) == (len(value) == 6)
        assert notes == ""


def test_colour_codes_that_a_profile_does_not_replace():
    """faults.md 6: cICP goes before a profile, so losing it changes colours."""
    for codes, odd in ((bytes((9, 16, 0, 1)), True), (bytes((1, 13, 0, 1)), False)):
        data = png_with([(b"cICP", codes)])
        assert ("colours will look different" in enlarged(data, "jpeg")[1]) == odd
        assert (b"cICP" + codes) in enlarged(data, "png")[0]


def test_a_profile_for_other_channels():
    """faults.md 6: left out with a note."""
    from test_images_metadata import GRAY

    made, notes = enlarged(jpeg(icc_profile=GRAY))
    assert "profile" in notes
    assert "icc_profile" not in Image.open(io.BytesIO(made)).info


def test_colours_that_became_srgb():
    """faults.md 6: inks are gone, and so is what was said of them."""
    own = Image.Exif()
    own.get_ifd(0x8769)[0xA001] = 65535
    spaces = b' xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" photoshop:ColorMode="4"'
    packet = xmp('exif:ColorSpace="65535"').replace(
        b" exif:ColorSpace", spaces + b" exif:ColorSpace"
    )
    inks = pillow_bytes(Image.fromarray(RGB).convert("CMYK"), "JPEG", exif=own)
    for data, expected in ((with_xmp(inks, packet), 1), (with_xmp(jpeg(exif=own), packet), 65535)):
        made = enlarged(data)[0]
        found = Image.open(io.BytesIO(made)).getexif().get_ifd(0x8769)
        assert found[0xA001] == expected
        text = packet_of(made)
        assert tag(text, "exif:ColorSpace") == str(expected)
        assert tag(text, "photoshop:ColorMode") == ("3" if expected == 1 else "4")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["AVIF", "HEIF"])
def test_what_the_decoder_has_turned(format, orientation):
    """faults.md 6: the container says how to turn; places in EXIF are those before."""
    if format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    painted = np.zeros((48, 64, 3), np.uint8)
    painted[8:24, 8:24] = 255  # centre 16, 16
    subject = b"Exif\0\0" + blob("<", orientation, (16, 16, 16, 16))[0]
    data = pillow_bytes(painted, format, exif=subject, quality=100, subsampling="4:4:4")
    made, _ = enlarged(data, "png")
    found = Image.open(io.BytesIO(made)).getexif()
    assert found.get(0x0112, 1) == 1
    rows, columns = np.nonzero(pillow_array(made)[..., 0] > 128)
    expected = (columns.min() + 24, rows.min() + 24, 48, 48)
    assert found.get_ifd(0x8769)[0x9214] == expected


def test_places_turn_as_pixels_do():
    change = Change(stored=(64, 48), orientation=6, width=96, height=128)
    assert change.subject([10, 20]) == [2 * (48 - 20), 2 * 10]
    assert Change(stored=None, orientation=1, width=1, height=1).subject([1, 2]) is None
    assert exif.orientation_of(None) is None
    assert longs(1)[0] == shorts(1)[0] + 1
    assert tiff_by_tifffile(RGB, photometric="rgb")[:2] == b"II"
