"""Places, names and checksums of weights and exported graphs."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srcli.errors import WeightsError
from srcli.models.spec import InputKind, ModelSpec, Scale, Task
from srcli.system.cache import cache_folder, is_whole
from srcli.system.files import open_regular
from srcli.system.installation import SMALL, is_released

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

ENGINES = (".engine", ".plan")
"""Suffixes of TensorRT engines."""

GRAPH_FORMAT = 3
"""Version of exported graphs, raised if the exporter makes others: old files are then unused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A file of weights, and where it comes from."""

    model: str
    scale: Scale
    task: Task
    path: Path
    sha256: str
    kind: InputKind = "clean"
    licence: str = "unknown"
    facts: Mapping[str, object] = field(default_factory=dict)
    """Provenance of our own: data, steps, hours, hardware, date."""

    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Scores that we measured: test set -> {psnr, ssim}."""

    better_up_to_jpeg: int | None = None
    """Highest quality of JPEG files on which these weights measured better: those for photographs
    than those for clean pictures, those for deblocking than nothing. None if not measured."""

    any_scale: bool = False
    """True if the same file serves all scales of its model."""

    prepared_sha256: str | None = None
    """Checksum of the file in `prepared`, which holds the same weights as `srcli.backends.native`
    reads them, verified when they were committed; None if there is none."""

    distribution: str = SMALL
    """What a release brings the file with: `srcli-lite`, `srcli`, or a distribution of its own,
    which is an extra of `srcli`."""


@cache
def shipped_weights() -> tuple[Weights, ...]:
    """Return the weights that came with this installation, as `manifest.toml` lists them."""
    return tuple(weights for weights in _listed() if not _left_out(weights))


def left_out(spec: ModelSpec, scale: Scale | None, task: Task) -> str | None:
    """Return the distribution that has weights for this, if it is not installed.

    Args:
        spec: The model.
        scale: None for any.
        task: What they are for.
    """
    able = (w for w in _listed() if _left_out(w) and (w.model, w.task) == (spec.name, task))
    wanted = (w for w in able if scale is None or w.any_scale or w.scale == scale)
    return next((w.distribution for w in wanted), None)


def _left_out(weights: Weights) -> bool:
    return weights.distribution != SMALL and is_released() and not weights.path.exists()


@cache
def _listed() -> tuple[Weights, ...]:
    folder = files("srcli.weights")
    table = tomllib.loads(folder.joinpath("manifest.toml").read_text("utf-8"))
    return tuple(
        weights
        for name, row in table.items()
        for weights in _of_row(Path(str(folder.joinpath(f"{name}.safetensors"))), row)
    )


def _of_row(path: Path, row: dict[str, Any]) -> Iterator[Weights]:
    """Yield the weights of one file: one for each scale that it serves."""
    scale, scores = row.pop("scale"), row.pop("scores", {})
    weights = Weights(
        model=row.pop("model"),
        scale=0,
        task=row.pop("task"),
        path=path,
        sha256=row.pop("sha256"),
        kind=row.pop("input", "clean"),
        licence=row.pop("licence"),
        better_up_to_jpeg=row.pop("better_up_to_jpeg", None),
        prepared_sha256=row.pop("prepared_sha256", None),
        distribution=row.pop("distribution", SMALL),
        facts=row,
        any_scale=isinstance(scale, list),
    )
    if not isinstance(scale, list):
        yield replace(weights, scale=scale, scores=scores)
        return
    for each in scale:  # scores are named "x2 Set5"
        label = f"x{each} "
        own = {k.removeprefix(label): v for k, v in scores.items() if k.startswith(label)}
        yield replace(weights, scale=each, scores=own)


def flaw(weights: Weights) -> str | None:
    """Return what is wrong with a file of the manifest, to follow its name; None if it is whole."""
    try:
        whole = sha256_of(weights.path) == weights.sha256
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if whole else "has another checksum than in the manifest"


def flaws() -> dict[str, str | None]:
    """Return the flaw of each shipped file by its name; a file that serves several scales once."""
    shipped = {weights.path.name: weights for weights in shipped_weights()}
    found = {name: flaw(weights) for name, weights in shipped.items()}
    for name, weights in shipped.items():
        if (form := _prepared(weights)) is not None:
            found[f"{form.path.parent.name}/{name}"] = flaw(form)
    return found


def prepared_file(weights: Weights) -> Path:
    """Return the path, present or not, of shipped weights as `srcli.backends.native` reads them."""
    return weights.path.parent / "prepared" / weights.path.name


def ready_weights(weights: Weights) -> Path | None:
    """Return the prepared file that ships; None if there is none, or it is not whole."""
    form = _prepared(weights)
    return form.path if form is not None and flaw(form) is None else None


def _prepared(weights: Weights) -> Weights | None:
    if weights.prepared_sha256 is None:
        return None
    return replace(weights, path=prepared_file(weights), sha256=weights.prepared_sha256)


