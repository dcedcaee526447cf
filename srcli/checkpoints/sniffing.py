"""Recognise the kind of a file of weights by its content, not by its name.

A download often brings another thing than the file: a web page, a pointer, an archive. Each known
kind gets its own message, before any library tries to read the file.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Literal

from srcli.errors import WeightsError
from srcli.system.files import open_regular
from srcli.system.mistaken import beginning, is_page, is_pointer

Kind = Literal["safetensors", "torch", "onnx", "unknown"]

_HEAD = 4096  # bytes to look at
_LONGEST_HEADER = 100 << 20  # bytes; what the safetensors library allows

_ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "RAR",
}
_OTHERS = {
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"\x93NUMPY": "a NumPy array",
    b"GGUF": "a GGUF file of a language model",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"7767517": "a network of ncnn (.param)",
    b"%PDF": "a PDF document",
}


def kind_of(file: Path) -> Kind:
    """Return the kind of a file of weights or of a network, by the library that reads it.

    Raises:
        WeightsError: It is missing, cannot be read, or is a thing that holds no weights; the
            message says what it is and how to come by the weights.
    """
    head, size = _head(file)
    _refuse_what_was_not_downloaded(file, head, size)
    _refuse_archives(file, head)
    if head.startswith(b"PK\x03\x04"):
        _check_zip(file, size)
        return "torch"
    if _is_safetensors(head, size):
        return "safetensors"
    if head.startswith(b"\x80"):
        return "torch"  # a pickle, as PyTorch wrote before 1.6
    return "onnx" if _is_onnx(file, head) else "unknown"


def _head(file: Path) -> tuple[bytes, int]:
    try:
        with open_regular(file) as stream:
            head = stream.read(_HEAD)
            return head, stream.seek(0, 2)
    except FileNotFoundError:
        raise WeightsError(f"{file}: there is no such file", "Check the path.") from None
    except OSError as error:
        raise WeightsError(
            f"{file}: cannot be read ({error.strerror})", "Give the name of a file."
        ) from error


def _refuse_what_was_not_downloaded(file: Path, head: bytes, size: int) -> None:
    if not size:
        raise WeightsError(f"{file}: damaged: it is empty", "Fetch it again.")
    if is_pointer(head):
        raise WeightsError(
            f"{file}: is a pointer that git-lfs left in the place of the weights",
            "Run `git lfs pull` where it was cloned, or download the file itself from the "
            "repository's page.",
        )
    start = beginning(head)
    if is_page(head) or start.startswith((b"<!doctype", b"<?xml")):
        title = re.search(rb"<title[^>]*>([^<]{1,80})", head, re.IGNORECASE)
        said = f' ("{_shown(title[1])}")' if title else ""
        raise WeightsError(
            f"{file}: is a web page{said}, not weights: the address leads to a page about the file",
            "Open it in a browser and download the file itself.",
        )
    if start.startswith((b"{", b"[")) and b'"weight_map"' in head:
        raise WeightsError(
            f"{file}: is the index of weights that lie in several files",
            "Join them into one .safetensors file, and give that.",
        )
    for magic, name in _OTHERS.items():
        if head.startswith(magic):
            raise WeightsError(
                f"{file}: is {name}, not a checkpoint of PyTorch",
                "Give a .safetensors or .pth file.",
            )


def _refuse_archives(file: Path, head: bytes) -> None:
    for magic, name in _ARCHIVES.items():
        if head.startswith(magic):
            raise WeightsError(
                f"{file}: is packed ({name})", "Unpack it, and give the checkpoint that is inside."
            )
    if head[257:262] == b"ustar":
        raise WeightsError(
            f"{file}: is a tar archive", "Unpack it, and give the checkpoint that is inside."
        )


def _check_zip(file: Path, size: int) -> None:
    """Check a ZIP's directory: PyTorch writes no compressed entries, so none may be larger.

    Raises:
        WeightsError: It is damaged, a program, an archive, or holds more than its size.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            parts = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise WeightsError(
            f"{file}: damaged: it is not whole ({error})", "Fetch it again."
        ) from error
    names = [part.filename for part in parts]
    folders = {name.split("/")[1] for name in names if name.count("/") > 1}
    if "code" in folders or any(name.endswith("/constants.pkl") for name in names):
        raise WeightsError(
            f"{file}: is a program (TorchScript), not weights alone",
            "Where you trust it, save its weights: "
            "`torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')`.",
        )
    if not any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        inside = ", ".join(_shown(name.encode()) for name in names[:3]) or "nothing"
        raise WeightsError(
            f"{file}: is a ZIP archive (with {inside}), not a checkpoint",
            "Unpack it, and give the checkpoint that is inside.",
        )
    compressed = any(part.compress_type != zipfile.ZIP_STORED for part in parts)
    if compressed or sum(part.file_size for part in parts) > size:
        raise WeightsError(
            f"{file}: refused: its parts are "
            f"{('compressed' if compressed else 'larger than it')}, which PyTorch never writes, "
            "and could fill the memory",
            "Ask its author for a .safetensors file.",
        )


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return size > 8 and head[8:9] == b"{" and 2 <= length <= min(_LONGEST_HEADER, size - 8)


def _is_onnx(file: Path, head: bytes) -> bool:
    if head[:1] != b"\x08":  # the field of the format's version, which writers put first
        return False
    import onnx

    try:
        return len(onnx.load(file, load_external_data=False).graph.node) > 0
    except Exception:  # protobuf's own
        return False


def _shown(text: bytes) -> str:
    """Return text from a file, for a terminal: one line, nothing that moves the cursor."""
    decoded = " ".join(text.decode("utf-8", "replace").split())
    return "".join(sign if sign.isprintable() else "?" for sign in decoded)
