"""What travels beside the pixels: profiles, EXIF, XMP, IPTC, resolution, PNG chunks."""

import io
import json
import shutil
import struct
import subprocess
import zlib
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms
from support.pictures import picture, pillow_bytes, raw_png, smooth

from srcli.images import (
    FORMATS,
    Picture,
    SaveOptions,
    StripReader,
    StripWriter,
    check_output,
    encode,
    exif,
    read,
    tags,
)
from srcli.images.geometry import Change
from srcli.images.picture import Metadata

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
GRAY = SRGB[:16] + b"GRAY" + SRGB[20:]
HOLD_ALL = ("png", "tiff", "jpeg", "webp", "avif")
MAKER_NOTE = b"MAKER\0" + bytes(range(60))
THUMBNAIL = b"\xff\xd8 a thumbnail \xff\xd9" * 9
XMP = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description tiff:Orientation="6"
 exif:PixelXDimension='56'><exif:PixelYDimension>40</exif:PixelYDimension><dc:creator>me
</dc:creator><xmp:Thumbnails><rdf:Alt>old</rdf:Alt></xmp:Thumbnails></rdf:Description></rdf:RDF>
</x:xmpmeta>"""


def made_exif(order="<", orientation=6):
    """EXIF data as a camera lays it out: first directory, EXIF, GPS, maker note, thumbnail."""

    def entry(tag, kind, count, value):
        if isinstance(value, int):
            value = struct.pack(order + ("H" if kind == 3 else "I"), value)
        return struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0")

    def table(*entries, following=0):
        count = struct.pack(order + "H", len(entries))
        return count + b"".join(entries) + struct.pack(order + "I", following)

    def size(entries):
        return 2 + 12 * entries + 4

    first_at = 8
    exif_at = first_at + size(7)
    gps_at = exif_at + size(4)
    second_at = gps_at + size(2)
    values_at = second_at + size(2)
    values = [b"Maker of things\0", struct.pack(order + "II", 3001, 10), MAKER_NOTE,
              struct.pack(order + "6I", 12, 1, 30, 1, 0, 1), THUMBNAIL]  # fmt: skip
    at = [values_at + sum(map(len, values[:i])) for i in range(len(values))]
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", first_at)
    first = table(
        entry(0x010F, 2, 16, at[0]),
        entry(0x0112, 3, 1, orientation),
        entry(0x011A, 5, 1, at[1]),
        entry(0x011B, 5, 1, at[1]),
        entry(0x0128, 3, 1, 2),
        entry(0x8769, 4, 1, exif_at),
        entry(0x8825, 4, 1, gps_at),
        following=second_at,
    )
    inner = table(
        entry(0x927C, 7, len(MAKER_NOTE), at[2]),
        entry(0xA002, 3, 1, 56),
        entry(0xA003, 4, 1, 40),
        entry(0xFDE9, 2, 4, b"own\0"),  # known to nobody
    )
    gps = table(entry(0x0001, 2, 2, b"N\0"), entry(0x0002, 5, 3, at[3]))
    second = table(entry(0x0201, 4, 1, at[4]), entry(0x0202, 4, 1, len(THUMBNAIL)))
    return head + first + inner + gps + second + b"".join(values)


def written(name, metadata, factor=2, options=None, source=None):
    """The bytes of a picture `factor` times as large as 40 x 56, with metadata."""
    color = np.kron(source if source is not None else smooth(), np.ones((factor, factor, 1)))
    shown = Picture(color=color.astype(np.uint8), metadata=metadata)
    return encode(shown, options or SaveOptions(format=name))


def exif_of(data):
    """EXIF tags as Pillow sees them."""
    return Image.open(io.BytesIO(data)).getexif()


def png_chunks(data):
    at, found = 8, []
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        body, crc = data[at + 4 : at + 8 + size], data[at + 8 + size : at + 12 + size]
        assert int.from_bytes(crc, "big") == zlib.crc32(body)
        found.append((body[:4], body[4:]))
        at += size + 12
    return found


# Profiles ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("name", HOLD_ALL)
def test_profile_is_unchanged(name, bits):
    shown = replace(picture(3, bits=bits), metadata=Metadata(icc=SRGB))
    data = encode(shown, SaveOptions(format=name))
    if bits == 16 and name in ("png", "tiff"):
        assert SRGB in data or zlib.compress(SRGB) in data
    else:
        assert Image.open(io.BytesIO(data)).info["icc_profile"] == SRGB
    assert read(data).metadata.icc == SRGB


def test_large_profile_in_jpeg_segments():
    profile = SRGB + np.random.default_rng(0).bytes(200_000)
    data = written("jpeg", Metadata(icc=profile))
    assert Image.open(io.BytesIO(data)).info["icc_profile"] == profile
    assert read(data).metadata.icc == profile


@pytest.mark.parametrize("name", ["png", "tiff", "jpeg"])
def test_grey_profile(name):
    shown = replace(picture(1), metadata=Metadata(icc=GRAY))
    data = encode(shown, SaveOptions(format=name))
    assert Image.open(io.BytesIO(data)).info["icc_profile"] == GRAY


def test_profiles_that_do_not_fit_are_left_out_with_a_note():
    grey = replace(picture(1), metadata=Metadata(icc=GRAY))
    for shown, name in ((replace(grey, color=picture(3).color), "png"), (grey, "webp")):
        data = encode(shown, SaveOptions(format=name))
        assert "icc_profile" not in Image.open(io.BytesIO(data)).info
        channels = shown.color.shape[2]
        arguments = (9, 9, False, 8, name, SaveOptions(), "x")
        notes = check_output(*arguments, channels=channels, metadata=shown.metadata)
        assert len(notes) == 1 and "profile" in notes[0]


def test_a_damaged_profile_is_noted():
    shown = read(pillow_bytes(smooth(), "JPEG", icc_profile=b"nonsense" * 20), name="x")
    assert shown.metadata.icc is None
    assert shown.notes == ("x: its colour profile is damaged and left out",)


# EXIF --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", HOLD_ALL)
def test_exif_is_kept_and_corrected(name, source, order):
    data = pillow_bytes(smooth(), source, exif=b"Exif\0\0" + made_exif(order))
    shown = read(data)
    assert (shown.height, shown.width) == (56, 40), "turned"
    found = exif_of(encode(shown, SaveOptions(format=name)))
    inner, gps = found.get_ifd(0x8769), found.get_ifd(0x8825)
    assert found[0x010F] == "Maker of things"
    assert found.get(0x0112, 1) == 1
    assert (inner[0xA002], inner[0xA003]) == (40, 56)
    assert gps[1] == "N" and gps[2] == (12, 30, 0)
    assert inner[0x927C] == MAKER_NOTE and inner[0xFDE9] == "own"


@pytest.mark.parametrize("order", ["<", ">"])
def test_nothing_moves_in_exif(order):
    before = made_exif(order)
    change = Change(stored=(56, 40), orientation=6, width=70_000, height=30)
    after = exif.updated(before, change)
    assert len(after) == len(before) - len(THUMBNAIL)
    assert THUMBNAIL not in after
    assert after.index(MAKER_NOTE) == before.index(MAKER_NOTE)
    changed = [i for i, byte in enumerate(after) if byte != before[i]]
    assert len(changed) < 50
    layout = tags.layout_of(tags.reader_of(after))
    inner = tags.directory(layout, layout.first()).children[0x8769].values
    assert (inner[0xA002].kind, inner[0xA002].integer()) == (4, 70_000), "too large for SHORT"
    assert (inner[0xA003].kind, inner[0xA003].integer()) == (4, 30)


def test_jpeg_has_jfif_then_exif():
    data = written("jpeg", Metadata(exif=made_exif(), dpi=(300.0, 150.0)))
    assert data[2:11] == b"\xff\xe0\0\x10JFIF\0" and data[20:22] == b"\xff\xe1"
    image = Image.open(io.BytesIO(data))
    assert image.info["jfif_density"] == (300, 150)


def test_exif_through_tiff():
    """From JPEG to TIFF, and from there to PNG: directories are rewritten."""
    data = written("tiff", Metadata(exif=made_exif(">"), dpi=(300.1, 300.1)))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        assert page.tags["Make"].value == "Maker of things"
        assert page.tags["ExifTag"].value["PixelXDimension"] == 112
        assert page.asarray().shape == (80, 112, 3)
    shown = read(data)
    found = exif_of(encode(shown, SaveOptions(format="png")))
    assert found[0x010F] == "Maker of things"
    assert found.get_ifd(0x8769)[0x927C] == MAKER_NOTE
    assert found.get_ifd(0x8825)[2] == (12, 30, 0)
    assert shown.metadata.dpi == pytest.approx((300.1, 300.1), abs=1e-3)


def test_exif_too_large_for_jpeg_is_noted():
    large = pillow_bytes(smooth(), "PNG", exif=made_exif() + bytes(70_000))
    metadata = read(large).metadata
    assert len(metadata.exif) > 70_000
    data = written("jpeg", metadata)
    assert "exif" not in Image.open(io.BytesIO(data)).info
    notes = check_output(9, 9, False, 8, "jpeg", SaveOptions(), "x.jpg", metadata=metadata)
    assert notes == ["x.jpg: jpeg cannot take over: EXIF"]


def test_damaged_exif_is_noted():
    for broken in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\xff\xff\xff\x7f", b"Exif\0\0"):
        shown = read(pillow_bytes(smooth(), "JPEG", exif=broken), name="x")
        assert shown.metadata.exif is None
        assert shown.notes == ("x: its EXIF data is damaged and left out",)


def test_exif_that_points_to_itself():
    data = bytearray(made_exif())
    at = data.index(struct.pack("<HHI", 0x8769, 4, 1))
    data[at + 8 : at + 12] = struct.pack("<I", 8)
    data[8 + 2 + 7 * 12 : 8 + 2 + 7 * 12 + 4] = struct.pack("<I", 8)
    assert exif.checked(bytes(data)) is not None
    change = Change(stored=(56, 40), orientation=6, width=1, height=1)
    assert len(exif.updated(bytes(data), change)) <= len(data)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_exif_of_any_bytes(data):
    """Never anything but bytes or None."""
    blob = bytearray(made_exif(data.draw(st.sampled_from("<>"))))
    for _ in range(data.draw(st.integers(1, 20))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    mutated = exif.checked(bytes(blob[: data.draw(st.integers(0, len(blob)))]))
    if mutated is not None:
        assert exif.orientation_of(mutated) in (None, *range(1, 9))
        change = Change(stored=(5, 10), orientation=5, width=20, height=10)
        updated = exif.updated(mutated, change)
        again = exif.with_resolution(updated, (300, 300))
        assert isinstance(again, bytes)


# XMP, IPTC ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOLD_ALL)
def test_xmp_is_kept_and_corrected(name):
    data = written(name, Metadata(xmp=XMP))
    packet = read(data).metadata.xmp
    assert packet is not None
    assert b'tiff:Orientation="1"' in packet
    assert b"exif:PixelXDimension='112'" in packet
    assert b"<exif:PixelYDimension>80</exif:PixelYDimension>" in packet
    assert b"Thumbnails" not in packet and b"<dc:creator>me" in packet
    if name in ("jpeg", "webp", "png"):
        theirs = Image.open(io.BytesIO(data)).info["xmp"]
        assert theirs == packet


def iptc_resources():
    record = b"\x1c\x02\x19\0\x07keyword"
    resources = b""
    for number, data in ((0x0404, record), (0x040C, b"thumbnail!"), (0x03ED, bytes(16))):
        resources += b"8BIM" + struct.pack(">HHI", number, 0, len(data)) + data
        resources += b"\0" * (len(data) % 2)
    return resources


def test_iptc_between_jpeg_and_tiff():
    jpeg = written("jpeg", Metadata(iptc=iptc_resources()))
    theirs = Image.open(io.BytesIO(jpeg)).info["photoshop"]
    assert theirs[0x0404].endswith(b"keyword") and 0x040C not in theirs
    tiff = encode(read(jpeg), SaveOptions(format="tiff"))
    with tifffile.TiffFile(io.BytesIO(tiff)) as file:
        assert b"keyword" in bytes(file.pages[0].tags[34377].value)
    again = Image.open(io.BytesIO(encode(read(tiff), SaveOptions(format="jpeg"))))
    assert again.info["photoshop"][0x0404] == theirs[0x0404]


# Resolution --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_resolution(name):
    data = written(name, Metadata(dpi=(300.0, 150.0)))
    assert read(data).metadata.dpi == pytest.approx((300, 150), abs=0.02)
    if name not in ("webp", "avif"):
        theirs = Image.open(io.BytesIO(data)).info["dpi"]
        assert [float(value) for value in theirs] == pytest.approx([300, 150], abs=0.02)
    else:
        assert exif_of(data)[0x011A] == 300


@pytest.mark.parametrize("name", HOLD_ALL)
def test_no_resolution_stays_none(name):
    data = written(name, Metadata())
    assert read(data).metadata.dpi is None
    assert "dpi" not in Image.open(io.BytesIO(data)).info


def test_senseless_resolution_is_left_out(capfd):
    for name in FORMATS:
        data = written(name, Metadata(dpi=(1e9, 72)))
        assert read(data).metadata.dpi is None or name == "bmp"
    assert capfd.readouterr().err == ""


# PNG chunks --------------------------------------------------------------------------------------


def png_with(*chunks):
    rows = b"".join(b"\0" + bytes(range(3 * y, 3 * y + 24)) for y in range(6))
    return raw_png(8, 6, 8, 2, rows, chunks)


def test_png_text_and_color_chunks_are_kept():
    kept = [
        (b"gAMA", struct.pack(">I", 100_000)),
        (b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)),
        (b"cICP", bytes((9, 16, 0, 1))),
        (b"tEXt", b"parameters\0steps: 20, \xe9"),
        (b"iTXt", b"Title\0\0\0de\0Titel\0" + "Größe".encode()),
        (b"zTXt", b"Comment\0\0" + zlib.compress(b"hello")),
    ]
    shown = read(png_with(*kept))
    found = png_chunks(encode(shown, SaveOptions(format="png")))
    assert [chunk for chunk in found if chunk in kept] == kept
    assert [kind for kind, _ in found[-1:]] == [b"IEND"]
    arguments = (9, 9, False, 8, "jpeg", SaveOptions(), "x.jpg")
    notes = check_output(*arguments, metadata=shown.metadata)
    assert len(notes) == 1 and "PNG text" in notes[0] and "gamma" in notes[0]
    plain = read(png_with((b"gAMA", struct.pack(">I", 45455)), (b"sRGB", b"\0")))
    assert check_output(*arguments, metadata=plain.metadata) == []


def test_wide_colors_of_avif_reach_png():
    data = pillow_bytes(smooth(), "AVIF")
    assert read(data).metadata.png_color == ()
    at = data.index(b"colrnclx") + 8
    wide = data[:at] + struct.pack(">HH", 9, 16) + data[at + 4 :]  # BT.2020, PQ
    shown = read(wide)
    assert (b"cICP", bytes((9, 16, 0, 1))) in png_chunks(encode(shown, SaveOptions(format="png")))
    arguments = (9, 9, False, 8, "avif", SaveOptions(), "x.avif")
    assert "colour space" in check_output(*arguments, metadata=shown.metadata)[0]


def test_exif_and_xmp_as_old_png_text():
    """ImageMagick's raw profiles: taken over once, not kept beside the corrected data."""

    def raw(name, data):
        text = f"\n{name}\n{len(data):8}\n{data.hex()}\n".encode()
        return b"zTXt", f"Raw profile type {name}".encode() + b"\0\0" + zlib.compress(text)

    shown = read(png_with(raw("exif", b"Exif\0\0" + made_exif()), raw("xmp", XMP)))
    assert shown.metadata.exif == made_exif() and shown.metadata.xmp == XMP
    assert (shown.width, shown.height) == (6, 8)
    data = encode(shown, SaveOptions(format="png"))
    assert b"Raw profile" not in data
    assert exif_of(data)[0x0112] == 1


