"""Bring XMP up to date for the picture to write: scale it, turn it, drop what is not true now."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from srcli.images.geometry import Change
from srcli.images.packet import RDF, Attribute, DamagedPacketError, Name, Node, Packet

_ADOBE = "http://ns.adobe.com/"
TIFF, EXIF, XMP = f"{_ADOBE}tiff/1.0/", f"{_ADOBE}exif/1.0/", f"{_ADOBE}xap/1.0/"
_PHOTOSHOP = f"{_ADOBE}photoshop/1.0/"
_NOTE, _DC = f"{_ADOBE}xmp/note/", "http://purl.org/dc/elements/1.1/"
_GOOGLE = "http://ns.google.com/photos/1.0/"
_PANO, _CAMERA = f"{_GOOGLE}panorama/", f"{_GOOGLE}camera/"
_CONTAINER = f"{_GOOGLE}container/"
_REGIONS = "http://www.metadataworkinggroup.com/schemas/regions/"
_AREA, _DIMENSIONS = "http://ns.adobe.com/xmp/sType/Area#", f"{_ADOBE}xap/1.0/sType/Dimensions#"
_PEOPLE = "http://ns.microsoft.com/photo/1.2/t/Region#"
_IPTC_EXT = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_DRONE = "http://www.dji.com/drone-dji/1.0/"
_ACDSEE = "http://ns.acdsee.com/regions/"

_SIZES = {(TIFF, "ImageWidth"): 0, (EXIF, "PixelXDimension"): 0,
          (TIFF, "ImageLength"): 1, (EXIF, "PixelYDimension"): 1}  # fmt: skip

# Lengths in pixels along x (0) or y (1), or in both (2), that only scale.
_LENGTHS = {
    **{(_PANO, f"{part}{axis}Pixels"): at
       for part in ("FullPano", "CroppedAreaImage") for at, axis in enumerate(("Width", "Height"))},
    (_PANO, "CroppedAreaLeftPixels"): 0, (_PANO, "CroppedAreaTopPixels"): 1,
    (_PANO, "LargestValidInteriorRectLeft"): 0, (_PANO, "LargestValidInteriorRectTop"): 1,
    (_PANO, "LargestValidInteriorRectWidth"): 0, (_PANO, "LargestValidInteriorRectHeight"): 1,
    (_DRONE, "CalibratedFocalLength"): 2, (_DRONE, "CalibratedOpticalCenterX"): 0,
    (_DRONE, "CalibratedOpticalCenterY"): 1,
}  # fmt: skip

# Namespaces that describe parts of the file that are not there any more, or data that no longer
# fits the pixels: by the start of their names, with what is lost.
_GONE = {
    f"{_ADOBE}hdr-gain-map/": "gain map", "http://ns.apple.com/HDRGainMap/": "gain map",
    "http://ns.apple.com/pixeldatainfo/": "gain or depth map", _CONTAINER: "",
    f"{_GOOGLE}depthmap/": "depth map", f"{_GOOGLE}image/": "original picture",
    f"{_GOOGLE}audio/": "sound", "http://ns.google.com/photos/dd/1.0/": "depth map",
    f"{_GOOGLE}focus/": "", "http://ns.apple.com/depthData/": "depth map",
    "http://ns.apple.com/ImageIO/1.0/": "",
    "http://ns.oplus.com/photos/1.0/camera/": "motion photo",
    "http://ns.xiaomi.com/photos/1.0/camera/": "motion photo",
}  # fmt: skip
# Single properties that are gone: with what is lost, or nothing where it is only how samples or
# copies of them were stored.
_GONE_NAMES = {
    **{(TIFF, name): "" for name in (
        "BitsPerSample", "Compression", "PhotometricInterpretation", "SamplesPerPixel",
        "PlanarConfiguration", "YCbCrSubSampling", "YCbCrPositioning", "YCbCrCoefficients",
        "ReferenceBlackWhite", "NativeDigest")},
    **{(EXIF, name): "" for name in (
        "NativeDigest", "ComponentsConfiguration", "CompressedBitsPerPixel")},
    (XMP, "Thumbnails"): "", (XMP, "ThumbnailsInfo"): "", (_NOTE, "HasExtendedXMP"): "",
    (_DRONE, "DewarpData"): "lens calibration",
    ("http://purl.org/dc/terms/", "provenance"): "content credentials (C2PA)",
}  # fmt: skip
# Parts that a container of Google's names, in words.
_PARTS = {"GainMap": "gain map", "MotionPhoto": "motion photo", "Depth": "depth map",
          "Confidence": "depth map", "Original": "original picture"}  # fmt: skip
_MOTION = re.compile(r"MotionPhoto|MicroVideo")
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_DIGITS = 6
_MIME = {"png": "image/png", "jpeg": "image/jpeg", "tiff": "image/tiff", "webp": "image/webp",
         "avif": "image/avif"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Brought:
    """A packet brought up to date."""

    data: bytes
    lost: tuple[str, ...]  # in words


def orientation_of(data: bytes | None) -> int | None:
    """Return EXIF's orientation, 1..8, from the packet; None if it states none."""
    try:
        packet = Packet(data or b"")
    except DamagedPacketError:
        return None
    for node in packet.root.walk():
        text = packet.text(node, (TIFF, "Orientation"))
        if text is not None and text.isdecimal() and 1 <= int(text) <= 8:
            return int(text)
    return None


