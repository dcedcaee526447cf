"""Encode a moving picture by every codec, and print checksums of the packets.

Run it as a program: what an encoder reads in memory that it did not set differs from process to
process.
"""

import hashlib
from fractions import Fraction

import numpy as np

from srcli.video.colorspace import Stated
from srcli.video.containers import Facts
from srcli.video.encoders import opened_encoder, settings_for
from srcli.video.formats import layout_of

FORMATS = {
    "x264": "yuv420p",
    "x265": "yuv420p10le",
    "av1": "yuv420p10le",
    "prores": "yuv422p10le",
    "ffv1": "yuv420p",
}
WIDTH, HEIGHT, FRAMES = 192, 128, 120


def settings(codec):
    """The settings of an encoder, for a stream that states BT.709."""
    layout = layout_of(FORMATS[codec], WIDTH, HEIGHT)
    facts = Facts(
        layout=layout,
        stated=Stated(matrix="bt709", full_range=False),
        rate=Fraction(25),
        time_base=Fraction(1, 1000),
        aspect=None,
        primaries=1,
        transfer=1,
        matrix=1,
    )
    return settings_for(facts, layout, full_range=False, matrix=1, siting=None, codec=codec)


def scenery():
    """A smooth picture, larger than a frame, in [16, 235]."""
    rough = np.random.default_rng(0).integers(0, 255, (300, 400)).astype(float)
    for _ in range(6):
        rough = (rough + np.roll(rough, 1, 0) + np.roll(rough, 1, 1) + np.roll(rough, -1, 0)) / 4
    return (rough - rough.min()) / (rough.max() - rough.min()) * 219 + 16


def checksum(codec):
    """The checksum of all packets of a pan over a picture."""
    import av

    encoder, seen, digest = opened_encoder(settings(codec)), scenery(), hashlib.sha256()
    for number in range(FRAMES):
        frame = av.VideoFrame(WIDTH, HEIGHT, FORMATS[codec])
        top, left = 2 * number % 120, 3 * number % 160
        for plane in frame.planes:
            bits = frame.format.components[0].bits
            rows = np.frombuffer(plane, "u1" if bits == 8 else "<u2")
            rows = rows.reshape(-1, plane.line_size // rows.itemsize)
            part = seen[top : top + plane.height, left : left + plane.width]
            rows[: plane.height, : plane.width] = part.astype(int) << bits - 8
        frame.pts = 40 * number
        for packet in encoder.encode(frame):
            digest.update(bytes(packet))
    for packet in encoder.encode(None):
        digest.update(bytes(packet))
    return digest.hexdigest()


if __name__ == "__main__":
    for codec in FORMATS:
        print(codec, checksum(codec))  # noqa: T201
