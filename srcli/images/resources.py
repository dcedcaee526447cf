"""Find Photoshop image resources, and bring them up to date for the picture to write.

Source: Adobe Photoshop file formats specification (2019), image resources.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from srcli.images.geometry import Change

_SIGNATURES = (b"8BIM", b"MeSa", b"PHUT", b"AgHg", b"DCSR")
_IPTC = 0x0404
_GUIDES, _RESOLUTION, _ASPECT = 0x0408, 0x03ED, 0x0428
_PATHS = range(0x07D0, 0x0BB8)
# Without a word: thumbnails, and copies of the profile, EXIF data, XMP and of channels' names.
_COPIES = (0x0409, 0x040C, 0x040F, 0x0422, 0x0423, 0x0424, 0x03EE, 0x0415, 0x041D, 0x0416)
_SLICES = 0x041A


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource: number, and its bytes before the data, the data, and padding."""

    number: int
    head: bytes
    data: bytes

    def encoded(self) -> bytes:
        size = len(self.data).to_bytes(4, "big")
        return self.head + size + self.data + b"\0" * (len(self.data) % 2)


def split(data: bytes) -> Iterator[Resource]:
    """Return the resources, up to the first sign of damage."""
    at = 0
    while data[at : at + 4] in _SIGNATURES and at + 6 < len(data):
        name_size = data[at + 6] + 1
        size_at = at + 6 + name_size + name_size % 2
        size = int.from_bytes(data[size_at : size_at + 4], "big")
        body = data[size_at + 4 : size_at + 4 + size]
        if len(body) == size:
            number = int.from_bytes(data[at + 4 : at + 6], "big")
            yield Resource(number, data[at:size_at], body)
        at = size_at + 4 + size + size % 2


def of_iptc(records: bytes) -> bytes:
    """Return bare IPTC records as a resource."""
    return Resource(_IPTC, b"8BIM\x04\x04\0\0", records).encoded()


def joined(resources: bytes | None, records: bytes | None) -> bytes | None:
    """Add IPTC records from elsewhere to resources that hold none themselves."""
    if records is not None and records[:1] != b"\x1c":
        records = None
    if resources is None:
        return None if records is None else of_iptc(records)
    has = any(resource.number == _IPTC for resource in split(resources))
    return resources if records is None or has else resources + of_iptc(records)


def current(data: bytes, change: Change) -> tuple[bytes, list[str]]:
    """Return the resources for the picture to write, and in words what is left out."""
    kept, lost = [], []
    for resource in split(data):
        if resource.number in _COPIES:
            continue
        if resource.number == _SLICES:
            lost.append("slices (Photoshop)")
        elif resource.number in _PATHS and change.turned:
            lost.append("paths (Photoshop)")
        elif resource.number == _GUIDES and change.turned:
            lost += ["guides (Photoshop)"] if _has_guides(resource.data) else []
        elif resource.number == _GUIDES:
            kept.append(Resource(_GUIDES, resource.head, _scaled_guides(resource.data, change)))
        elif resource.number == _RESOLUTION and change.transposed:
            swapped = resource.data[8:16] + resource.data[:8] + resource.data[16:]
            kept.append(Resource(_RESOLUTION, resource.head, swapped))
        elif resource.number != _ASPECT or not change.transposed:
            kept.append(resource)
    return b"".join(resource.encoded() for resource in kept), list(dict.fromkeys(lost))


def _has_guides(data: bytes) -> bool:
    return int.from_bytes(data[12:16], "big") > 0


def _scaled_guides(data: bytes, change: Change) -> bytes:
    """Scale guides, each of 5 bytes: 4 for 32nds of a pixel, 1 that is set if it is horizontal."""
    made = bytearray(data)
    for at in range(16, len(data) - 4, 5):
        horizontal = data[at + 4] == 1
        place = int.from_bytes(data[at : at + 4], "big") * change.factors[1 if horizontal else 0]
        made[at : at + 4] = min(round(place), 2**32 - 1).to_bytes(4, "big")
    return bytes(made)