def find_weights(
    spec: ModelSpec, scale: Scale, task: Task, kind: InputKind = "clean"
) -> Weights | None:
    """Return the weights for a model, scale, task and kind: fetched, else shipped, else None.

    Who fetched weights wants them, also where weights of our own ship.
    """
    fetchable = task == "upscale" and kind == "clean"
    if fetchable and (fetched := fetched_weights(spec, scale)) is not None:
        return fetched
    wanted = (spec.name, task, kind)
    able = [w for w in shipped_weights() if (w.model, w.task, w.kind) == wanted]
    shipped = next((w for w in able if w.scale == scale), None)
    if shipped is None and able and able[0].any_scale:
        shipped = replace(able[0], scale=scale, scores={})
    return shipped


def photo_limits(spec: ModelSpec) -> dict[Scale, int]:
    """Return the scales of a model with weights for photographs, with their `better_up_to_jpeg`."""
    return {
        weights.scale: weights.better_up_to_jpeg or 0
        for weights in shipped_weights()
        if (weights.model, weights.kind) == (spec.name, "photo")
    }


def fetched_weights(spec: ModelSpec, scale: Scale) -> Weights | None:
    """Return the weights that `srcli weights fetch` has put into the cache, if they are whole."""
    path = fetched_path(spec, scale)
    if path is None or not is_whole(path):
        return None
    licence = spec.publications[int(scale)].licence or "none stated"
    return replace(weights_from_file(spec, scale, "upscale", path), licence=licence)


def fetched_path(spec: ModelSpec, scale: Scale) -> Path | None:
    """Return the path of fetched weights, present or not; None if nothing can be fetched.

    The name holds the published checksum, or one of the address: a new publication is another file.
    """
    publication = spec.publications.get(int(scale)) if scale == int(scale) else None
    if publication is None or publication.address is None:
        return None
    key = publication.sha256 or hashlib.sha256(publication.address.encode()).hexdigest()
    name = f"{spec.name}-x{scale}-{key[:16]}.safetensors"
    return cache_folder() / "weights" / name


def weights_from_file(spec: ModelSpec, scale: Scale, task: Task, file: Path) -> Weights:
    """Return a user's own checkpoint as weights of a model.

    Raises:
        WeightsError: The file cannot be read.
    """
    try:
        digest = sha256_of(file)
    except FileNotFoundError:
        raise WeightsError(f"{file}: there is no such file", "Check the path.") from None
    except OSError as error:
        raise WeightsError(
            f"{file}: cannot be read ({error.strerror})",
            "Check that it is there and that you may read it.",
        ) from error
    return Weights(model=spec.name, scale=scale, task=task, path=file, sha256=digest)


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open_regular(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def identity(file: Path) -> str:
    """Return a checksum, in hexadecimal, of all files that weights, a graph or an engine need.

    Large ONNX networks keep their weights in files of their own, engines their facts: these count
    too. A file without such parts has its own SHA-256.

    Raises:
        OSError: The file cannot be read.
        WeightsError: A part is missing, cannot be read, or lies outside of the file's folder.
    """
    names = part_names(file)
    own = sha256_of(file)
    if not names:
        return own
    parts = {name: _part_digest(file, name) for name in names}
    return hashlib.sha256(json.dumps([own, parts], sort_keys=True).encode()).hexdigest()


def part_names(file: Path) -> list[str]:
    """Return the names, relative to its folder, of the other files that a file needs."""
    suffix = file.suffix.lower()
    if suffix == ".onnx":
        return _external_data(file)
    if suffix in ENGINES:
        return [f"{file.name}.json"]
    return []


def _external_data(file: Path) -> list[str]:
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    try:
        model = onnx.load(file, load_external_data=False)
    except OSError:
        raise
    except Exception:  # protobuf's own: it is no graph, and whoever opens it says so
        return []
    found = {
        ExternalDataInfo(tensor).location
        for tensor in _tensors(model)
        if uses_external_data(tensor)
    }
    return sorted(found)


def _tensors(message: ModelProto) -> Iterator[TensorProto]:
    """Yield all tensors within a model or any other message of ONNX, wherever they are."""
    for field_, value in message.ListFields():
        if field_.message_type is None:
            continue
        for inner in (value,) if hasattr(value, "ListFields") else value:
            if field_.message_type.name == "TensorProto":
                yield inner
            else:
                yield from _tensors(inner)


def _part_digest(file: Path, name: str) -> str:
    part = file.parent / name
    inside = file.parent.resolve()
    if not part.resolve().is_relative_to(inside):
        raise WeightsError(
            f"{file}: refers to {name}, which is outside of its folder",
            "Get the network from somebody you trust, with all its files in one folder.",
        )
    try:
        with open_regular(part) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(
            f"{file}: a part of it, {name}, cannot be read ({error.strerror})",
            "Put it beside the file, where it was when the network was saved.",
        ) from error


def native_path(weights: Weights) -> Path:
    """Return the path, present or not, of these weights in the form for `srcli.backends.native`."""
    return graph_path(weights, "native").with_suffix(".safetensors")


def graph_path(weights: Weights, precision: str = "fp32") -> Path:
    """Return the path, present or not, of the exported graph of these weights."""
    scale = str(weights.scale).replace("/", "_")
    kind = f"{weights.sha256[:16]}-{precision}-g{GRAPH_FORMAT}"
    name = f"{weights.model}-x{scale}-{kind}.onnx"
    return cache_folder() / "graphs" / name
