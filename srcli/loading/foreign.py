"""Networks of others: ONNX files from pictures to pictures, and checkpoints that spandrel loads.

Only the file is known, so facts are measured: layout and scale by a run on a small picture, the
receptive field by a run with one pixel changed. Their tiles are approximate for that reason.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import numpy as np

from srcli.backends.base import Images, SessionOptions
from srcli.backends.ort import OnnxRuntimeSession
from srcli.checkpoints.shipped import Weights, identity
from srcli.checkpoints.sniffing import kind_of
from srcli.errors import (
    BackendError,
    MissingPartError,
    VerificationError,
    WeightsError,
    first_line,
)
from srcli.loading import exporter
from srcli.loading.adapter import adapted, not_loaded
from srcli.loading.prepared import prepared
from srcli.loading.probing import limited, reach, scale_of
from srcli.models.spec import Geometry, GraphPrecision, ModelSpec, MultiplyAdds, Scale, Task
from srcli.system.cache import Note, cache_folder
from srcli.system.files import atomic_path
from srcli.system.installation import pip_install

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor
    from torch import nn


OPSET = 18  # of what PyTorch exports
FORMAT = 2  # raised when the graphs kept in the cache are written in another way
EXPORT_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignModel:
    """A network from a file that is not one of ours; a `Model` for backends."""

    kind: Literal["onnx", "spandrel"]
    spec: ModelSpec
    scale: int
    geometry: Geometry
    weights: Weights
    note: Note = lambda message: None
    """Function that is called with a message before long work."""

    @property
    def grid(self) -> int:
        """Factor by which the network enlarges."""
        return self.scale

    @property
    def label(self) -> str:
        """Name and scale of the network, for people: `theirs x4`."""
        return f"{self.spec.name} x{self.scale}"

    def published_network(self) -> nn.Module:
        """Return the network as spandrel loads it, on the CPU.

        Raises:
            BackendError: It is an ONNX file, which PyTorch does not run.
        """
        if self.kind == "onnx":
            raise BackendError(
                f"{self.weights.path}: an ONNX file cannot be run by torch",
                "Use --backend ort, openvino or trt.",
            )
        network: nn.Module = _described(self.weights.path).model
        return network.eval().requires_grad_(False)

    def network(self) -> nn.Module:
        """Return the network as loaded: how to fuse it is not known."""
        return self.published_network()

    def graph(self, precision: GraphPrecision = "fp32") -> Path:
        """Return the ONNX file in the cache, in our convention; it is made on first use.

        Raises:
            BackendError: Another precision than fp32.
        """
        if precision != "fp32":
            raise BackendError(
                f"{self.weights.path}: is run in fp32 only", "Leave out --precision."
            )
        name = f"{self.weights.sha256[:16]}-f{FORMAT}.onnx"
        # By the file's name: its scale may not be known yet.
        label = self.weights.path.name
        return prepared(cache_folder() / "foreign" / name, self._write, label=label, note=self.note)

    def _write(self, target: Path) -> None:
        with atomic_path(target) as partial:
            if self.kind == "onnx":
                partial.write_bytes(adapted(self.weights.path))
            else:
                _export(self, partial)

    def cpu_graph(self, precision: GraphPrecision = "fp32") -> Path:
        """Return the graph: there is no special form of it for CPUs."""
        return self.graph(precision)

    def engine(
        self, precision: GraphPrecision = "fp32", shape: tuple[int, ...] | None = None
    ) -> Path:
        """Return the TensorRT engine of the graph, built on first use."""
        return exporter.cached_engine(self.graph(precision), precision, shape)

    def tap_graph(self, precision: GraphPrecision = "fp32") -> None:
        """Return None: it is not known whether the network has such taps."""

    def native_weights(self) -> None:
        """Return None: the backend `native` runs our own networks only."""


def load_foreign(
    file: Path, *, scale: int | None = None, note: Note = lambda message: None
) -> ForeignModel:
    """Open a network that is not ours.

    Args:
        file: `.onnx`, or a checkpoint that spandrel knows.
        scale: Its scale, to be checked; None to find out.
        note: Called with a message before long work.

    Raises:
        WeightsError: The file cannot be read, or takes and gives something else than pictures.
        MissingPartError: A checkpoint, and spandrel is not installed.
    """
    if not file.is_file():
        raise WeightsError(f"{file}: there is no such file", "Check the path.")
    if file.suffix.lower() == ".onnx":
        model = _from_graph(file, note)
    else:
        model = _from_checkpoint(file, note)
    if scale is not None and scale != model.scale:
        problem = f"{file}: enlarges by {model.scale}, not by {scale}"
        raise WeightsError(problem, f"Give -s {model.scale}.")
    return model


def _from_graph(file: Path, note: Note) -> ForeignModel:
    draft = _model(file, "onnx", scale=1, geometry=Geometry(margin=0), parameters=0, note=note)
    try:
        session = OnnxRuntimeSession(draft.graph(), SessionOptions())
    except BackendError as error:
        raise not_loaded(file, error) from error
    fixed = _fixed_size(session)
    run = limited(session, file)
    scale = scale_of(run, file, fixed)
    margin = reach(run, scale, fixed)
    geometry = Geometry(
        margin=margin,
        floats_per_pixel=128,
        tiling="approximate",
        dynamic=fixed is None,
    )
    session.close()
    return _model(file, "onnx", scale=scale, geometry=geometry, parameters=0, note=note)


def _from_checkpoint(file: Path, note: Note) -> ForeignModel:
    import torch

    found = _described(file)
    if found.input_channels != 3 or found.output_channels != 3:
        raise WeightsError(
            f"{file}: takes {found.input_channels} channels, not RGB", "Use another."
        )
    network = found.model.eval()

    def run(batch: Images) -> Images:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(batch)).numpy())

    wanted = found.size_requirements
    multiple = max(1, wanted.multiple_of)
    scale_of(run, file, (side := _accepted(64, wanted.minimum, multiple), side))
    geometry = Geometry(
        margin=-(-reach(run, found.scale, None, step=multiple) // multiple) * multiple,
        minimum=max(1, wanted.minimum),
        multiple_of=multiple,
        floats_per_pixel=256,
        tiling="approximate",
    )
    parameters = sum(value.numel() for value in network.parameters())
    return _model(
        file, "spandrel", scale=found.scale, geometry=geometry, parameters=parameters, note=note
    )


def _accepted(side: int, minimum: int, multiple: int) -> int:
    """Return the smallest side of at least `side` pixels that a network accepts."""
    return -(-max(side, minimum) // multiple) * multiple


def _model(
    file: Path,
    kind: Literal["onnx", "spandrel"],
    *,
    scale: int,
    geometry: Geometry,
    parameters: int,
    note: Note,
) -> ForeignModel:
    spec = ModelSpec(
        name=file.stem,
        title=file.name,
        scales=(scale,),
        build=_not_built,
        geometry=lambda scale: geometry,
        parameters=lambda scale: parameters,
        multiply_adds=lambda scale: MultiplyAdds(published_form=0, fused_form=0),  # not known
        paper="",
        tolerance=EXPORT_TOLERANCE,
    )
    task: Task = "upscale" if scale > 1 else "denoise"
    weights = Weights(model=spec.name, scale=scale, task=task, path=file, sha256=_digest(file))
    return ForeignModel(
        kind=kind, spec=spec, scale=scale, geometry=geometry, weights=weights, note=note
    )


def _not_built(scale: Scale) -> NoReturn:
    raise BackendError("a network that is not ours cannot be built", "Load it from its file.")


def _digest(file: Path) -> str:
    try:
        return identity(file)
    except OSError as error:
        raise WeightsError(
            f"{file}: cannot be read ({error.strerror})",
            "Check that it is there and that you may read it.",
        ) from error


def _described(file: Path) -> ImageModelDescriptor[nn.Module]:
    """Load a checkpoint by spandrel."""
    if kind_of(file) == "onnx":
        raise WeightsError(f"{file}: is an ONNX network", "Rename it so that it ends in .onnx.")
    if importlib.util.find_spec("spandrel") is None:
        raise MissingPartError(
            f"{file}: checkpoints that are not ours need spandrel",
            f"Run `{pip_install('spandrel')}`, or give an .onnx file.",
        )
    try:
        import spandrel
    except Exception as error:  # a torchvision of another torch fails in ways of its own
        raise MissingPartError(
            f"{file}: spandrel cannot be loaded ({first_line(error)})",
            f"Run `{pip_install('spandrel')}`, with torch and torchvision of versions that "
            "belong together, or give an .onnx file.",
        ) from error
    try:
        found = spandrel.ModelLoader("cpu").load_from_file(os.fspath(file))
    except spandrel.UnsupportedModelError:
        raise WeightsError(
            f"{file}: spandrel knows no network with these weights",
            "For weights of srcli's models use --weights.",
        ) from None
    except Exception as error:  # pickles can raise anything
        raise WeightsError(
            f"{file}: cannot be read ({first_line(error)})",
            "Get a whole copy of it, or use another.",
        ) from error
    if not isinstance(found, spandrel.ImageModelDescriptor):
        raise WeightsError(
            f"{file}: needs more than a picture (it is for inpainting)",
            "Use a network for restoration.",
        )
    return found


def _fixed_size(session: OnnxRuntimeSession) -> tuple[int, int] | None:
    """Return height and width if the graph takes only one size; else None."""
    limits = session.min_shape, session.max_shape
    return None if limits[0] is None or limits[1] is None else (limits[1][2], limits[1][3])


def _export(model: ForeignModel, target: Path) -> None:
    """Write the network that spandrel loaded as ONNX, and check that it computes the same."""
    import warnings

    import torch

    network = model.published_network()
    step, minimum = model.geometry.multiple_of, model.geometry.minimum
    side = _accepted(64, minimum, step)
    sides = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.rand(1, 3, side, side),),
            target,
            opset_version=OPSET,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": sides, "output": sides},
            dynamo=False,
        )
    session = OnnxRuntimeSession(target, SessionOptions())
    for height, width in ((side, side), (side + step, side + 3 * step)):
        picture = np.random.default_rng(1).random((1, 3, height, width), np.float32)
        with torch.inference_mode():
            expected = network(torch.from_numpy(picture)).numpy()
        difference = float(np.abs(session(picture) - expected).max())
        if not difference <= EXPORT_TOLERANCE:
            raise VerificationError(
                f"{model.label}: its exported graph differs by {difference:.2g}",
                "Use --backend torch; no file was written.",
            )
    session.close()
