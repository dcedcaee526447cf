"""Decoders for files that libvips cannot read: tifffile, imagecodecs and pillow-heif."""

from __future__ import annotations

import importlib.util
import io
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srcli.errors import InputError, MissingPartError
from srcli.images.picture import Pixels
from srcli.system.installation import pip_install

_MUCH = 256 << 20  # bytes that may honestly be too many
Samples = NDArray[np.generic]


def available(*modules: str) -> bool:
    """Tell whether these packages are installed."""
    return all(importlib.util.find_spec(module) is not None for module in modules)


def missing(name: str, what: str, *packages: str) -> MissingPartError:
    """Return the error for a file that needs packages which are not installed."""
    return MissingPartError(
        f"{name}: is {what}, which needs {' and '.join(packages or ('imagecodecs',))} to be read",
        f"Run `{pip_install('codecs')}`, or convert it to PNG.",
    )


def tiff_samples(name: str, source: Path | bytes, index: int, size: int) -> Samples:
    """Return the samples of one directory of a TIFF file as stored: H x W x samples.

    Args:
        size: bytes that they should take, as the directory has it.

    Raises:
        InputError: they are damaged, or stored in a way that no decoder here reads.
        MissingPartError: a package is not installed.
    """

    def decoded() -> Samples:
        import tifffile

        # What is wrong arrives as an error.
        logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
        file = io.BytesIO(source) if isinstance(source, bytes) else source
        with tifffile.TiffFile(file) as tiff:
            page = tiff.pages[index]
            assert isinstance(page, tifffile.TiffPage), "frames are read only where asked for"
            samples: Samples = np.asarray(page.asarray(maxworkers=1))
            separate = int(page.planarconfig) == 2 and page.samplesperpixel > 1
            height, width, count = page.imagelength, page.imagewidth, page.samplesperpixel
        if separate:
            return samples.reshape(count, height, width).transpose(1, 2, 0)
        return samples.reshape(height, width, count)

    try:
        return _run(name, decoded, "tifffile", "imagecodecs")
    except MemoryError as error:
        if size > _MUCH:
            raise
        # What is compressed has a header of its own, which states something absurd.
        raise InputError(
            f"{name}: damaged or incomplete ({_line(error)})", "get it again"
        ) from error


def jpeg_samples(name: str, content: bytes) -> Samples:
    """Return the samples of a JPEG file, H x W x channels, uint8 or uint16, not scaled.

    Raises:
        InputError, MissingPartError: as `tiff_samples`.
    """

    def decoded() -> Samples:
        import imagecodecs

        samples: Samples = np.asarray(imagecodecs.jpeg_decode(content))
        return samples if samples.ndim == 3 else samples[..., None]

    return _run(name, decoded, "imagecodecs")


def _run(name: str, decode: Callable[[], Samples], *modules: str) -> Samples:
    if not available(*modules):
        raise MissingPartError(
            f"{name}: needs {' and '.join(modules)}", f"Run `{pip_install('codecs')}`."
        )
    try:
        return decode()
    except (InputError, MemoryError, KeyboardInterrupt):
        raise
    except NotImplementedError as error:
        raise InputError(
            f"{name}: {_line(error)}", "save it as a plain 8- or 16-bit file"
        ) from error
    except Exception as error:  # they raise nearly every kind there is
        raise InputError(
            f"{name}: damaged or incomplete ({_line(error)})", "get a whole copy of it"
        ) from error


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return "".join(c for c in text if c.isprintable())[:120]


def scaled(samples: Samples, bits: int) -> Pixels:
    """Scale unsigned integers of `bits` bits to the full range of 8 or 16 bits."""
    kind = np.uint8 if bits <= 8 else np.uint16
    top, full = 2**bits - 1, np.iinfo(kind).max
    if top == full:
        return samples.astype(kind)
    wide = np.minimum(samples.astype(np.uint32), top)
    pixels: Pixels = ((wide * full + top // 2) // top).astype(kind)
    return pixels


def of_float(name: str, samples: Samples) -> Pixels:
    """Convert floating-point samples in [0, 1] to 16 bits.

    Raises:
        InputError: some are outside, or are not numbers.
    """
    if np.isnan(samples).any():
        raise InputError(
            f"{name}: some of its floating-point samples are not numbers", "fill them in first"
        )
    low, high = float(samples.min()), float(samples.max())
    if low < 0 or high > 1:
        raise InputError(
            f"{name}: its floating-point samples reach from {low:.4g} to {high:.4g}, but 0 is "
            "black and 1 is white",
            "scale them to that range, or save it with 16 bits per channel",
        )
    pixels: Pixels = np.rint(samples.astype(np.float64) * 65535).astype(np.uint16)
    return pixels
