"""Networks that are not ours: any ONNX file that takes and gives pictures, and whatever checkpoint
spandrel knows.

Nothing is known of them but what the file says, so it is looked at: the layout and the scale from
a run on a small picture, how far a pixel reaches from a run with that pixel changed. Their tiles
are approximate for that reason.
"""

from __future__ import annotations

import importlib.util
import math
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from srcli.backends.base import Batch, SessionOptions
from srcli.backends.ort import OnnxRuntimeSession
from srcli.errors import (
    BackendError,
    MissingPartError,
    VerificationError,
    WeightsError,
    first_line,
)
from srcli.files import atomic_path
from srcli.loading import LoadedModel, Note
from srcli.spec import Geometry, GraphPrecision, ModelSpec, MultiplyAdds, Task
from srcli.store import Weights, cache_folder, identity

if TYPE_CHECKING:
    from torch import nn


Run = Callable[[Batch], Batch]

PROBED = 96  # side of the picture on which a network's reach is looked for
LEAST_MARGIN = 16
LONGEST_PROBE = 60.0  # seconds, for one small picture
FELT = 1e-4  # of the range: what a changed pixel must do to another to count
OPSET = 18  # of what PyTorch exports
FORMAT = 2  # raised when the graphs kept in the cache are written in another way
EXPORT_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignModel(LoadedModel):
    """A network from a file that is not one of ours."""

    kind: Literal["onnx", "spandrel"]

    def published(self) -> nn.Module:
        if self.kind == "onnx":
            raise BackendError(
                f"{self.weights.path}: an ONNX file cannot be run by torch. "
                "Use --backend ort, openvino or trt."
            )
        return _described(self.weights.path).model.eval().requires_grad_(False)  # type: ignore[no-any-return]

    def network(self) -> nn.Module:
        return self.published()

    def graph(self, precision: GraphPrecision = "fp32") -> Path:
        if precision != "fp32":
            raise BackendError(f"{self.weights.path}: is run in fp32 only. Leave out --precision.")
        name = f"{self.weights.sha256[:16]}-f{FORMAT}.onnx"
        path = cache_folder() / "foreign" / name

        def make(target: Path) -> None:
            with atomic_path(target) as partial:
                if self.kind == "onnx":
                    partial.write_bytes(_adapted(self.weights.path))
                else:
                    _export(self, partial)

        return self._kept(path, make)

    def tap_graph(self, precision: GraphPrecision = "fp32") -> None:
        """Nothing is known of what is inside."""

    def native_weights(self) -> None:
        """Nor here."""


def load_foreign(
    file: Path, *, scale: int | None = None, note: Note = lambda message: None
) -> ForeignModel:
    """Open a network that is not ours.

    Args:
        file: `.onnx`, or a checkpoint that spandrel knows.
        scale: What it enlarges by, to be checked; None to find out.
        note: Told what takes long.

    Raises:
        WeightsError: The file cannot be read, or takes and gives something else than pictures.
        MissingPartError: A checkpoint, and spandrel is not installed.
    """
    if not file.is_file():
        raise WeightsError(f"{file}: there is no such file. Check the path.")
    if file.suffix.lower() == ".onnx":
        model = _from_graph(file, note)
    else:
        model = _from_checkpoint(file, note)
    if scale is not None and scale != model.scale:
        raise WeightsError(f"{file}: enlarges by {model.scale}, not by {scale}. Give -s that.")
    return model


def _from_graph(file: Path, note: Note) -> ForeignModel:
    draft = _model(file, "onnx", scale=1, geometry=Geometry(margin=0), parameters=0, note=note)
    session = OnnxRuntimeSession(draft.graph(), SessionOptions())
    fixed = _fixed_size(session)
    run = _limited(session, file)
    scale = _scale_of(run, file, fixed)
    margin = _reach(run, scale, fixed)
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
        raise WeightsError(f"{file}: takes {found.input_channels} planes, not RGB. Use another.")
    network = found.model.eval()

    def run(batch: Batch) -> Batch:
        with torch.inference_mode():
            return np.asarray(network(torch.from_numpy(batch)).numpy())

    wanted = found.size_requirements
    multiple = max(1, wanted.multiple_of)
    _scale_of(run, file, (side := _accepted(64, wanted.minimum, multiple), side))
    geometry = Geometry(
        margin=-(-_reach(run, found.scale, None, step=multiple) // multiple) * multiple,
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
    """The smallest side of at least `side` pixels that a network accepts."""
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
    def unknown(scale: Any) -> MultiplyAdds:
        return MultiplyAdds(published=0, filtering=0, fused=0)

    def build(scale: Any) -> nn.Module:
        return model.published()

    spec = ModelSpec(
        name=file.stem,
        title=file.name,
        scales=(scale,),
        build=build,
        geometry=lambda scale: geometry,
        parameters=lambda scale: parameters,
        multiply_adds=unknown,
        paper="",
        tolerance=EXPORT_TOLERANCE,
    )
    task: Task = "upscale" if scale > 1 else "denoise"
    weights = Weights(model=spec.name, scale=scale, task=task, path=file, sha256=_digest(file))
    model = ForeignModel(spec=spec, scale=scale, weights=weights, note=note, kind=kind)
    return model


def _digest(file: Path) -> str:
    try:
        return identity(file)
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror}).") from error


