"""Pictures: from a file to arrays and back, losing nothing that the formats can hold.

PNG, TIFF, JPEG, WebP, AVIF and GIF go through libvips, which holds 16 bits per channel, keeps
profiles and streams; BMP and frames go through Pillow. What libvips does not decode goes through
tifffile, imagecodecs and pillow-heif, where they are installed. Nothing else is opened.
"""

from srcli.images.formats import (
    FORMATS,
    format_of,
    has_picture_suffix,
    looks_readable,
    named_for_writing,
    writes_as,
)
from srcli.images.picture import Header, Picture, Pixels, SaveOptions, Subsampling
from srcli.images.pixels import bleed, from_float, to_8_bits, to_float
from srcli.images.reading import MAX_PIXELS, is_opaque, probe, probe_all, read
from srcli.images.strips import StripReader, StripWriter
from srcli.images.writing import check_output, encode, write

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "Header",
    "Picture",
    "Pixels",
    "SaveOptions",
    "StripReader",
    "StripWriter",
    "Subsampling",
    "bleed",
    "check_output",
    "encode",
    "format_of",
    "from_float",
    "has_picture_suffix",
    "is_opaque",
    "looks_readable",
    "named_for_writing",
    "probe",
    "probe_all",
    "read",
    "to_8_bits",
    "to_float",
    "write",
    "writes_as",
]
