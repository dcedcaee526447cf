"""Checks of libvips, and of the formats that it writes and reads here."""

from __future__ import annotations

from collections.abc import Iterator

from srcli.errors import MissingPartError, first_line
from srcli.health.finding import Finding, told


def pictures() -> Iterator[Finding]:
    """Write and read a small picture in every format."""
    import numpy as np

    from srcli.images import FORMATS, Picture, SaveOptions, encode, read, vips

    try:
        library = vips.library()
    except MissingPartError as error:
        yield told("libvips", "problem", error)
        return
    picture = Picture(color=np.full((16, 16, 3), 128, np.uint8))
    failed = []
    for name in FORMATS:
        try:
            read(encode(picture, SaveOptions(format=name)))
        except Exception as error:
            failed.append(f"{name} ({first_line(error)})")
    version = ".".join(str(library.version(part)) for part in range(3))
    if failed:
        yield Finding(
            subject="libvips",
            status="problem",
            found=f"{version} cannot write and read {', '.join(failed)}",
            remedy="Run `pip install 'pyvips[binary]'`, which brings all formats.",
        )
    else:
        found = f"{version}, writes and reads {', '.join(FORMATS)}"
        yield Finding(subject="libvips", status="ok", found=found)
