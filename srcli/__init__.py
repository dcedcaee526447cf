"""Small, fast, exact image restoration: super-resolution, denoising, JPEG deblocking.

import srcli

with srcli.load("lapar-c", 4) as network:
    large = network(small)  # numpy arrays, uint8 or uint16
"""

from srcli.api import OpenModel, list_models, load, restore, upscale
from srcli.errors import SrcliError

__version__ = "0.1.0"

__all__ = ["OpenModel", "SrcliError", "__version__", "list_models", "load", "restore", "upscale"]
