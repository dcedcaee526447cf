"""Our description of TensorRT's Python interface against the real one."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

STUB = Path(__file__).resolve().parents[2] / "typings" / "tensorrt" / "__init__.pyi"
NAMES = Path(__file__).parents[1] / "data" / "tensorrt-names.txt"


def _stub_names(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    for item in body:
        if isinstance(item, ast.ClassDef | ast.FunctionDef):
            yield prefix + item.name
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            yield prefix + item.target.id
        if isinstance(item, ast.ClassDef):
            yield from _stub_names(item.body, f"{prefix}{item.name}.")


# Protocols that the bindings implement below the level of attributes.
STUB_NAMES = sorted(
    {*_stub_names(ast.parse(STUB.read_text("utf-8")).body)}
    - {"Dims.__iter__", "IHostMemory.__buffer__"}
)


def test_stub_names_are_verified() -> None:
    """Each name was found in the real bindings of TensorRT 10.16 and 11.4."""
    lines = [line.split() for line in NAMES.read_text("utf-8").splitlines() if line[0] != "#"]
    verified = {name for name, *found in lines if {"10.16.1.11", "11.4.0.106"} <= {*found}}
    assert {*STUB_NAMES} - verified == {"__version__"}


@pytest.mark.parametrize("bindings", ["tensorrt_rtx_bindings", "tensorrt_bindings", "tensorrt"])
def test_stub_names_exist(bindings: str) -> None:
    if importlib.util.find_spec(bindings) is None:
        pytest.skip(f"needs {bindings}")
    if bindings == "tensorrt_rtx_bindings":
        importlib.import_module("tensorrt_rtx_libs")
    module = importlib.import_module(bindings)
    for name in STUB_NAMES:
        if name == "IExecutionContext.set_device_memory" and module.__version__ < "10.1":
            continue  # `device_memory` is used instead
        value: object = module
        for part in name.split("."):
            value = getattr(value, part)