def is_whole(data: bytes) -> bool:
    """Tell whether the packet can be parsed."""
    try:
        Packet(data)
    except DamagedPacketError:
        return False
    return True


def extended(data: bytes) -> str | None:
    """Return the GUID of the extended XMP that the packet points to."""
    try:
        packet = Packet(data)
    except DamagedPacketError:
        return None
    found = (packet.text(node, (_NOTE, "HasExtendedXMP")) for node in packet.root.walk())
    return next((text for text in found if text), None)


def merged(data: bytes, more: bytes) -> bytes:
    """Join two packets: the descriptions of the second follow those of the first.

    Raises:
        DamagedPacketError: one of them cannot be parsed.
    """
    packet, other = Packet(data), Packet(more)
    into = next((n for n in packet.root.walk() if n.name == (RDF, "RDF")), None)
    source = next((n for n in other.root.walk() if n.name == (RDF, "RDF")), None)
    if into is None or source is None:
        raise DamagedPacketError("it holds no descriptions")
    parts = [_alone(other, node) for node in source.children]
    if into.close == into.end:  # an empty element
        raise DamagedPacketError("it holds no descriptions")
    packet.replace(into.close, into.close, b"".join(parts))
    return packet.edited()


def _alone(packet: Packet, node: Node) -> bytes:
    """Return an element with the prefixes that were declared above it."""
    own = {a.name[1] for a in node.attributes if _is_prefix(packet, a)}
    above = {} if node.parent is None else node.parent.scope
    used = packet.data[node.start : node.end]
    declared = b"".join(
        f' xmlns:{prefix}="{space}"'.encode()
        for prefix, space in above.items()
        if prefix and prefix not in own and f"{prefix}:".encode() in used
    )
    name_end = re.match(rb"<[^\s/>]+", used)
    at = name_end.end() if name_end else 0
    return used[:at] + declared + used[at:]


def _is_prefix(packet: Packet, attribute: Attribute) -> bool:
    return packet.data[attribute.start : attribute.end].lstrip().startswith(b"xmlns")


def current(data: bytes, change: Change, format: str, converted: bool = False) -> Brought:
    """Return the packet for the picture to write; unchanged if it cannot be parsed.

    Args:
        format: of the file to write.
        converted: colours became sRGB.
    """
    try:
        packet = Packet(data)
    except DamagedPacketError:
        return Brought(data, ())
    lost: dict[str, None] = {}
    for node in packet.root.walk():
        for rule in _RULES:
            lost |= dict.fromkeys(word for word in rule(packet, node, change) if word)
        _set_all(packet, node, change, format)
        if converted:
            _call_srgb(packet, node)
    return Brought(packet.edited(), tuple(lost))


def _set_all(packet: Packet, node: Node, change: Change, format: str) -> None:
    packet.set(node, (TIFF, "Orientation"), "1")
    for name, axis in _SIZES.items():
        packet.set(node, name, str((change.width, change.height)[axis]))
    if format in _MIME:
        packet.set(node, (_DC, "format"), _MIME[format])


