"""What is written beside the pixels is true of them: scaled, turned, gone, or said to be lost."""

import hashlib
import io
import re
import struct
import zlib

import numpy as np
import pytest
import tifffile
from odd_files import (
    RGB,
    jpeg,
    longs,
    png_with,
    segment,
    shorts,
    tiff_by_tifffile,
    tiff_of,
    with_segment,
    xmp,
)
from pictures import pillow_array, pillow_bytes
from PIL import Image, ImageOps

from srcli.images import Metadata, Picture, SaveOptions, check_output, encode, exif, read
from srcli.images.geometry import Change
from srcli.images.xmp import current, orientation_of

FACTOR = 3
HOLD_ALL = ("png", "tiff", "jpeg", "webp", "avif")
XMP_START = b"http://ns.adobe.com/xap/1.0/\0"


def enlarged(data, name="png", factor=FACTOR):
    """What `srcli upscale` would write, by repetition; and the notes."""
    shown = read(data, name="x")
    color = shown.color.repeat(factor, 0).repeat(factor, 1)
    notes = check_output(
        color.shape[1], color.shape[0], False, shown.bits, name, SaveOptions(), "x",
        channels=color.shape[2], metadata=shown.metadata,
    )  # fmt: skip
    made = encode(Picture(color=color, metadata=shown.metadata), SaveOptions(format=name))
    return made, " ".join((*shown.notes, *notes))


def packet_of(data):
    """The XMP in a file, as text; Pillow reads it, and tifffile."""
    if data[:2] in (b"II", b"MM"):
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            return bytes(file.pages[0].tags[700].value).decode()
    return read(data).metadata.xmp.decode()


def with_xmp(data, packet):
    return with_segment(data, 0xE1, XMP_START + packet)


def tag(text, name):
    """A simple property, as attribute or element."""
    found = re.search(rf"{name}(?:=['\"]|>)([^<'\"]*)", text)
    return found and found[1]


# Orientation --------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", [2, 3, 6, 8])
@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
def test_orientation_that_only_xmp_states(format, orientation):
    """faults.md 5: applied as Pillow applies it, and only then said to be upright."""
    packet = xmp(f'tiff:Orientation="{orientation}"')
    image = Image.fromarray(RGB)
    if format == "JPEG":
        data = with_xmp(jpeg(), packet)
    elif format == "PNG":
        data = png_with([(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)])
    else:
        data = pillow_bytes(image, format, xmp=packet, lossless=True)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    np.testing.assert_array_equal(read(data).color, expected)
    again = Image.open(io.BytesIO(enlarged(data)[0]))
    assert again.size == (expected.shape[1] * FACTOR, expected.shape[0] * FACTOR)
    assert again.getexif().get(0x0112, 1) == 1


def test_exif_goes_before_xmp():
    """faults.md 5."""
    own = Image.Exif()
    own[0x0112] = 3
    data = with_xmp(jpeg(exif=own), xmp('tiff:Orientation="6"'))
    np.testing.assert_array_equal(read(data).color, pillow_array(jpeg())[::-1, ::-1])
    assert tag(packet_of(enlarged(data)[0]), "tiff:Orientation") == "1"


@pytest.mark.parametrize("turned", [True, False])
def test_orientation_in_png_text(turned):
    """faults.md 5: what ImageMagick copies from EXIF is 1 once the pixels are turned."""
    own = Image.Exif()
    own[0x0112] = 6 if turned else 1
    text = (b"tEXt", b"exif:Orientation\x006")
    width = (b"tEXt", b"exif:PixelXDimension\x0064")
    data = png_with([(b"eXIf", own.tobytes()[6:]), text, width])
    made = Image.open(io.BytesIO(enlarged(data)[0]))
    assert made.text["exif:Orientation"] == ("1" if turned else "6")
    assert made.text["exif:PixelXDimension"] == str((48 if turned else 64) * FACTOR)


