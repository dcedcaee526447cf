"""Write a model repository for Triton Inference Server: the graph, and how to serve it.

Source: the message `ModelConfig` of Triton (`model_config.proto`), in protobuf's text form.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from srcli.errors import OutputError
from srcli.system.files import atomic_path

GRAPH = "model.onnx"
PLAN = "model.plan"
WARM = (192, 320)  # rows and columns of a picture that every network takes
_VERSION = re.compile(r"[1-9]\d*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingOptions:
    """Options of a server for running a model."""

    max_batch: int = 8
    """Largest number of pictures of one size that go through the network together."""

    delay_microseconds: int = 500
    """How long a request may wait for others of its size."""

    queue: int = 64
    """Requests that may wait; more are refused."""

    timeout_microseconds: int = 30_000_000
    """How long a request may wait in all; then it is refused."""

    instances: int = 1
    """Copies of the network on each device."""


def write_repository(
    folder: Path,
    name: str,
    content: bytes,
    options: ServingOptions,
    *,
    scale: float,
    is_plan: bool,
    size: tuple[int, int] | None = None,
) -> Path:
    """Write a model into a repository; one that is there gets a new version.

    Args:
        folder: The repository; it is made if it is not there.
        name: Of the model: letters, digits, `-` and `_`.
        content: The ONNX graph, or the TensorRT engine.
        options: How the server is to run it.
        scale: Factor by which it enlarges.
        is_plan: True for an engine.
        size: Rows and columns, if the graph takes only this size.

    Returns:
        The folder of the version.

    Raises:
        OutputError: It cannot be written.
    """
    place = folder / name / str(1 + max(_versions(folder / name), default=0))
    # The configuration first: a server that looks at the folder now and then finds no version
    # without one. The version's folder gets its name with its content in it, last.
    text = configuration(name, options, scale=scale, is_plan=is_plan, size=size)
    with atomic_path(folder / name / "config.pbtxt") as partial:
        partial.write_text(text, "utf-8")
    with atomic_path(place / (PLAN if is_plan else GRAPH)) as partial:
        partial.write_bytes(content)
    return place


def _versions(folder: Path) -> list[int]:
    try:
        return [int(file.name) for file in folder.iterdir() if _VERSION.fullmatch(file.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise OutputError(
            f"{folder}: cannot be read ({error.strerror})", "Choose another repository."
        ) from error


def configuration(
    name: str,
    options: ServingOptions,
    *,
    scale: float,
    is_plan: bool,
    size: tuple[int, int] | None = None,
) -> str:
    """Return the text of `config.pbtxt`; arguments as for `write_repository`."""
    height, width = size or (-1, -1)
    rows, columns = (-1, -1) if size is None else (round(height * scale), round(width * scale))
    warm_height, warm_width = size or WARM
    return f"""\
name: {json.dumps(name)}
platform: "{"tensorrt_plan" if is_plan else "onnxruntime_onnx"}"
max_batch_size: {options.max_batch}

# Pictures: RGB planes in [0, 1]. The output is not limited to that range.
input [
  {{ name: "input" data_type: TYPE_FP32 dims: [ 3, {height}, {width} ] }}
]
output [
  {{ name: "output" data_type: TYPE_FP32 dims: [ 3, {rows}, {columns} ] }}
]

version_policy {{ latest {{ num_versions: 1 }} }}
instance_group [ {{ count: {options.instances} kind: {"KIND_GPU" if is_plan else "KIND_AUTO"} }} ]

# Requests of one size are run together.
dynamic_batching {{
  max_queue_delay_microseconds: {options.delay_microseconds}
  default_queue_policy {{
    timeout_action: REJECT
    default_timeout_microseconds: {options.timeout_microseconds}
    allow_timeout_override: true
    max_queue_size: {options.queue}
  }}
}}

# The first request would else wait until everything is loaded.
model_warmup [
  {{
    name: "one picture"
    batch_size: 1
    inputs {{
      key: "input"
      value {{ data_type: TYPE_FP32 dims: [ 3, {warm_height}, {warm_width} ] random_data: true }}
    }}
  }}
]
"""
