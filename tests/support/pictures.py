"""Made pictures for the tests, and readers that share no code with what is tested."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from srcli.images import Picture, StripReader, probe, read

KINDS = [(channels, alpha) for channels in (1, 3) for alpha in (False, True)]


def noise(height, width, channels, bits=8, seed=0):
    dtype = np.uint8 if bits == 8 else np.uint16
    shape = (height, width, channels)
    return np.random.default_rng(seed).integers(0, 2**bits, shape).astype(dtype)


def smooth(height=40, width=56, channels=3):
    rows, columns = np.mgrid[:height, :width]
    planes = [columns * 4, rows * 6, 255 - columns * 2][:channels]
    return np.stack(planes, -1).astype(np.uint8)


def picture(channels=3, alpha=False, bits=8, height=37, width=53):
    mask = noise(height, width, 1, bits, seed=1)[..., 0] if alpha else None
    return Picture(color=noise(height, width, channels, bits), alpha=mask)


def stacked(shown):
    """Colour and alpha as one H x W x 1..4 array."""
    return shown.color if shown.alpha is None else np.dstack([shown.color, shown.alpha])


def pillow_bytes(array_or_image, format, **options):
    image = array_or_image
    if not isinstance(image, Image.Image):
        image = Image.fromarray(array_or_image)
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pillow_array(data):
    array = np.asarray(Image.open(io.BytesIO(data)))
    return array[..., None] if array.ndim == 2 else array


def png_samples(data):
    """Samples of a PNG as its filters and zlib have them: no codec involved."""
    chunks, at = {}, 8
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        chunks[kind] = chunks.get(kind, b"") + data[at + 8 : at + 8 + size]
        at += size + 12
    width, height, depth, kind, *_ = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    bands = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    step = bands * depth // 8
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, -1)
    out = np.zeros((height + 1, width * step), np.uint8)
    for y, row in enumerate(rows):
        if row[0] == 0:
            out[y + 1] = row[1:]
        else:
            assert row[0] == 2, "only the filters that we ask for"
            out[y + 1] = row[1:] + out[y]
    samples = out[1:].tobytes()
    return np.frombuffer(samples, ">u2" if depth == 16 else "u1").reshape(height, width, bands)


def raw_png(width, height, depth, kind, rows, extra=()):
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)), *extra]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def cmyk_profile():
    """A small profile of its own kind: cyan is green, all else gets darker by its ink."""
    inks = np.indices((2, 2, 2, 2)).reshape(4, 16)
    lightness = 255 - np.clip(inks[1:].sum(0) * 90 + inks[0] * 70, 0, 255)
    a = np.where(inks[0] == 1, 60, 128)
    b = np.where(inks[0] == 1, 190, 128)
    table = np.stack([lightness, a, b], 1).astype(np.uint8).tobytes()
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(65536 * (i % 4 == 0) for i in range(9)))
    lut = b"mft1\0\0\0\0" + bytes((4, 3, 2, 0)) + identity + ramp * 4 + table + ramp * 3
    text = b"text\0\0\0\0none\0"
    description = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(78)
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    tags = [(b"desc", description), (b"cprt", text), (b"wtpt", white), (b"A2B0", lut)]
    rows, body, at = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, data in tags:
        data += b"\0" * (-len(data) % 4)
        rows += name + struct.pack(">II", at + len(body), len(data))
        body += data
    size = 128 + len(rows) + len(body)
    head = struct.pack(">I4xI4s4s4s12x4s", size, 0x02400000, b"prtr", b"CMYK", b"Lab ", b"acsp")
    head = head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + rows + body


def same_everywhere(path):
    """What `read` gives, after checking that header and strips agree with it."""
    shown, header = read(path), probe(path)
    assert (header.height, header.width, header.channels) == shown.color.shape
    assert (header.bits, header.has_alpha) == (shown.bits, shown.alpha is not None)
    with StripReader(path) as reader:
        strips = [color for _, color, _ in reader.strips(7)]
    np.testing.assert_array_equal(np.concatenate(strips), shown.color)
    return shown