def _described(file: Path) -> Any:
    """What spandrel makes of a checkpoint."""
    if importlib.util.find_spec("spandrel") is None:
        raise MissingPartError(
            f"{file}: checkpoints that are not ours need spandrel. "
            "Run `pip install srcli[spandrel]`, or give an .onnx file."
        )
    try:
        import spandrel
    except ImportError as error:
        raise MissingPartError(
            f"{file}: spandrel cannot be loaded ({first_line(error)}). "
            "Run `pip install srcli[spandrel]`, or give an .onnx file."
        ) from error
    try:
        found = spandrel.ModelLoader("cpu").load_from_file(os.fspath(file))
    except spandrel.UnsupportedModelError:
        raise WeightsError(
            f"{file}: spandrel knows no network with these weights. For ours, use --weights."
        ) from None
    except Exception as error:  # pickles can raise anything
        raise WeightsError(f"{file}: cannot be read ({first_line(error)}).") from error
    if not isinstance(found, spandrel.ImageModelDescriptor):
        raise WeightsError(f"{file}: needs more than a picture (it is for inpainting).")
    return found


def _adapted(file: Path) -> bytes:
    """The graph behind our convention: `input` n x 3 x h x w -> `output`, float32, RGB in [0, 1].

    Half precision at the border, channels last and networks for one plane are adapted.

    Raises:
        WeightsError: It does not take and give one picture.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    try:
        model = onnx.load(file)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and onnx's own, which share no base class
        raise WeightsError(f"{file}: is no ONNX model ({first_line(error)}).") from error
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1 or len(graph.output) < 1:
        raise WeightsError(f"{file}: takes {len(inputs)} inputs, not one picture. Use another.")
    first, last = inputs[0], graph.output[0]
    sides = [d.dim_value or 0 for d in first.type.tensor_type.shape.dim]
    if len(sides) != 4:
        raise WeightsError(f"{file}: takes no batch of pictures ({len(sides)} dimensions).")
    channels_last = sides[3] in (1, 3) and sides[1] not in (1, 3)
    planes = sides[3] if channels_last else sides[1]
    kind = first.type.tensor_type.elem_type
    if planes not in (0, 1, 3) or kind not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        raise WeightsError(f"{file}: takes no RGB picture in floating point. Use another.")

    before: list[Any] = []
    after: list[Any] = []

    def add(nodes: list[Any], operator: str, *values: str, **attributes: Any) -> str:
        output = f"srcli.{operator}.{len(before)}.{len(after)}"
        nodes.append(helper.make_node(operator, list(values), [output], **attributes))
        return output

    value, result = "srcli.input", last.name
    if planes == 1:
        graph.initializer.extend(
            numpy_helper.from_array(np.array(shape, np.int64), name)
            for name, shape in (("srcli.single", [-1, 1, 0, 0]), ("srcli.rgb", [-1, 3, 0, 0]))
        )
        value = add(before, "Reshape", value, "srcli.single")
    if channels_last:
        value = add(before, "Transpose", value, perm=[0, 2, 3, 1])
        result = add(after, "Transpose", result, perm=[0, 3, 1, 2])
    if kind == TensorProto.FLOAT16:
        value = add(before, "Cast", value, to=TensorProto.FLOAT16)
    if last.type.tensor_type.elem_type == TensorProto.FLOAT16:
        result = add(after, "Cast", result, to=TensorProto.FLOAT)
    if planes == 1:
        result = add(after, "Reshape", result, "srcli.rgb")
    before.append(helper.make_node("Identity", [value], [first.name]))
    after.append(helper.make_node("Identity", [result], ["srcli.output"]))

    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    batch = sides[0]
    height, width = sides[1:3] if channels_last else sides[2:4]
    if planes == 1 and batch:
        batch = 0 if batch % 3 else batch // 3
    shape: list[int | str | None] = [batch or "batch", 3, height or "height", width or "width"]
    graph.input.remove(first)
    graph.input.insert(0, helper.make_tensor_value_info("srcli.input", TensorProto.FLOAT, shape))
    del graph.output[:]
    out: list[int | str | None] = ["batch", 3, "out_height", "out_width"]
    graph.output.append(helper.make_tensor_value_info("srcli.output", TensorProto.FLOAT, out))
    try:
        return model.SerializeToString(deterministic=True)  # type: ignore[no-any-return]
    except ValueError as error:  # protobuf's limit
        raise WeightsError(f"{file}: is larger than 2 GB, which srcli does not run.") from error


def _fixed_size(session: OnnxRuntimeSession) -> tuple[int, int] | None:
    """Height and width, if the graph takes only one size."""
    limits = session.min_shape, session.max_shape
    return None if limits[0] is None or limits[1] is None else (limits[1][2], limits[1][3])


def _limited(session: OnnxRuntimeSession, file: Path) -> Run:
    """The session for a limited time: a graph of somebody else's may hold a loop without end."""

    def run(batch: Batch) -> Batch:
        answer: Future[Batch] = Future()

        def compute() -> None:
            try:
                answer.set_result(session(batch))
            except BaseException as error:
                answer.set_exception(error)

        # Not in the main thread, which must hear Ctrl-C, nor in one that Python waits for.
        threading.Thread(target=compute, daemon=True).start()
        try:
            return answer.result(LONGEST_PROBE)
        except TimeoutError as error:
            raise WeightsError(
                f"{file}: is not done with a picture of {batch.shape[3]} x {batch.shape[2]} after "
                f"{LONGEST_PROBE:g} seconds. It may loop without end; use another network."
            ) from error
        finally:
            session.cancel()

    return run


