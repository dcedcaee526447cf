"""Small, fast, exact image restoration: super-resolution, denoising, JPEG deblocking."""

__version__ = "0.1.0"
