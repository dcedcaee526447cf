"""Training pictures as files that can be carried: the folder in parts, and parts as pictures.

A part is a plain tar of the lossless files as they are: they are compressed already. Training works
with whatever parts are there.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_all_start_methods, get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .pictures import PICTURE_TYPES

Pixels = NDArray[np.uint8]
MIB = 1 << 20
CHUNK = 4  # pictures that a process decodes at a time


def pack(folder: Path, out: Path, maximum: int) -> list[Path]:
    """Write the lossless pictures of a folder as tars of at most `most` bytes each.

    Pictures of all of its parts are in each tar in turn, so that one alone is as varied as all.

    Args:
        folder: Searched with all folders in it.
        out: Receives `pictures-0.tar`, `pictures-1.tar`, ...
        maximum: Bytes; a picture that is larger is left out of none, its part is then larger.

    Raises:
        SystemExit: There are no lossless pictures.
    """
    files = _lossless(folder)
    if not files:
        raise SystemExit(_none_in(folder))
    total = sum(file.stat().st_size + 2 * tarfile.BLOCKSIZE for file in files)
    count = -(-total // maximum)
    while any(_size(files[part::count]) > maximum for part in range(count)) and count < len(files):
        count += 1
    out.mkdir(parents=True, exist_ok=True)
    parts = [out / f"pictures-{part}.tar" for part in range(count)]
    for part, target in enumerate(parts):
        with tarfile.open(target, "w") as archive:
            for file in files[part::count]:
                archive.add(file, str(file.relative_to(folder)))
    return parts


def read(folder: Path, processes: int) -> list[Pixels]:
    """Decode all lossless pictures in a folder and in the tars in it, H x W x 3 each.

    Args:
        folder: Searched with all folders in it. Pictures come in the order of their names, however
            they are packed.
        processes: That decode beside each other; 1 decodes here. Call it before a device is used.

    Raises:
        SystemExit: There are none, or a file cannot be read.
    """
    encoded = dict(sorted(_encoded(folder)))
    if not encoded:
        raise SystemExit(_none_in(folder))
    if processes <= 1:
        return [_decoded(pair) for pair in encoded.items()]
    # By fork, where there is one: others would load PyTorch first, which takes longer than this.
    how = "fork" if "fork" in get_all_start_methods() else None
    with ProcessPoolExecutor(processes, mp_context=get_context(how)) as pool:
        return list(pool.map(_decoded, encoded.items(), chunksize=CHUNK))


def _encoded(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in _lossless(folder):
        yield str(file.relative_to(folder)), file.read_bytes()
    for part in sorted(folder.rglob("*.tar")):
        try:
            with tarfile.open(part) as archive:
                for member in archive:
                    held = archive.extractfile(member)
                    if held is not None and Path(member.name).suffix.lower() in PICTURE_TYPES:
                        yield member.name, held.read()
        except tarfile.TarError as error:
            raise SystemExit(
                f"{part}: is no whole tar ({error}). Make it again with `pack`, or take it away."
            ) from error


def _decoded(pair: tuple[str, bytes]) -> Pixels:
    name, data = pair
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))
    except OSError as error:
        raise SystemExit(f"{name}: cannot be decoded ({error}). Take it away.") from error


def _lossless(folder: Path) -> list[Path]:
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_TYPES)


def _size(files: Sequence[Path]) -> int:
    """Of a tar of them, with its end, rounded up."""
    blocks = (-(-file.stat().st_size // tarfile.BLOCKSIZE) + 2 for file in files)
    return sum(blocks) * tarfile.BLOCKSIZE + tarfile.RECORDSIZE


def _none_in(folder: Path) -> str:
    kinds = ", ".join(sorted(PICTURE_TYPES))
    return f"{folder}: no lossless pictures ({kinds}), nor tars of them. Give another --data."


def main(words: list[str] | None = None) -> None:
    """Pack a folder from the shell."""
    parser = argparse.ArgumentParser(
        prog="python -m srcli.weights.training.packed", description=__doc__
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of lossless pictures")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tars")
    parser.add_argument("--most", type=float, default=40.0, help="MiB of each")
    arguments = parser.parse_args(words)
    for part in pack(arguments.data, arguments.out, int(arguments.most * MIB)):
        sys.stdout.write(f"{part}\t{part.stat().st_size / MIB:.1f} MiB\n")


if __name__ == "__main__":
    main()
