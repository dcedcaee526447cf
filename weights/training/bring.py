"""What a queue has trained so far, as a few files that can be carried: pieces of one tar.

    cat weights.tar.* | tar x

Where a machine gives back few files of limited size, these are written anew each time something
was saved, so that whatever moment it is taken away in, the last pieces are whole.
"""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save

MIB = 1 << 20
LARGE = 20 * MIB  # weights above this are halved: float16 holds eleven bits of each
NAME = "weights.tar"


def bring(runs: Path, target: Path, maximum: int = 15 * MIB) -> list[Path]:
    """Pack weights and logs of all runs.

    Args:
        runs: Folder with one for each run.
        target: Receives `weights.tar.0`, `weights.tar.1`, ...; pieces of earlier calls go.
        maximum: Bytes of a piece.

    Returns:
        The pieces.
    """
    target.mkdir(parents=True, exist_ok=True)
    packed = _archive(runs)
    pieces = []
    for place, start in enumerate(range(0, len(packed), maximum)):
        piece = target / f"{NAME}.{place}"
        partial = target / f"{NAME}.partial"
        partial.write_bytes(packed[start : start + maximum])
        os.replace(partial, piece)
        pieces.append(piece)
    for old in target.glob(f"{NAME}.*"):
        if old not in pieces:
            old.unlink()
    return pieces


def _archive(runs: Path) -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for file in sorted([*runs.glob("*/weights.safetensors"), *runs.glob("*/log.csv")]):
            data = _halved(file) if file.stat().st_size > LARGE else file.read_bytes()
            member = tarfile.TarInfo(str(file.relative_to(runs)))
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return held.getvalue()


def _halved(file: Path) -> bytes:
    whole = load_file(file)
    data: bytes = save({name: value.to(torch.float16) for name, value in whole.items()})
    return data