def test_animation_chunk_with_one_frame_is_a_picture():
    control = (b"acTL", struct.pack(">II", 1, 0))
    assert read(png_with(control)).width == 8


def test_text_after_the_pixels_is_kept():
    data = png_with()
    text = b"tEXtKey\0value"
    late = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    assert read(data[:-12] + late + data[-12:]).metadata.png_text == ((b"tEXt", b"Key\0value"),)


# What is said instead of done ---------------------------------------------------------------------


def test_more_pictures_in_a_jpeg_are_noted():
    data = pillow_bytes(smooth(), "JPEG")
    index = b"\xff\xe2" + struct.pack(">H", 20) + b"MPF\0" + bytes(14)
    assert "main picture" in read(data[:2] + index + data[2:], name="x").notes[0]
    assert read(data).notes == ()


def test_map_coordinates_are_noted():
    file = io.BytesIO()
    keys = (34735, 3, 4, (1, 1, 0, 0), True)
    tifffile.imwrite(file, smooth(), photometric="rgb", extratags=[keys])
    assert "GeoTIFF" in read(file.getvalue(), name="x").notes[0]


def test_user_comment_follows_the_byte_order():
    text = b"UNICODE\0" + "Größe".encode("utf-16-be")
    value = tags.Value(7, len(text), text)
    inner = tags.Directory({0x9286: value}, {})
    blob = b"MM\0*\0\0\0\x08" + tags.serialized(tags.Directory({}, {0x8769: inner}), 8, "big")
    data = written("tiff", Metadata(exif=blob))
    assert data[:2] == b"II"
    stored = exif_of(data).get_ifd(0x8769)[0x9286]
    assert bytes(stored) == b"UNICODE\0" + "Größe".encode("utf-16-le")


