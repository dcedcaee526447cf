"""Imports of other runtimes, which would tell their makers of it.

ONNX Runtime keeps a number of this machine in the user's cache and sends events, OpenVINO asks a
measuring service. srcli tells nobody what runs where. What a user has set stays as it is.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def onnxruntime() -> Any:
    """The package, without telemetry; where it was imported before, as it is."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def openvino() -> Any:
    """The package, without telemetry; where it was imported before, as it is."""
    if "openvino" not in sys.modules:
        # Its converter does without this package where it is not installed.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
