"""Folders of pictures, and what lies in folders afterwards."""

from __future__ import annotations

import numpy as np
from PIL import Image

from srcli.jobs.journal import NAME


def make_pictures(folder, count, size=(12, 10), bad=()):
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        file = folder / f"{index:03}.png"
        if index in bad:
            file.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
        else:
            noise = np.random.default_rng(index).integers(0, 255, (*size, 3), np.uint8)
            Image.fromarray(noise).save(file)
    return folder


def names(folder):
    """Names in a folder, without those of srcli's own."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".srcli-")}


def tree(folder):
    """Every file below a folder, with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and NAME not in path.parts
    }
