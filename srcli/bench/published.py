"""A model as its paper publishes it, for backends that take any model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from srcli.errors import BackendError
from srcli.loading import exporter
from srcli.loading.model import LoadedModel
from srcli.models.spec import Geometry, GraphPrecision, ModelSpec

if TYPE_CHECKING:
    from torch import nn


class PublishedForm:
    """A model in its published form, for any backend."""

    def __init__(self, model: LoadedModel, folder: Path) -> None:
        self._model, self._folder = model, folder

    @property
    def spec(self) -> ModelSpec:
        return self._model.spec

    @property
    def geometry(self) -> Geometry:
        return self._model.geometry

    def note(self, message: str) -> None:
        """Ignore a message for the user: a benchmark prints none."""

    def published_network(self) -> nn.Module:
        return self._model.published_network()

    def network(self) -> nn.Module:
        return self._model.published_network()

    def graph(self, precision: GraphPrecision = "fp32") -> Path:
        """Return the graph that PyTorch's own exporter writes."""
        import torch

        if precision != "fp32":
            raise BackendError(
                "the published form of a model is exported in fp32 only",
                "Choose --precision fp32 or --graph fused.",
            )
        file = self._folder / f"{self._model.spec.name}-x{self._model.scale}.onnx"
        if not file.exists():
            sides = {0: "batch", 2: "height", 3: "width"}
            torch.onnx.export(
                self._model.published_network(),
                (torch.rand(2, 3, 40, 41),),
                file,
                dynamic_shapes=(sides,),
                external_data=False,
                verbose=False,
            )
        return file

    def cpu_graph(self, precision: GraphPrecision = "fp32") -> Path:
        """Return the graph: the published form has no other for CPUs."""
        return self.graph(precision)

    def tap_graph(self, precision: GraphPrecision = "fp32") -> None:
        """Return None: the published form has no graph that ends at taps."""

    def engine(
        self, precision: GraphPrecision = "fp32", shape: tuple[int, ...] | None = None
    ) -> Path:
        """Return the TensorRT engine of the published form's graph."""
        return exporter.cached_engine(self.graph(precision), precision, shape)

    def native_weights(self) -> None:
        """Return None: the backend `native` runs fused networks only."""
