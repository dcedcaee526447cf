"""Made pictures of every kind in every format, written by other encoders than srcli's.

Each comes with what it shows and with what travels beside its pixels, so that a test can tell
whether that survives.
"""

from __future__ import annotations

import functools
import io
import struct
import zlib
from dataclasses import dataclass, replace

import numpy as np
import tifffile
from PIL import Image, ImageChops, ImageCms

from support.odd_files import as_bytes, shorts, tiff_by_tifffile, tiff_of, ycbcr
from support.pictures import cmyk_profile, pillow_bytes

WIDTH, HEIGHT = 24, 18
DPI = (300, 150)
MAKER, OWNER, TAKEN = "Maker of things", "Somebody, 2024", "2024:05:06 07:08:09"
NORTH = (52.0, 30.0, 12.0)
_MADE_NOW = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
SRGB = _MADE_NOW[:24] + struct.pack(">6H", 2024, 5, 6, 7, 8, 9) + _MADE_NOW[36:]
GREY_PROFILE = SRGB[:16] + b"GRAY" + SRGB[20:]
XMP = f"""<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"
 xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 tiff:Orientation="1" tiff:ImageWidth="{WIDTH}"
 exif:PixelXDimension="{WIDTH}" exif:PixelYDimension="{HEIGHT}">
<dc:creator>grüße</dc:creator></rdf:Description></rdf:RDF></x:xmpmeta>""".encode()

# Pillow's turn from upright to what is stored, by EXIF orientation.
_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A picture file.

    Attributes:
        name: of the file; the part before the first hyphen is the format.
        content: of the file.
        shows: what is to be seen, upright: H x W x 1 to 4, uint8 or uint16, alpha last.
        tolerance: how far the enlarged picture, reduced again, may be from it on average, in
            levels of 255.
        icc, xmp, dpi: as stored; None where there is none.
        described: whether it has EXIF data.
    """

    name: str
    content: bytes
    shows: np.ndarray
    tolerance: float = 2.0
    icc: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[int, int] | None = None
    described: bool = False

    @property
    def alpha(self):
        return self.shows.shape[2] in (2, 4)

    @property
    def bits(self):
        return 8 * self.shows.dtype.itemsize


@functools.cache
def corpus():
    """All of them, by name."""
    samples = [sample for make in (_png, _tiff, _jpeg, _webp, _avif, _bmp) for sample in make()]
    found = {sample.name: sample for sample in samples}
    assert len(found) == len(samples)
    return found


# How inks without a profile look is a matter of convention, so only roughly known.
_INKS = (("cmyk", {}, 45), ("cmyk-profile", {"icc_profile": cmyk_profile()}, 9))

# What the pictures show ---------------------------------------------------------------------------


def scene(channels, bits=8):
    """A smooth picture without any symmetry: colour, and alpha for 2 and 4 channels."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] / np.array([HEIGHT, WIDTH])[:, None, None]
    planes = [columns * 0.8 + 0.1, 0.9 - rows * 0.7, 0.2 + 0.5 * rows * columns]
    color = planes[:1] if channels < 3 else planes
    alpha = [np.clip(1.6 - 1.2 * rows - 0.8 * columns, 0, 1)] if channels in (2, 4) else []
    return _stored(np.stack([*color, *alpha], -1), bits)


def ramp(channels, bits=16):
    """As many levels as there are pixels."""
    levels = np.linspace(0, 1, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH, 1)
    return _stored(levels.repeat(channels, 2), bits)


