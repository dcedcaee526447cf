"""XMP and orientation that are true of what is written."""

import hashlib
import io
import re
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps
from support.enlarging import FACTOR, HOLD_ALL, enlarged, packet_of, tag, with_xmp
from support.odd_files import (
    RGB,
    jpeg,
    png_with,
    segment,
    xmp,
)
from support.pictures import pillow_array, pillow_bytes

from srcli.images import read
from srcli.images.geometry import Change
from srcli.images.xmp import current, orientation_of

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