def _call_srgb(packet: Packet, node: Node) -> None:
    packet.set(node, (EXIF, "ColorSpace"), "1")
    packet.set(node, (_PHOTOSHOP, "ColorMode"), "3")
    packet.set(node, (_PHOTOSHOP, "ICCProfile"), "sRGB IEC61966-2.1")


Rule = Callable[[Packet, Node, Change], Iterator[str]]


def _remove_what_is_gone(packet: Packet, node: Node, change: Change) -> Iterator[str]:
    value = packet.data[node.tag_end : node.close].decode().strip()
    if node.name[0] != RDF and (word := _gone(node.name, value)) is not None:
        packet.remove(node)
        yield word
    for attribute in node.attributes:
        if _is_prefix(packet, attribute):
            continue
        if (word := _gone(attribute.name, attribute.value)) is not None:
            packet.remove(attribute)
            yield word


def _gone(name: Name, value: str | None) -> str | None:
    """Return the loss if a property describes something that is gone; None for all others."""
    space, local = name
    if name in _GONE_NAMES:
        return _GONE_NAMES[name]
    if space.startswith(_CONTAINER) and local == "Semantic":
        return _PARTS.get(value or "", "")
    if space == _CAMERA and _MOTION.match(local):
        return "" if value == "0" else "motion photo"
    return next((word for start, word in _GONE.items() if space.startswith(start)), None)


def _scale_lengths(packet: Packet, node: Node, change: Change) -> Iterator[str]:
    for name, axis in _LENGTHS.items():
        if (text := packet.text(node, name)) is None:
            continue
        if change.turned:
            _remove_property(packet, node, name)
            yield "panorama or lens geometry"
        elif axis == 2 and abs(change.factors[0] - change.factors[1]) < 0.01:
            _set_scaled(packet, node, name, text, change.factors[0])
        else:
            _set_scaled(packet, node, name, text, change.factors[axis % 2])


def _swap_resolutions(packet: Packet, node: Node, change: Change) -> Iterator[str]:
    """Exchange resolutions along x and y, as ratios; scale those of the sensor."""
    sensor = [(EXIF, f"FocalPlane{axis}Resolution") for axis in "XY"]
    _swap(packet, node, sensor, change, change.factors)
    _swap(packet, node, [(TIFF, f"{axis}Resolution") for axis in "XY"], change, (1.0, 1.0))
    return iter(())


def _swap(
    packet: Packet, node: Node, names: list[Name], change: Change, factors: tuple[float, float]
) -> None:
    texts = [packet.text(node, name) for name in names]
    if change.transposed:
        texts.reverse()
    for name, text, factor in zip(names, texts, factors, strict=True):
        parts = re.fullmatch(r"(\d+)/(\d+)", text or "")
        if parts and int(parts[2]):
            packet.set(node, name, f"{round(int(parts[1]) * factor)}/{parts[2]}")


def _scale_subject(packet: Packet, node: Node, change: Change) -> Iterator[str]:
    """Scale a place, circle or rectangle in stored pixels, a sequence of numbers."""
    if node.name not in ((EXIF, "SubjectArea"), (EXIF, "SubjectLocation")):
        return
    items = [n for n in node.walk() if n.name == (RDF, "li")]
    texts = [packet.data[item.tag_end : item.close].decode() for item in items]
    moved = change.subject([int(t) for t in texts if t.strip().isdecimal()])
    if moved is None or len(moved) != len(items):
        packet.remove(node)
        yield "subject area"
        return
    for item, number in zip(items, moved, strict=True):
        packet.replace(item.tag_end, item.close, str(number).encode())


def _move_regions(packet: Packet, node: Node, change: Change) -> Iterator[str]:
    """Move the Metadata Working Group's areas, in parts of the whole or in stored pixels."""
    if node.name == (_REGIONS, "AppliedToDimensions"):
        holder = _holder(node, (_DIMENSIONS, "w"))
        for local, value in (("w", change.width), ("h", change.height)):
            packet.set(holder, (_DIMENSIONS, local), str(value))
        packet.set(holder, (_DIMENSIONS, "unit"), "pixel")
    elif node.name == (_REGIONS, "Area"):
        _move_area(packet, _holder(node, (_AREA, "x")), change)
    return iter(())