def blocks():
    """A few large areas of black and white."""
    picture = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    picture[: HEIGHT // 3] = picture[:, : WIDTH // 4] = 255
    return picture


def cutout(hidden, bits=8):
    """A disc of one colour; `hidden` is the colour under what is transparent."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(rows - HEIGHT / 2.2, columns - WIDTH / 1.9)
    alpha = np.clip(6.5 - distance, 0, 1)[..., None]
    color = np.where(alpha > 0, np.array(CUTOUT), np.array(hidden))
    return _stored(np.concatenate([color, alpha], 2), bits)


CUTOUT = (0.8, 0.5, 0.2)
HIDDEN = {"black": (0, 0, 0), "white": (1, 1, 1), "loud": (0, 1, 1)}


def _stored(values, bits):
    kind = np.uint8 if bits == 8 else np.uint16
    return np.rint(values * (2**bits - 1)).astype(kind)


def described(orientation=None, dpi=None, size=(WIDTH, HEIGHT)):
    """EXIF data; the sizes in it are those of the picture as stored."""
    exif = Image.Exif()
    exif[0x010F], exif[0x8298] = MAKER, OWNER
    if orientation is not None:
        exif[0x0112] = orientation
    if dpi is not None:
        exif[0x011A], exif[0x011B], exif[0x0128] = *(float(value) for value in dpi), 2
    details = exif.get_ifd(0x8769)
    details[0x9003], details[0xA002], details[0xA003] = TAKEN, *size
    place = exif.get_ifd(0x8825)
    place[1], place[2] = "N", NORTH
    return exif


def turned(orientation):
    """The scene as stored for an orientation."""
    image = Image.fromarray(scene(3))
    return image.transpose(_STORED[orientation]) if orientation > 1 else image


# PNG, by hand -------------------------------------------------------------------------------------

_GREY, _RGB, _PALETTE, _GREY_ALPHA, _RGB_ALPHA = 0, 2, 3, 4, 6
_KINDS = {1: _GREY, 2: _GREY_ALPHA, 3: _RGB, 4: _RGB_ALPHA}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
           (0, 1, 1, 2))  # fmt: skip


def png(samples, depth, kind, *chunks, interlaced=False):
    """A PNG file; samples are H x W x bands."""
    height, width, _ = samples.shape
    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, int(interlaced))
    passes = [samples]
    if interlaced:
        passes = [samples[y::down, x::right] for x, y, right, down in _PASSES]
    rows = b"".join(_filtered(part, depth) for part in passes if part.size)
    listed = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in listed
    )


def _filtered(samples, depth):
    height = samples.shape[0]
    if depth == 16:
        data = samples.astype(">u2").reshape(height, -1).view(np.uint8)
    else:
        bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., 8 - depth :]
        data = np.packbits(bits.reshape(height, -1), axis=1)
    return np.pad(data, ((0, 0), (1, 0))).tobytes()  # filter 0


def _png():
    for bits in (8, 16):
        for channels, kind in _KINDS.items():
            shows = scene(channels, bits)
            content = png(shows, bits, kind)
            yield Sample(name=f"png-{channels}x{bits}.png", content=content, shows=shows)
        for channels in (1, 3):
            shows, profile = scene(channels, bits), SRGB if channels == 3 else GREY_PROFILE
            chunk = (b"iCCP", b"name\0\0" + zlib.compress(profile))
            content = png(shows, bits, _KINDS[channels], chunk)
            name = f"png-profile-{channels}x{bits}.png"
            yield Sample(name=name, content=content, shows=shows, icc=profile)
        for hidden, color in HIDDEN.items():
            shows = cutout(color, bits)
            name = f"png-cutout-{hidden}-{bits}.png"
            yield Sample(name=name, content=png(shows, bits, _RGB_ALPHA), shows=shows)
    for channels in (1, 3):
        shows = ramp(channels)
        content = png(shows, 16, _KINDS[channels])
        yield Sample(name=f"png-ramp-{channels}.png", content=content, shows=shows)
    yield from _png_few_bits()
    yield from _png_metadata()


def _png_few_bits():
    yield Sample(
        name="png-1bit.png", content=png(blocks() // 255, 1, _GREY), shows=blocks(), tolerance=8
    )
    for depth in (2, 4):
        levels = scene(1) >> (8 - depth)
        shows = levels * (255 // (2**depth - 1))
        content = png(levels, depth, _GREY)
        yield Sample(name=f"png-{depth}bit.png", content=content, shows=shows, tolerance=6)
    for depth in (2, 4, 8):
        indices, levels = scene(1) >> (8 - depth), np.linspace(0, 1, 2**depth)[:, None]
        colors = _stored(np.array(CUTOUT) * levels + (0.1, 0.4, 0.9) * (1 - levels), 8)
        opacity = _stored(levels[: len(levels) // 2, 0], 8)  # the others are opaque
        opaque = np.concatenate([opacity, np.full(len(levels) - len(opacity), 255, np.uint8)])
        plain, transparent = (b"PLTE", colors.tobytes()), (b"tRNS", opacity.tobytes())
        shows = colors[indices[..., 0]]
        content = png(indices, depth, _PALETTE, plain)
        yield Sample(name=f"png-palette-{depth}.png", content=content, shows=shows, tolerance=8)
        shows = np.concatenate([shows, opaque[indices]], 2)
        content = png(indices, depth, _PALETTE, plain, transparent)
        yield Sample(name=f"png-trns-{depth}.png", content=content, shows=shows, tolerance=16)
    key = scene(3)[0, 0]
    shows = np.concatenate([scene(3), 255 * np.any(scene(3) != key, 2, keepdims=True)], 2)
    content = png(scene(3), 8, _RGB, (b"tRNS", key.astype(">u2").tobytes()))
    shows = shows.astype(np.uint8)
    yield Sample(name="png-transparent-colour.png", content=content, shows=shows, tolerance=4)


def _png_metadata():
    shows = scene(3)
    yield Sample(
        name="png-interlaced.png", content=png(shows, 8, _RGB, interlaced=True), shows=shows
    )
    yield Sample(
        name="png-all.png",
        content=png(shows, 8, _RGB, *_png_chunks(described())),
        shows=shows,
        icc=SRGB,
        xmp=XMP,
        dpi=DPI,
        described=True,
    )
    for orientation in (3, 6):
        stored = np.asarray(turned(orientation))
        exif = described(orientation, size=stored.shape[1::-1])
        yield Sample(
            name=f"png-orientation-{orientation}.png",
            content=png(stored, 8, _RGB, (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))),
            shows=shows,
            described=True,
        )


def _png_chunks(exif):
    per_meter = [round(value / 0.0254) for value in DPI]
    return (
        (b"iCCP", b"name\0\0" + zlib.compress(SRGB)),
        (b"pHYs", struct.pack(">IIB", *per_meter, 1)),
        (b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")),
        (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
    )


# TIFF ---------------------------------------------------------------------------------------------


def tiff(samples, **options):
    """A TIFF file by tifffile; samples are H x W x bands."""
    file = io.BytesIO()
    bands = samples.shape[2]
    settings = {"photometric": "rgb" if bands > 2 else "minisblack", "metadata": None}
    if bands in (2, 4):
        settings["extrasamples"] = ["unassalpha"]
    if bands == 2:
        settings["planarconfig"] = "contig"
    data = samples[..., 0] if bands == 1 else samples
    tifffile.imwrite(file, data, **(settings | options))
    return file.getvalue()


def _tiff():
    for bits in (8, 16):
        for channels in (1, 2, 3, 4):
            shows = scene(channels, bits)
            yield Sample(name=f"tiff-{channels}x{bits}.tif", content=tiff(shows), shows=shows)
        for channels in (1, 3):
            shows, profile = scene(channels, bits), SRGB if channels == 3 else GREY_PROFILE
            name = f"tiff-profile-{channels}x{bits}.tif"
            content = tiff(shows, iccprofile=profile)
            yield Sample(name=name, content=content, shows=shows, icc=profile)
    for channels in (1, 3):
        shows = ramp(channels)
        yield Sample(name=f"tiff-ramp-{channels}.tif", content=tiff(shows), shows=shows)
    for hidden, color in HIDDEN.items():
        shows = cutout(color)
        yield Sample(name=f"tiff-cutout-{hidden}.tif", content=tiff(shows), shows=shows)
    yield from _tiff_layouts()
    yield from _tiff_odd()
    yield from _tiff_metadata()


def _tiff_layouts():
    layouts = {
        "big-endian": {"byteorder": ">"},
        "bigtiff": {"bigtiff": True},
        "deflate": {"compression": "zlib", "predictor": True},
        "tiles": {"tile": (16, 16)},
    }
    for name, options in layouts.items():
        shows = scene(3, 16)
        yield Sample(name=f"tiff-{name}.tif", content=tiff(shows, **options), shows=shows)
    shows = scene(3, 16)
    planes = np.ascontiguousarray(shows.transpose(2, 0, 1))
    file = io.BytesIO()
    tifffile.imwrite(file, planes, photometric="rgb", planarconfig="separate", metadata=None)
    yield Sample(name="tiff-planes.tif", content=file.getvalue(), shows=shows)
    white = tiff(255 - scene(1), photometric="miniswhite")
    yield Sample(name="tiff-white-is-zero.tif", content=white, shows=scene(1))
    for name, options in {"lzw": {}, "jpeg": {"quality": 98}}.items():
        content = pillow_bytes(scene(3), "TIFF", compression=f"tiff_{name}", **options)
        yield Sample(name=f"tiff-{name}.tif", content=content, shows=scene(3), tolerance=4)
    bits = Image.fromarray(blocks()[..., 0]).convert("1")
    for name in ("raw", "group4"):
        content = pillow_bytes(bits, "TIFF", compression=name)
        yield Sample(name=f"tiff-1bit-{name}.tif", content=content, shows=blocks(), tolerance=8)
    palette = Image.fromarray(scene(3)).quantize(64)
    yield Sample(
        name="tiff-palette.tif",
        content=pillow_bytes(palette, "TIFF"),
        shows=np.asarray(palette.convert("RGB")),
        tolerance=6,
    )
    for name, options, tolerance in _INKS:
        content = pillow_bytes(_cmyk(), "TIFF", **options)
        yield Sample(
            name=f"tiff-{name}.tif", content=content, shows=_seen(**options), tolerance=tolerance
        )


def _tiff_odd():
    """What is stated otherwise than usual, or wrongly, and yet whole."""
    shows, fourth = scene(3), scene(1)
    chroma = as_bytes(ycbcr(shows))
    made = {
        "ycbcr": tiff_of(chroma, {262: shorts(6), 530: shorts(1, 1)}),
        "spare-channel": tiff_of(np.dstack([shows, fourth]), {338: shorts(0)}),
        "unnamed-channel": tiff_of(np.dstack([shows, fourth])),
        "orientation-0": tiff_of(shows, {274: shorts(0)}),
        "text-without-end": tiff_of(shows, {305: (2, 8, b"Scanner1")}),
        "no-sizes": tiff_of(shows, drop=[279]),
    }
    for name, content in made.items():
        yield Sample(name=f"tiff-odd-{name}.tif", content=content, shows=shows)
    planes = np.moveaxis(scene(2), -1, 0).copy()
    content = tiff_by_tifffile(
        planes, photometric="minisblack", planarconfig="separate", extrasamples=["unassalpha"]
    )
    yield Sample(name="tiff-odd-planes.tif", content=content, shows=scene(2))


def _tiff_metadata():
    for orientation in range(1, 9):
        stored = turned(orientation)
        exif = described(orientation, size=stored.size).tobytes()
        yield Sample(
            name=f"tiff-orientation-{orientation}.tif",
            content=pillow_bytes(stored, "TIFF", exif=exif, icc_profile=SRGB),
            shows=scene(3),
            icc=SRGB,
            described=True,
        )
    content = tiff(
        scene(3, 16),
        iccprofile=SRGB,
        resolution=DPI,
        resolutionunit="inch",
        extratags=[(700, "B", len(XMP), XMP, True)],
    )
    yield Sample(
        name="tiff-all.tif", content=content, shows=scene(3, 16), icc=SRGB, xmp=XMP, dpi=DPI
    )


# The other formats, by Pillow ---------------------------------------------------------------------


def _lossy(name, format, image, shows=None, **options):
    content = pillow_bytes(image, format, **({"quality": 96} | options))
    array = np.asarray(image) if shows is None else shows
    array = array if array.ndim == 3 else array[..., None]
    return Sample(
        name=name,
        content=content,
        shows=array,
        tolerance=5,
        icc=options.get("icc_profile"),
        xmp=options.get("xmp"),
        dpi=options.get("dpi") if options.get("dpi") != (0, 0) else None,
        described="exif" in options,
    )


def _jpeg():
    color, grey = Image.fromarray(scene(3)), Image.fromarray(scene(1)[..., 0])
    for sampling in ("4:4:4", "4:2:2", "4:2:0"):
        name = f"jpeg-{sampling.replace(':', '')}.jpg"
        yield _lossy(name, "JPEG", color, subsampling=sampling)
    yield _lossy("jpeg-progressive.jpg", "JPEG", color, progressive=True)
    yield _lossy("jpeg-grey.jpg", "JPEG", grey)
    yield _lossy("jpeg-profile.jpg", "JPEG", color, icc_profile=SRGB)
    yield _lossy("jpeg-grey-profile.jpg", "JPEG", grey, icc_profile=GREY_PROFILE)
    yield _lossy("jpeg-dpi.jpg", "JPEG", color, dpi=DPI)
    yield _lossy(
        "jpeg-all.jpg", "JPEG", color, icc_profile=SRGB, exif=described(), xmp=XMP, dpi=DPI
    )
    for orientation in range(1, 9):
        stored = turned(orientation)
        yield _lossy(
            f"jpeg-orientation-{orientation}.jpg",
            "JPEG",
            stored,
            shows=scene(3),
            exif=described(orientation, size=stored.size),
        )
    yield from _jpeg_inks()


def _jpeg_inks():
    settings = {"quality": 100, "subsampling": 0}
    for name, options, tolerance in _INKS:
        content = pillow_bytes(_cmyk(), "JPEG", **settings, **options)
        yield Sample(
            name=f"jpeg-{name}.jpg", content=content, shows=_seen(**options), tolerance=tolerance
        )
    content = bytearray(pillow_bytes(_as_ycck(_cmyk()), "JPEG", **settings))
    content[content.index(b"Adobe") + 11] = 2  # says that the samples are YCCK
    yield Sample(name="jpeg-ycck.jpg", content=bytes(content), shows=_seen(), tolerance=45)


def _as_ycck(inks):
    """What Pillow has to write, which turns all samples over, for a decoder to find these inks."""
    luma = Image.merge("RGB", inks.split()[:3]).convert("YCbCr").split()
    return Image.merge("CMYK", [*(ImageChops.invert(plane) for plane in luma), inks.getchannel(3)])


def _cmyk():
    """Inks that change slowly."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    planes = [columns * 8, rows * 9, 180 - columns * 6, rows * 4]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8), "CMYK")


def _seen(icc_profile=None):
    """What the inks look like: through their profile, or roughly."""
    if icc_profile is None:
        return np.asarray(_cmyk().convert("RGB"))
    shown = ImageCms.profileToProfile(
        _cmyk(),
        ImageCms.ImageCmsProfile(io.BytesIO(icc_profile)),
        ImageCms.createProfile("sRGB"),
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        "RGB",
    )
    return np.asarray(shown)


def _webp():
    options = {"lossless": True, "exact": True}
    for channels in (3, 4):
        name = "alpha" if channels == 4 else "plain"
        image = Image.fromarray(scene(channels))
        yield _lossy(f"webp-{name}.webp", "WEBP", image)
        yield _lossy(f"webp-{name}-lossless.webp", "WEBP", image, **options)
    for hidden, color in HIDDEN.items():
        image = Image.fromarray(cutout(color))
        yield _lossy(f"webp-cutout-{hidden}.webp", "WEBP", image, **options)
    yield from _all_around("webp", "WEBP")


def _avif():
    options = {"subsampling": "4:4:4"}
    for channels in (3, 4):
        name = "alpha" if channels == 4 else "plain"
        yield _lossy(f"avif-{name}.avif", "AVIF", Image.fromarray(scene(channels)), **options)
    yield _lossy("avif-420.avif", "AVIF", Image.fromarray(scene(3)), subsampling="4:2:0")
    yield from _all_around("avif", "AVIF", **options)


def _all_around(name, format, **options):
    """A profile, EXIF data, XMP and resolution, and two orientations."""
    exif = described(dpi=DPI)
    everything = _lossy(
        f"{name}-all.{name}",
        format,
        Image.fromarray(scene(3)),
        icc_profile=SRGB,
        exif=exif,
        xmp=XMP,
        **options,
    )
    yield replace(everything, dpi=DPI)
    for orientation in (3, 6):
        stored = turned(orientation)
        exif = described(orientation, size=stored.size)
        file = f"{name}-orientation-{orientation}.{name}"
        yield _lossy(file, format, stored, shows=scene(3), exif=exif, **options)


def _bmp():
    color = Image.fromarray(scene(3))
    palette = color.quantize(64)
    bits = Image.fromarray(blocks()[..., 0]).convert("1")
    grey = Image.fromarray(scene(1)[..., 0])
    yield replace(_lossy("bmp-rgb.bmp", "BMP", color, dpi=DPI), tolerance=2)
    yield replace(_lossy("bmp-grey.bmp", "BMP", grey, dpi=(0, 0)), tolerance=2)
    yield replace(_lossy("bmp-1bit.bmp", "BMP", bits, dpi=(0, 0), shows=blocks()), tolerance=8)
    shows = np.asarray(palette.convert("RGB"))
    yield replace(_lossy("bmp-palette.bmp", "BMP", palette, dpi=(0, 0), shows=shows), tolerance=6)
    yield Sample(name="bmp-top-down.bmp", content=_top_down(scene(3)), shows=scene(3))


def _top_down(pixels):
    """24 bits per pixel, rows from top to bottom, which a negative height says."""
    height, width, _ = pixels.shape
    rows = np.ascontiguousarray(pixels[..., ::-1]).reshape(height, -1)
    body = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).tobytes()
    info = struct.pack("<IiiHHIIiiII", 40, width, -height, 1, 24, 0, len(body), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 54 + len(body), 0, 0, 54) + info + body
