"""Import other runtimes without their telemetry.

ONNX Runtime keeps a number of this machine in the user's cache and sends events, OpenVINO asks a
measuring service. srcli sends no such reports. Settings of the user stay as they are.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from types import ModuleType


def onnxruntime() -> ModuleType:
    """Import ONNX Runtime without telemetry; if it was imported before, leave it as it is."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    package: ModuleType = onnxruntime
    return package


def openvino() -> ModuleType:
    """Import OpenVINO without telemetry; if it was imported before, leave it as it is."""
    if "openvino" not in sys.modules:
        # Its converter does without this package where it is not installed.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None is documented
    import openvino

    package: ModuleType = openvino
    return package


def preload_cuda(ort: ModuleType) -> None:
    """Load the libraries of CUDA that other packages bring for ONNX Runtime.

    It looks for them beside itself only, and they may be installed elsewhere, with PyTorch. Which
    ones are missing is not printed: a session that needs them fails with a message.

    Args:
        ort: The package.
    """
    with _quiet():
        for folder in _library_folders(Path(str(ort.__file__)).parents[1]):
            with suppress(Exception):
                ort.preload_dlls(directory=os.fspath(folder))
        with suppress(Exception):
            ort.preload_dlls()


def _library_folders(looked_at: Path) -> list[Path]:
    """Return the folders of NVIDIA's packages, without those in `looked_at`/nvidia."""
    found = importlib.util.find_spec("nvidia")
    places = () if found is None else found.submodule_search_locations or ()
    kind = "bin" if sys.platform == "win32" else "lib"
    folders = []
    for place in places:
        if Path(place).parent.resolve() != looked_at.resolve():
            folders += sorted(Path(place).glob(f"*/{kind}"))
    return folders


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep stdout free of what a library prints, whether in Python or in C."""
    if sys.stdout is not None:
        sys.stdout.flush()
    with suppress(OSError):
        kept = os.dup(1)
    try:
        with suppress(OSError):
            os.dup2(2, 1)
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        with suppress(OSError, UnboundLocalError):
            os.dup2(kept, 1)
            os.close(kept)
