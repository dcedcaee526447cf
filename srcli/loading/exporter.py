"""The only module that imports `srcli.export`: graphs, native weights and engines of models.

`srcli.export` builds on this package, which must not import it in turn; so it is imported here, by
name, when something has to be made, and nowhere else.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from srcli.models.spec import GraphForm, GraphPrecision

if TYPE_CHECKING:
    from srcli.backends.base import Model


def write_graph(model: Model, target: Path, precision: GraphPrecision, form: GraphForm) -> None:
    """Export a model as ONNX and verify the file.

    Args:
        model: With its weights.
        target: Appears whole or not at all.
        precision: Number type that the graph computes in.
        form: All of it, up to its taps, or by parts.

    Raises:
        VerificationError: The graph does not compute what the network does.
        OutputError: The file cannot be written.
        ImportError: A package that exporting takes is missing.
    """
    exporter = _module("to_onnx")
    options = exporter.OnnxOptions(precision=precision, form=form)
    exporter.export_verified(model, target, options)


def write_native_weights(model: Model, target: Path) -> None:
    """Write the weights that `srcli.backends.native` reads, and verify the file.

    Raises:
        VerificationError: The compiled network does not compute what the published one does.
        OutputError: The file cannot be written.
        ImportError: A package that exporting takes is missing.
    """
    _module("to_native").write_verified(model, target)


def cached_engine(graph: Path, precision: GraphPrecision, shape: tuple[int, ...] | None) -> Path:
    """Return the TensorRT engine of a graph, built on first use.

    Args:
        graph: Verified, in this precision.
        precision: Number type that the engine computes in.
        shape: NCHW that it will run at, where that is known: the engine is fastest there.

    Raises:
        BackendError: TensorRT is missing, or cannot build this graph.
    """
    engine: Path = _module("engine_cache").cached_engine(graph, precision, shape=shape)
    return engine


def _module(name: str) -> ModuleType:
    return importlib.import_module(f"srcli.export.{name}")
