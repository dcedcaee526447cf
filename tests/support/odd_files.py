"""Small files with harmless oddities and rare ways of storing, made without srcli."""

import io
import struct
import zlib

import numpy as np
import tifffile
from PIL import Image

from support.pictures import pillow_bytes

ROWS, COLUMNS = np.mgrid[:48, :64]
RGB = np.stack([COLUMNS * 4, ROWS * 5, (COLUMNS + ROWS) * 2], -1).astype(np.uint8)
GREY = RGB[..., :1].copy()
WIDE = RGB.astype(np.uint16) * 257
RGBA = np.dstack([RGB, 255 - RGB[..., 0]])


def shorts(*numbers):
    return 3, len(numbers), struct.pack(f"<{len(numbers)}H", *numbers)


def longs(*numbers):
    return 4, len(numbers), struct.pack(f"<{len(numbers)}I", *numbers)


def tiff_by_hand(data, tags, *, drop=(), backwards=False):
    """A little-endian TIFF file: `data` at offset 8; tags as (kind, count, bytes)."""
    items = sorted((tag, *value) for tag, value in tags.items() if tag not in drop)
    items = items[::-1] if backwards else items
    start = 8 + len(data) + len(data) % 2
    place = start + 2 + 12 * len(items) + 4
    table, values = b"", b""
    for tag, kind, count, content in items:
        pointer = struct.pack("<I", place + len(values))
        if len(content) <= 4:
            pointer = content.ljust(4, b"\0")
        else:
            values += content + b"\0" * (len(content) % 2)
        table += struct.pack("<HHI", tag, kind, count) + pointer
    head = (b"II*\0" + struct.pack("<I", start) + data).ljust(start, b"\0")
    return head + struct.pack("<H", len(items)) + table + bytes(4) + values


def tiff_of(pixels, extra=None, **how):
    """Uncompressed, 8 bits, one strip; `extra` adds and replaces tags."""
    height, width, bands = pixels.shape
    tags = {
        256: shorts(width), 257: shorts(height), 258: shorts(*[8] * bands), 259: shorts(1),
        262: shorts(2 if bands > 2 else 1), 273: longs(8), 277: shorts(bands), 278: shorts(height),
        279: longs(pixels.size),
    }  # fmt: skip
    return tiff_by_hand(pixels.tobytes(), tags | (extra or {}), **how)


def tiff_by_tifffile(samples, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, samples, metadata=None, **options)
    return file.getvalue()


def ycbcr(pixels):
    """Full-range Y, Cb, Cr by BT.601, as floats."""
    red, green, blue = np.moveaxis(pixels.astype(float), -1, 0)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return np.stack([luma, (blue - luma) / 1.772 + 128, (red - luma) / 1.402 + 128], -1)


def as_bytes(values):
    return np.rint(values).clip(0, 255).astype(np.uint8)


def jpeg(**options):
    return pillow_bytes(RGB, "JPEG", **({"quality": 92} | options))


def segment(marker, data):
    return bytes((0xFF, marker)) + struct.pack(">H", len(data) + 2) + data


def with_segment(data, marker, content):
    """A JPEG file with one more segment after its first."""
    at = 4 + int.from_bytes(data[4:6], "big")
    return data[:at] + segment(marker, content) + data[at:]


def odd_jpegs():
    """Files whose pixels are whole, by what is odd about them."""
    base = jpeg()
    scan, tables = base.index(b"\xff\xda"), base.index(b"\xff\xdb")
    end = scan + 2 + int.from_bytes(base[scan + 2 : scan + 4], "big")
    version = base.index(b"JFIF\0") + 5
    return {
        "scan parameters": base[: end - 3] + bytes(3) + base[end:],
        "stray bytes": base[:tables] + bytes(16) + base[tables:],
        "stray text": base[:tables] + b"ab\xff\0cd" + base[tables:],
        "fill bytes": base[:tables] + b"\xff" * 9 + base[tables:],
        "jfif version": base[:version] + b"\x05" + base[version + 1 :],
        "no end": base[:-2],
        "junk before the end": base[:-2] + b"\0\0\0\xff\xd9",
        "junk after the end": base + b"junk" * 9,
    }


def xmp(attributes="", elements=""):
    """A packet of one description."""
    spaces = {
        "tiff": "http://ns.adobe.com/tiff/1.0/", "exif": "http://ns.adobe.com/exif/1.0/",
        "dc": "http://purl.org/dc/elements/1.1/", "xmp": "http://ns.adobe.com/xap/1.0/",
        "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
        "GCamera": "http://ns.google.com/photos/1.0/camera/",
        "Container": "http://ns.google.com/photos/1.0/container/",
        "Item": "http://ns.google.com/photos/1.0/container/item/",
        "GDepth": "http://ns.google.com/photos/1.0/depthmap/",
        "GPano": "http://ns.google.com/photos/1.0/panorama/",
        "xmpNote": "http://ns.adobe.com/xmp/note/",
        "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
        "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
        "stArea": "http://ns.adobe.com/xmp/sType/Area#",
        "MPReg": "http://ns.microsoft.com/photo/1.2/t/Region#",
    }  # fmt: skip
    declared = " ".join(f'xmlns:{prefix}="{space}"' for prefix, space in spaces.items())
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {declared} {attributes}>{elements}</rdf:Description>'
        "</rdf:RDF></x:xmpmeta>"
    ).encode()


def png_chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_with(chunks, pixels=RGB):
    """Pillow's PNG with more chunks after its header."""
    data = pillow_bytes(Image.fromarray(pixels), "PNG")
    return data[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[33:]