def _scale_of(run: Run, file: Path, fixed: tuple[int, int] | None) -> int:
    """What a network enlarges by, the same for pictures of every kind and size that it takes."""
    first, *others = _probes(fixed)
    scale = _enlargement(run, file, first)
    for picture in others:
        try:
            again = _enlargement(run, file, picture)
        except _RefusalError:
            continue  # it may want sides of certain multiples
        if again != scale:
            raise WeightsError(
                f"{file}: enlarges by {scale} or by {again}, as the picture is. srcli runs "
                "networks that always enlarge by the same whole number."
            )
    return scale


def _probes(fixed: tuple[int, int] | None) -> Iterator[Batch]:
    """Small pictures: grey, noise, black, white, and stripes; not all of one size."""
    random = np.random.default_rng(0)
    for height, width in [fixed] if fixed else [(64, 64), (96, 64), (48, 80)]:
        shape = (1, 3, height, width)
        yield np.full(shape, 0.5, np.float32)
        yield random.random(shape, np.float32)
        yield np.zeros(shape, np.float32)
        yield np.ones(shape, np.float32)
        yield np.broadcast_to((np.arange(width) // 4 % 2).astype(np.float32), shape).copy()


class _RefusalError(WeightsError):
    """A network refuses a picture."""


def _enlargement(run: Run, file: Path, picture: Batch) -> int:
    height, width = picture.shape[2:]
    try:
        restored = run(picture)
    except WeightsError:
        raise
    except Exception as error:
        raise _RefusalError(
            f"{file}: does not run on a picture of {width} x {height} ({first_line(error)}). "
            "Use another network."
        ) from error
    scale = restored.shape[2] // height if restored.ndim == 4 else 0
    if not scale or restored.shape != (1, 3, height * scale, width * scale):
        raise WeightsError(
            f"{file}: makes {' x '.join(map(str, restored.shape))} from a picture of {width} x "
            f"{height}, which is no enlargement by a whole number. Use another network."
        )
    if not np.isfinite(restored).all():
        raise WeightsError(
            f"{file}: makes values that are not finite from a picture of {width} x {height}. Its "
            "weights are damaged or its training diverged; use another network."
        )
    return scale


def _reach(run: Run, scale: int, fixed: tuple[int, int] | None, *, step: int = 1) -> int:
    """How many input pixels away a changed pixel is felt, and half as much again."""
    side = -(-PROBED // step) * step
    height, width = fixed or (side, side)
    picture = np.random.default_rng(0).random((1, 3, height, width), np.float32)
    other = picture.copy()
    y, x = height // 2, width // 2
    other[:, :, y, x] = 1 - np.round(other[:, :, y, x])
    felt = np.abs(run(picture) - run(other)).max(axis=(0, 1)) > FELT
    rows, columns = np.nonzero(felt)
    if not rows.size:
        return LEAST_MARGIN
    far = int(
        max(np.abs(rows // scale - y).max(initial=0), np.abs(columns // scale - x).max(initial=0))
    )
    margin: int = max(LEAST_MARGIN, math.ceil(1.5 * int(far)))
    return min(margin, (min(fixed) - 1) // 4) if fixed else margin


def _export(model: ForeignModel, target: Path) -> None:
    """Write what spandrel loaded as ONNX, and see that it computes the same."""
    import warnings

    import torch

    network = model.published()
    step, least = model.geometry.multiple_of, model.geometry.minimum
    side = _accepted(64, least, step)
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
                f"{model.label}: exported, it differs by {difference:.2g}. "
                "Use --backend torch; no file was written."
            )
    session.close()
