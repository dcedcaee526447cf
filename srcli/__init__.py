"""Small, fast, exact image restoration: super-resolution, denoising, JPEG deblocking.

import srcli

with srcli.load("lapar-c", 4) as network:
    large = network(small)  # numpy arrays: uint8, uint16, or float32 in [0, 1]
    network.file("photo.jpg", "large.jpg")
"""

from srcli.api import (
    OpenModel,
    deblock_file,
    denoise_file,
    list_models,
    load,
    restore,
    upscale,
    upscale_file,
)
from srcli.errors import SrcliError

__version__ = "0.1.0"

__all__ = [
    "OpenModel",
    "SrcliError",
    "__version__",
    "deblock_file",
    "denoise_file",
    "list_models",
    "load",
    "restore",
    "upscale",
    "upscale_file",
]