def _holder(node: Node, name: Name) -> Node:
    """Return the node that has this property: the element itself, or a description inside it."""
    return next((n for n in node.walk() if n.property(name) is not None), node)


def _move_area(packet: Packet, area: Node, change: Change) -> None:
    values = {}
    for local in ("x", "y", "w", "h", "d"):
        text = packet.text(area, (_AREA, local))
        if text is not None and _NUMBER.fullmatch(text):
            values[local] = float(text)
    if "x" not in values or "y" not in values:
        return
    pixels = packet.text(area, (_AREA, "unit")) == "pixel"
    extent = change.stored if pixels and change.stored else (1, 1)
    across, down = change.factors if pixels else (1.0, 1.0)
    x, y = change.point(values["x"], values["y"], (float(extent[0]), float(extent[1])))
    moved = {"x": x * across, "y": y * down}
    if "w" in values and "h" in values:
        width, height = change.sides(values["w"], values["h"])
        moved |= {"w": width * across, "h": height * down}
    if "d" in values:
        moved["d"] = values["d"] * across
    if pixels or change.turned:
        for local, number in moved.items():
            packet.set(area, (_AREA, local), _shown(number))


def _turn_people(packet: Packet, node: Node, change: Change) -> Iterator[str]:
    """Turn Microsoft's rectangles: left, top, width and height as parts of the whole."""
    text = packet.text(node, (_PEOPLE, "Rectangle"))
    if text is None or not change.turned:
        return iter(())
    numbers = [float(match) for match in _NUMBER.findall(text)]
    if len(numbers) == 4:
        left, top, width, height = numbers
        x, y = change.point(left + width / 2, top + height / 2, (1, 1))
        width, height = change.sides(width, height)
        moved = (x - width / 2, y - height / 2, width, height)
        packet.set(node, (_PEOPLE, "Rectangle"), ", ".join(_shown(n) for n in moved))
    return iter(())


def _move_boundaries(packet: Packet, node: Node, change: Change) -> Iterator[str]:
    """Move IPTC's image regions: shapes by corner and sides, circle or vertices."""
    unit = packet.text(node, (_IPTC_EXT, "rbUnit"))
    if unit is None:
        return
    if change.turned:
        region = node
        while region.parent is not None and region.name != (_IPTC_EXT, "ImageRegion"):
            region = region.parent
        packet.remove(region)
        yield "regions of the picture (IPTC)"
        return
    if unit != "pixel":
        return
    across, down = change.factors
    for inner in node.walk():
        for local, factor in (("rbX", across), ("rbY", down), ("rbW", across), ("rbH", down),
                              ("rbRx", across)):  # fmt: skip
            text = packet.text(inner, (_IPTC_EXT, local))
            if text is not None:
                _set_scaled(packet, inner, (_IPTC_EXT, local), text, factor)


def _turn_others(packet: Packet, node: Node, change: Change) -> Iterator[str]:
    """Remove ACDSee's regions from a turned picture: how they turn is not documented."""
    if change.turned and node.name[0] == _ACDSEE and node.name[1] == "Regions":
        packet.remove(node)
        yield "regions of the picture (ACDSee)"


_RULES: tuple[Rule, ...] = (
    _remove_what_is_gone, _scale_lengths, _swap_resolutions, _scale_subject,
    _move_regions, _turn_people, _move_boundaries, _turn_others,
)  # fmt: skip


def _remove_property(packet: Packet, node: Node, name: Name) -> None:
    for attribute in node.attributes:
        if attribute.name == name:
            packet.remove(attribute)
    for child in node.children:
        if child.name == name:
            packet.remove(child)


def _set_scaled(packet: Packet, node: Node, name: Name, text: str, factor: float) -> None:
    if not _NUMBER.fullmatch(text):
        return
    number = float(text) * factor
    whole = re.fullmatch(r"[+-]?\d+", text)
    packet.set(node, name, str(round(number)) if whole else _shown(number))


def _shown(number: float) -> str:
    return f"{number:.{_DIGITS}f}".rstrip("0").rstrip(".") or "0"
