"""Where weights and exported graphs lie, and how they are named and checked."""

from __future__ import annotations

import hashlib
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path

from srcli.errors import OutputError, WeightsError
from srcli.spec import InputKind, ModelSpec, Scale, Task

GRAPH_FORMAT = 2
"""Raised whenever the exporter makes another graph from the same weights: old files are left."""


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
    """Measured by us: test set -> {psnr, ssim}."""


@cache
def shipped_weights() -> tuple[Weights, ...]:
    """The weights that come with srcli, as `manifest.toml` lists them."""
    folder = files("srcli.weights")
    table = tomllib.loads(folder.joinpath("manifest.toml").read_text("utf-8"))
    return tuple(
        Weights(
            model=row.pop("model"),
            scale=row.pop("scale"),
            task=row.pop("task"),
            path=Path(str(folder.joinpath(f"{name}.safetensors"))),
            sha256=row.pop("sha256"),
            kind=row.pop("input", "clean"),
            licence=row.pop("licence"),
            scores=row.pop("scores", {}),
            facts=row,
        )
        for name, row in table.items()
    )


def flaw(weights: Weights) -> str | None:
    """What is wrong with a file of the manifest, to be put behind its name; None if it is whole."""
    try:
        whole = sha256_of(weights.path) == weights.sha256
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return None if whole else "is not the file of the manifest"


def find_weights(
    spec: ModelSpec, scale: Scale, task: Task, kind: InputKind = "clean"
) -> Weights | None:
    """The weights for a model, scale, task and kind of input, if any: shipped, else fetched."""
    wanted = (spec.name, scale, task, kind)
    shipped = next(
        (w for w in shipped_weights() if (w.model, w.scale, w.task, w.kind) == wanted), None
    )
    fetchable = task == "upscale" and kind == "clean"
    return shipped or (fetched_weights(spec, scale) if fetchable else None)


def fetched_weights(spec: ModelSpec, scale: Scale) -> Weights | None:
    """What `srcli weights fetch` has put into the cache for a model and scale, if it has."""
    path = fetched_path(spec, scale)
    if path is None or not path.exists():
        return None
    licence = spec.weights[int(scale)].licence or "none stated"
    return replace(weights_from_file(spec, scale, "upscale", path), licence=licence)


def fetched_path(spec: ModelSpec, scale: Scale) -> Path | None:
    """Where fetched weights are or will be; None if nothing can be fetched.

    The name holds the published checksum: a new publication is another file.
    """
    published = spec.weights.get(int(scale)) if scale == int(scale) else None
    if published is None or published.sha256 is None:
        return None
    name = f"{spec.name}-x{scale}-{published.sha256[:16]}.safetensors"
    return cache_folder() / "weights" / name


def weights_from_file(spec: ModelSpec, scale: Scale, task: Task, file: Path) -> Weights:
    """A user's own checkpoint.

    Raises:
        WeightsError: The file cannot be read.
    """
    try:
        digest = sha256_of(file)
    except FileNotFoundError:
        raise WeightsError(f"{file}: there is no such file. Check the path.") from None
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror}).") from error
    return Weights(model=spec.name, scale=scale, task=task, path=file, sha256=digest)


def sha256_of(file: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def cache_folder() -> Path:
    """Where graphs and engines are kept: `SRCLI_CACHE`, or the platform's place for caches."""
    chosen = os.environ.get("SRCLI_CACHE")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("srcli", appauthor=False)


@contextmanager
def into_cache() -> Iterator[None]:
    """What is written in this block lies in the cache: errors say how to have it elsewhere."""
    try:
        yield
    except OutputError as error:
        reason = str(error).rpartition(". ")[0] or str(error)  # the last sentence is a remedy
        raise OutputError(
            f"{reason}. It is srcli's cache: make it writable, free some space, or name another "
            "folder in SRCLI_CACHE."
        ) from error


def native_path(weights: Weights) -> Path:
    """Where these weights are or will be as `srcli.backends.native` reads them."""
    return graph_path(weights, "native").with_suffix(".safetensors")


def graph_path(weights: Weights, precision: str = "fp32") -> Path:
    """Where the exported graph of these weights is or will be."""
    scale = str(weights.scale).replace("/", "_")
    kind = f"{weights.sha256[:16]}-{precision}-g{GRAPH_FORMAT}"
    name = f"{weights.model}-x{scale}-{kind}.onnx"
    return cache_folder() / "graphs" / name
