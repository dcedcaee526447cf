"""Damage files of video: cut them, flip bits, let headers lie, or put something else there."""

import struct

import numpy as np


def damaged(content, suffix):
    """Yield twenty names and contents made of a whole file, `mkv` or `mp4`."""
    size = len(content)
    for share in (0, 0.01, 0.1, 0.3, 0.6, 0.9, 0.995):
        yield f"cut at {share:.1%}", content[: int(size * share)]
    for seed in range(3):
        yield f"header {seed}", _flipped(content, seed, range(400), 12)
    for seed in range(3):
        middle = range(int(0.3 * size), int(0.8 * size))
        yield f"middle {seed}", _flipped(content, seed, middle, 40 + 120 * seed)
    half, part = size // 2, size // 10
    yield "hole", content[:half] + bytes(part) + content[half + part :]
    yield "gone", content[:half] + content[half + part :]
    yield "text", b"This is no video.\n" * 500
    yield "noise", np.random.default_rng(1).integers(0, 256, 20000, np.uint8).tobytes()
    yield from (_matroska if suffix == "mkv" else _mp4)(content)


def _flipped(content, seed, places, bits):
    rng, bad = np.random.default_rng(seed), bytearray(content)
    for place in rng.integers(places.start, places.stop, bits):
        bad[place] ^= 1 << int(rng.integers(0, 8))
    return bytes(bad)


def _matroska(content):
    yield "duration", _put(content, b"\x44\x89\x88", 3, struct.pack(">d", 1e12))
    yield "cluster", _put(content, b"\x1f\x43\xb6\x75", 4, b"\x08\xff\xff\xff")
    yield "width", _put(content, b"\xb0\x81", 2, b"\x05")


def _mp4(content):
    yield "duration", _put(content, b"mdhd", 16, struct.pack(">II", 1, 0xFFFFFFF0))
    yield "count", _put(content, b"stsz", 12, struct.pack(">I", 0x7FFFFFF0))
    yield "places", _put(content, b"stco", 12, struct.pack(">I", 0x7FFFFFF0))


def _put(content, mark, offset, new):
    """Write bytes at an offset from the first mark."""
    place = content.index(mark) + offset
    return content[:place] + new + content[place + len(new) :]
