"""Pictures made larger by repetition, with all that srcli writes beside their pixels."""

import io
import re

import tifffile

from srcli.images import Picture, SaveOptions, check_output, encode, read
from support.odd_files import (
    with_segment,
)

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
