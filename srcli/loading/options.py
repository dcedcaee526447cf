"""The keyword options of the Python API, typed once for all its functions."""

from __future__ import annotations

import os
from typing import Literal, TypedDict

from srcli.models.spec import InputChoice

Precision = Literal["fp32", "fp16", "bf16", "int8"]
PathName = str | os.PathLike[str]


class LoadOptions(TypedDict, total=False):
    """Options of `srcli.load`, besides model, scale and task."""

    input: InputChoice
    denoise: bool
    deblock: bool
    kernel: PathName | None
    weights: PathName | None
    model_file: PathName | None
    backend: str
    precision: Precision
    tta: bool
    threads: int | None
    tile: int | None
    memory: int | None


class SaveFileOptions(TypedDict, total=False):
    """Options of `OpenModel.file`, besides source and target."""

    overwrite: bool
    format: str | None
    quality: int | None
    lossless: bool
    subsampling: Literal["keep", "444", "420"]
    background: tuple[int, int, int] | None
    strip: bool
    preserve: bool
    page: int | None


class FileOptions(LoadOptions, SaveFileOptions, total=False):
    """Options of `srcli.load` and of `OpenModel.file` together."""