# XMP that describes pixels ------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOLD_ALL)
def test_sizes_and_storage_in_xmp(name):
    """faults.md 6, under other prefixes than the usual ones."""
    packet = (
        xmp(
            'tiff:ImageWidth="64" exif:PixelYDimension="48" tiff:Compression="1" xmp:Rating="4"'
            ' dc:format="image/jpeg"',
            "<tiff:BitsPerSample><rdf:Seq><rdf:li>8</rdf:li></rdf:Seq></tiff:BitsPerSample>"
            "<tiff:ImageLength>48</tiff:ImageLength>",
        )
        .replace(b"tiff:", b"t1:")
        .replace(b"xmlns:tiff", b"xmlns:t1")
    )
    text = packet_of(enlarged(with_xmp(jpeg(), packet), name)[0])
    assert (tag(text, "t1:ImageWidth"), tag(text, "t1:ImageLength")) == ("192", "144")
    assert tag(text, "exif:PixelYDimension") == "144"
    assert tag(text, "dc:format") == f"image/{name}"
    assert tag(text, "xmp:Rating") == "4"
    assert "Compression" not in text
    assert "BitsPerSample" not in text


GONE = {
    "gain map": (
        'hdrgm:Version="1.0"',
        '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item '
        'Item:Semantic="GainMap" Item:Length="1234"/></rdf:li></rdf:Seq></Container:Directory>',
    ),
    "motion photo": ('GCamera:MotionPhoto="1" GCamera:MicroVideoOffset="5000"', ""),
    "depth map": ('GDepth:Mime="image/png"', "<GDepth:Data>aaaa</GDepth:Data>"),
}


@pytest.mark.parametrize("name", HOLD_ALL)
@pytest.mark.parametrize("what", GONE)
def test_parts_that_are_gone(what, name):
    """faults.md 6: no pointer to what no output has; what is lost is said."""
    attributes, elements = GONE[what]
    packet = xmp(f'xmp:Rating="4" {attributes}', elements)
    made, notes = enlarged(with_xmp(jpeg(), packet), name)
    text = packet_of(made)
    assert what in notes
    for word in ("hdrgm:Version", "Item:", "Container:Directory", "MotionPhoto=", "MicroVideo",
                 "GDepth:Data", "GDepth:Mime"):  # fmt: skip
        assert word not in text
    assert tag(text, "xmp:Rating") == "4"


def test_a_container_alone_says_what_is_lost():
    """faults.md 6: without the claims that usually go with it."""
    items = "".join(f'<Container:Item Item:Semantic="{s}"/>' for s in ("Primary", "Depth"))
    made, notes = enlarged(with_xmp(jpeg(), xmp("", f"<Container:Directory>{items}"
                                                    "</Container:Directory>")))  # fmt: skip
    assert "depth map" in notes
    assert "Item:" not in packet_of(made).replace("xmlns:Item", "")


def extended_jpeg(content):
    guid = hashlib.md5(content).hexdigest().upper()
    data = with_xmp(jpeg(), xmp(f'xmp:Rating="4" xmpNote:HasExtendedXMP="{guid}"'))
    at = data.index(b"\xff\xdb")
    parts = b""
    for start in range(0, len(content), 60_000):
        place = guid.encode() + struct.pack(">II", len(content), start)
        body = b"http://ns.adobe.com/xmp/extension/\0" + place + content[start : start + 60_000]
        parts += segment(0xE1, body)
    return data[:at] + parts + data[at:]


@pytest.mark.parametrize("name", HOLD_ALL)
def test_extended_xmp(name):
    """faults.md 6: joined with the rest; in a JPEG split again, and the pointer is right."""
    content = xmp("", "<dc:source>" + "q" * 70_000 + "</dc:source>")
    made, notes = enlarged(extended_jpeg(content), name)
    text = packet_of(made)
    assert tag(text, "dc:source") == "q" * 70_000
    assert tag(text, "xmp:Rating") == "4"
    assert notes == ""
    if name != "jpeg":
        assert "HasExtendedXMP" not in text
        return
    guids = re.findall(rb'HasExtendedXMP="(\w{32})"', made)
    pieces = made.split(b"http://ns.adobe.com/xmp/extension/\0")[1:]
    assert len(pieces) == 2
    assert {piece[:32] for piece in pieces} == set(guids)
    whole = b"".join(piece[40 : 40 + 65_000] for piece in pieces)
    whole = whole[: struct.unpack(">I", pieces[0][32:36])[0]]
    assert hashlib.md5(whole).hexdigest().upper().encode() == guids[0]


def test_extended_xmp_that_is_damaged():
    """faults.md 6: lost with a note, and so is its pointer."""
    data = extended_jpeg(xmp("", "<dc:source>" + "q" * 70_000 + "</dc:source>"))
    at = data.rindex(b"http://ns.adobe.com/xmp/extension/\0")
    made, notes = enlarged(data[:at] + b"x" + data[at + 1 :])
    assert "part of its XMP" in notes
    assert "HasExtendedXMP" not in packet_of(made)