# Strip, strips, other readers --------------------------------------------------------------------

FULL = Metadata(
    icc=SRGB,
    exif=made_exif(),
    xmp=XMP,
    iptc=iptc_resources(),
    dpi=(300.0, 300.0),
    png_text=((b"tEXt", b"Key\0value"),),
    png_color=((b"gAMA", b"\0\1\0\0"),),
)


@pytest.mark.parametrize("name", FORMATS)
def test_strip_removes_everything(name):
    data = written(name, FULL, options=SaveOptions(format=name, strip=True))
    info = Image.open(io.BytesIO(data)).info
    for key in ("icc_profile", "exif", "xmp", "photoshop", "Key", "gamma"):
        assert key not in info
    assert name == "bmp" or "dpi" not in info
    for secret in (b"Maker of things", MAKER_NOTE, b"creator", b"keyword", b"acsp"):
        assert secret not in data
    again = read(data).metadata
    assert (again.icc, again.exif, again.xmp, again.iptc) == (None,) * 4


@pytest.mark.parametrize("name", [*HOLD_ALL, "bmp"])
def test_strips_carry_the_same(name, tmp_path):
    whole = written(name, FULL, factor=1)
    target = tmp_path / f"x.{name}"
    with StripWriter(
        target, width=56, height=40, channels=3, has_alpha=False, bits=8, metadata=FULL
    ) as writer:
        for top in range(0, 40, 15):
            writer.write(smooth()[top : top + 15])
    assert target.read_bytes() == whole
    with StripReader(target) as reader:
        assert reader.metadata == read(target).metadata


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="needs exiftool")
@pytest.mark.parametrize("name", HOLD_ALL)
def test_exiftool_finds_nothing_wrong(name, tmp_path):
    path = tmp_path / f"x.{name}"
    path.write_bytes(written(name, FULL))
    command = ["exiftool", "-json", "-G1", "-validate", "-warning", "-a", "-Orientation",
               "-ExifImageWidth", "-Creator", "-Keywords", "-GPSLatitude", "-Make"]  # fmt: skip
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)[0]
    assert found["IFD0:Make"] == "Maker of things"
    assert found["GPS:GPSLatitude"].startswith("12 deg 30'")
    assert found["ExifIFD:ExifImageWidth"] == 112
    assert found["XMP-dc:Creator"].strip() == "me"
    assert not any("Orientation" in key and "normal" not in str(found[key]) for key in found)
    if name in ("jpeg", "tiff"):
        assert any(key.endswith("Keywords") and found[key] == "keyword" for key in found)
