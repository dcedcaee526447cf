"""Pictures: from a file to arrays and back, losing nothing that the formats can hold.

PNG, TIFF, JPEG, WebP, AVIF and GIF go through libvips, which holds 16 bits per channel, keeps
profiles and streams; BMP and frames go through Pillow. What libvips does not decode goes through
tifffile, imagecodecs and pillow-heif, where they are installed. Nothing else is opened.

A name is imported when it is first used, so that `srcli --help`, which lists the formats, loads
neither numpy nor libvips.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srcli.images.formats import (
        FORMATS,
        MAX_PIXELS,
        format_of,
        has_picture_suffix,
        looks_readable,
        named_for_writing,
        writes_as,
    )
    from srcli.images.picture import Header, Picture, Pixels, SaveOptions, Subsampling
    from srcli.images.pixels import bleed, from_float, to_8_bits, to_float
    from srcli.images.reading import is_opaque, probe, probe_all, read
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

_HOMES = ("formats", "picture", "pixels", "reading", "strips", "writing")

if not TYPE_CHECKING:  # type checkers would take any name for one of this module

    def __getattr__(name: str) -> object:
        """Import an exported name from the module that defines it."""
        if name in __all__:
            for home in _HOMES:
                module = importlib.import_module(f"{__name__}.{home}")
                if name in vars(module):
                    return globals().setdefault(name, vars(module)[name])
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