def areas(unit="normalized", x=0.25, y=0.1, w=0.2, h=0.05, applied=(64, 48)):
    return xmp(
        "",
        '<mwg-rs:Regions rdf:parseType="Resource"><mwg-rs:AppliedToDimensions '
        f'stDim:w="{applied[0]}" stDim:h="{applied[1]}" stDim:unit="pixel"/><mwg-rs:RegionList>'
        '<rdf:Bag><rdf:li><rdf:Description mwg-rs:Name="me"><mwg-rs:Area '
        f'stArea:x="{x}" stArea:y="{y}" stArea:w="{w}" stArea:h="{h}" stArea:unit="{unit}"/>'
        "<MPReg:Rectangle>0.15, 0.075, 0.2, 0.05</MPReg:Rectangle>"
        "</rdf:Description></rdf:li></rdf:Bag></mwg-rs:RegionList></mwg-rs:Regions>",
    )


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("unit", ["normalized", "pixel"])
def test_regions_follow_the_pixels(orientation, unit):
    """faults.md 6: a rectangle painted into the stored picture is where the output says it is."""
    painted = np.zeros((48, 64, 3), np.uint8)
    painted[12:24, 8:24] = 255  # centre 16, 18; sides 16, 12
    own = Image.Exif()
    own[0x0112] = orientation
    values = (16, 18, 16, 12) if unit == "pixel" else (0.25, 0.375, 0.25, 0.25)
    packet = areas(unit, *values).replace(b"0.15, 0.075, 0.2, 0.05", b"0.125, 0.25, 0.25, 0.25")
    data = png_with(
        [(b"eXIf", own.tobytes()[6:]), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)], painted
    )
    made = enlarged(data)[0]
    pixels, text = pillow_array(made), packet_of(made)
    height, width = pixels.shape[:2]
    x, y, w, h = (float(tag(text, f"stArea:{key}")) for key in "xywh")
    if unit == "normalized":
        x, y, w, h = x * width, y * height, w * width, h * height
    assert (tag(text, "stDim:w"), tag(text, "stDim:h")) == (str(width), str(height))
    rows, columns = np.nonzero(pixels[..., 0])
    found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert (x - w / 2, y - h / 2, x + w / 2, y + h / 2) == pytest.approx(found, abs=0.01)
    left, top, across, down = (float(n) for n in tag(text, "MPReg:Rectangle").split(","))
    box = (left * width, top * height, (left + across) * width, (top + down) * height)
    assert box == pytest.approx(found, abs=0.01)


def test_panoramas_scale():
    """faults.md 6: numbers of pixels; where the picture is turned they go, with a note."""
    packet = xmp('GPano:FullPanoWidthPixels="64" GPano:CroppedAreaTopPixels="7"')
    text = packet_of(enlarged(with_xmp(jpeg(), packet))[0])
    assert tag(text, "GPano:FullPanoWidthPixels") == "192"
    assert tag(text, "GPano:CroppedAreaTopPixels") == "21"
    own = Image.Exif()
    own[0x0112] = 6
    made, notes = enlarged(with_xmp(jpeg(exif=own), packet))
    assert "panorama" in notes
    assert "PanoWidth" not in packet_of(made)


@pytest.mark.parametrize(
    "packet",
    [
        b"<x:xmpmeta><broken",
        b"\xff\xfe\x00",
        b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>',
        b"<a>" * 5000,
        b"",
    ],
)
def test_xmp_that_cannot_be_read(packet):
    """faults.md 6: left out with a note, never passed on unread."""
    data = png_with([(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + packet)])
    shown = read(data, name="x")
    assert shown.metadata.xmp is None
    assert shown.notes == (("x: its XMP is damaged and left out",) if packet else ())
    assert orientation_of(packet) is None


def test_what_is_not_touched_stays():
    """Byte by byte, whatever the prefixes, comments and processing instructions."""
    packet = b'<?xpacket begin="" id="W5M0"?>' + xmp('xmp:Rating="4"', "<!-- c --> &amp;")
    packet += b"\n" * 100 + b'<?xpacket end="w"?>'
    change = Change(stored=(1, 1), orientation=1, width=2, height=2)
    assert current(packet, change, "png").data == packet


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
