"""An XMP packet as a tree whose parts know their place in the bytes, so that it can be edited.

All parts that are not edited stay the same, byte by byte.

Source: XMP specification part 1 (ISO 16684-1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_ATTRIBUTE = re.compile(rb"\s*([^\s=<>/\"']+)\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")
_MAX_NODES = 200_000
_DEEPEST = 200
# What the usual prefixes mean, for packets that do not say.
USUAL = {
    "rdf": RDF, "x": "adobe:ns:meta/", "tiff": "http://ns.adobe.com/tiff/1.0/",
    "exif": "http://ns.adobe.com/exif/1.0/", "xmp": "http://ns.adobe.com/xap/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
}  # fmt: skip
Name = tuple[str, str]
"""A name in XML: namespace and local name."""


class DamagedPacketError(ValueError):
    """The packet is no XML, or XML that could do harm."""


@dataclass(slots=True)
class Attribute:
    """A name and a value inside a start tag."""

    name: Name
    value: str
    start: int  # of the space before it
    end: int
    value_at: tuple[int, int]


@dataclass(slots=True)
class Node:
    """An element."""

    name: Name
    start: int
    tag_end: int  # of the start tag
    parent: Node | None
    close: int = 0  # where the end tag begins; `end` where there is none
    end: int = 0
    attributes: list[Attribute] = field(default_factory=list)
    children: list[Node] = field(default_factory=list)
    scope: dict[str, str] = field(default_factory=dict)

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it, in the order of the text."""
        waiting = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting += reversed(node.children)

    def property(self, name: Name) -> tuple[str, tuple[int, int]] | None:
        """Return a simple value below this node, an attribute or an element, and its place."""
        for attribute in self.attributes:
            if attribute.name == name:
                return attribute.value, attribute.value_at
        for child in self.children:
            if child.name == name and not child.children:
                return "", (child.tag_end, child.close)
        return None


class Packet:
    """A packet, and the edits to make in it."""

    def __init__(self, data: bytes) -> None:
        """Parse a packet.

        Raises:
            DamagedPacketError: it is no XML, or it declares entities.
        """
        self.data = _utf8(data)
        self.root: Node = _Parser(self.data).root()
        self._edits: list[tuple[int, int, bytes]] = []

    def text(self, node: Node, name: Name) -> str | None:
        """Return a simple value below a node."""
        found = node.property(name)
        return None if found is None else self.data[slice(*found[1])].decode().strip()

    def set(self, node: Node, name: Name, value: str) -> None:
        """Replace the text of a simple value below a node, if there is one."""
        found = node.property(name)
        if found is not None:
            self.replace(*found[1], value.encode())

    def replace(self, start: int, end: int, text: bytes) -> None:
        """Replace a part of the packet by a text."""
        self._edits.append((start, end, text))

    def remove(self, part: Node | Attribute) -> None:
        """Remove an element with all that it holds, or an attribute."""
        self.replace(part.start, part.end, b"")

    def edited(self) -> bytes:
        """Return the packet with all edits; of two that overlap, the larger one counts."""
        made, at = [], 0
        for start, end, text in sorted(self._edits, key=lambda edit: (edit[0], -edit[1])):
            if start >= at:
                made += [self.data[at:start], text]
                at = end
        return b"".join((*made, self.data[at:]))


def _utf8(data: bytes) -> bytes:
    for mark, code in (
        (b"\xff\xfe", "utf-16"),
        (b"\xfe\xff", "utf-16"),
        (b"\xef\xbb\xbf", "utf-8-sig"),
    ):
        if data.startswith(mark):
            try:
                return data.decode(code).encode()
            except UnicodeDecodeError as error:
                raise DamagedPacketError(str(error)) from error
    return data.strip(b"\0 \r\n\t")


class _Parser:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._parser = expat.ParserCreate("utf-8")
        self._open: list[Node] = []
        self._count = 0
        self._root: Node | None = None
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.StartDoctypeDeclHandler = self._refuse
        try:
            self._parser.Parse(data, True)
            data.decode()
        except (expat.ExpatError, UnicodeDecodeError) as error:
            raise DamagedPacketError(str(error)) from error

    def root(self) -> Node:
        """Return the outermost element."""
        if self._root is None:
            raise DamagedPacketError("it holds nothing")
        return self._root

    def _refuse(self, *_: object) -> None:
        raise DamagedPacketError("it declares a document type")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > _MAX_NODES or len(self._open) > _DEEPEST:
            raise DamagedPacketError("it is nested too deeply")
        start = self._parser.CurrentByteIndex
        parent = self._open[-1] if self._open else None
        scope = USUAL if parent is None else parent.scope
        new = {k.partition(":")[2]: v for k, v in attributes.items() if k.startswith("xmlns")}
        scope = scope | new if new else scope
        node = Node(_resolved(name, scope), start, start, parent, scope=scope)
        self._read_tag(node, start + 1 + len(name.encode()), attributes)
        if parent is None:
            self._root = node
        else:
            parent.children.append(node)
        self._open.append(node)

    def _read_tag(self, node: Node, at: int, attributes: dict[str, str]) -> None:
        while match := _ATTRIBUTE.match(self._data, at):
            raw = match[1].decode()
            group = 2 if match[2] is not None else 3
            name = _resolved(raw, node.scope, attribute=True)
            value = attributes.get(raw, "")
            node.attributes.append(Attribute(name, value, at, match.end(), match.span(group)))
            at = match.end()
        node.tag_end = self._data.index(b">", at) + 1

    def _end(self, _name: str) -> None:
        node, at = self._open.pop(), self._parser.CurrentByteIndex
        if self._data[node.tag_end - 2 : node.tag_end] == b"/>":
            node.close = node.end = node.tag_end
        else:
            node.close, node.end = at, self._data.index(b">", at) + 1


def _resolved(name: str, scope: dict[str, str], attribute: bool = False) -> Name:
    prefix, colon, local = name.partition(":")
    if not colon:
        return ("" if attribute else scope.get("", ""), name)
    return scope.get(prefix, prefix), local
