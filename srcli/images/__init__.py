"""Pictures: from a file to arrays and back, losing nothing that the formats can hold.

PNG, TIFF, JPEG, WebP and AVIF go through libvips, which holds 16 bits per channel, keeps profiles
and streams; BMP goes through Pillow. Nothing else is opened.
"""

from srcli.images.formats import FORMATS, SUFFIXES, Format, format_of, has_picture_suffix, sniff
from srcli.images.picture import Header, Metadata, Picture, Pixels, SaveOptions, Subsampling
from srcli.images.pixels import bleed, from_float, over, to_8_bits, to_float
from srcli.images.reading import MAX_PIXELS, probe, probe_all, read
from srcli.images.strips import StripReader, StripWriter
from srcli.images.writing import check_output, encode, write

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "SUFFIXES",
    "Format",
    "Header",
    "Metadata",
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
    "over",
    "probe",
    "probe_all",
    "read",
    "sniff",
    "to_8_bits",
    "to_float",
    "write",
]
