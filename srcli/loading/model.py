"""Load models: from a name to an object that a backend can open."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.checkpoints.shipped import (
    Weights,
    fetched_path,
    find_weights,
    graph_path,
    left_out,
    native_path,
    ready_weights,
    shipped_weights,
    weights_from_file,
)
from srcli.errors import UsageError, WeightsError
from srcli.loading import exporter
from srcli.loading.prepared import needs_packages, prepared
from srcli.models.registry import DEFAULT_MODEL, check_scale, get_model
from srcli.models.spec import (
    Geometry,
    GraphForm,
    GraphPrecision,
    InputKind,
    ModelSpec,
    Scale,
    Task,
)
from srcli.system.cache import is_whole
from srcli.system.installation import bring

if TYPE_CHECKING:
    from srcli.models.base import Branch, Network, PublishedNetwork

ALIKE = 0.02  # dB, means of test sets: less says nothing of the next picture
Note = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedModel:
    """A model, a scale and its weights; the network itself is built when asked for."""

    spec: ModelSpec
    scale: Scale
    weights: Weights
    note: Note = lambda message: None
    """Function that is called with a message before long work."""

    prune_below: float | None = None
    """Learned weight below which branches are taken out; None leaves the network as it is."""

    @property
    def geometry(self) -> Geometry:
        return self.spec.geometry(self.scale)

    @property
    def grid(self) -> Scale:
        """Factor by which the network really enlarges; see `ModelSpec.grid`."""
        return self.spec.grid(self.scale)

    @property
    def label(self) -> str:
        """Name and scale or task of the model, for people: `lapar-c x2 (photo)`."""
        if self.weights.task != "upscale":
            return f"{self.spec.name} {self.weights.task}"
        kind = "" if self.weights.kind == "clean" else f" ({self.weights.kind})"
        return f"{self.spec.name} x{float(self.scale):g}{kind}"

    def published_network(self) -> PublishedNetwork:
        """Return the network in its paper's form, with its weights, on the CPU."""
        network = self._filled()
        self._prune(network)
        return network

    def removed(self) -> list[str]:
        """Return lines, for people, about the branches that `prune_below` takes out."""
        return [
            f"{self.label}: without the {branch.kernel}x{branch.kernel} branch of weight "
            f"{branch.weight:.3g}"
            for branch in self._prune(self._filled())
        ] or [f"{self.label}: no branch has a weight below {self.prune_below:g}"]

    def _filled(self) -> PublishedNetwork:
        from srcli.checkpoints.reading import load_weights

        network = self.spec.build(self.scale)
        load_weights(network, self.weights.path)
        return network.eval().requires_grad_(False)

    def _prune(self, network: PublishedNetwork) -> list[Branch]:
        return [] if self.prune_below is None else network.prune_branches(self.prune_below)

    def network(self) -> Network:
        """Return the fused network, which computes the same function in fewer operations."""
        return self.published_network().fuse()

    def graph(self, precision: GraphPrecision = "fp32") -> Path:
        """Return the verified ONNX file in the cache; exported on first use, in seconds."""
        return self._exported(precision)

    def cpu_graph(self, precision: GraphPrecision = "fp32") -> Path:
        """Return the ONNX file in the form that is fastest on CPUs: dense models by parts."""
        return self._exported(precision, "parts") if self.spec.dense else self.graph(precision)

    def tap_graph(self, precision: GraphPrecision = "fp32") -> Path | None:
        """Return the ONNX file that ends at the 13 taps of symmetric filters; None without these.

        In fp16 it is None too, as no CPU backend computes in it.
        """
        if self.spec.distinct_taps is None or precision == "fp16":
            return None
        if not self._is_symmetric(self._graph_path(precision, "taps")):
            return None
        return self._exported(precision, "taps")

    def native_weights(self) -> Path | None:
        """Return the verified weights for the backend `native`; None if it cannot run the model."""
        if not self.spec.compiled:
            return None
        if (ready := ready_weights(self.weights)) is not None:
            return ready
        path = native_path(self.weights)
        if self.spec.distinct_taps is not None and not self._is_symmetric(path):
            return None
        return self._kept(path, lambda target: exporter.write_native_weights(self, target))

    def engine(
        self, precision: GraphPrecision = "fp32", shape: tuple[int, ...] | None = None
    ) -> Path:
        """Return the TensorRT engine that is fastest at `shape`; built on first use, in minutes."""
        return exporter.cached_engine(self.graph(precision), precision, shape)

    def _is_symmetric(self, path: Path) -> bool:
        """Tell whether the filters are symmetric; those of a user's own dictionary may not be.

        A file `path` in the cache was only made if they are.
        """
        if is_whole(path):
            return True
        with needs_packages(self.label):
            from torch import nn

            taps = self.network().get_submodule("taps")
        assert isinstance(taps, nn.Conv2d)
        return taps.out_channels == self.spec.distinct_taps

    def _kept(self, path: Path, make: Callable[[Path], object]) -> Path:
        return prepared(path, make, label=self.label, note=self.note)

    def _graph_path(self, precision: GraphPrecision, form: GraphForm) -> Path:
        return graph_path(self.weights, precision if form == "whole" else f"{precision}-{form}")

    def _exported(self, precision: GraphPrecision, form: GraphForm = "whole") -> Path:
        def make(target: Path) -> None:
            exporter.write_graph(self, target, precision, form)

        return self._kept(self._graph_path(precision, form), make)


def load(
    name: str = DEFAULT_MODEL,
    scale: Scale = 4,
    *,
    task: Task = "upscale",
    kind: InputKind = "clean",
    weights: Path | None = None,
    note: Note = lambda message: None,
    prune_below: float | None = None,
) -> LoadedModel:
    """Find a model and its weights; nothing heavy is imported yet.

    Args:
        name: In the registry.
        scale: Factor of enlargement.
        task: Which weights, for models that have several.
        kind: Which weights for upscaling: for clean pictures, or for photographs with JPEG
            compression and noise.
        weights: The user's own checkpoint; None takes what is shipped, else what was fetched.
        note: Called with a message before long work.
        prune_below: Take out branches of less learned weight, for models that have such branches.

    Raises:
        UnknownModelError: No such model.
        UnsupportedScaleError: The model does not have this scale for the task.
        UsageError: The model has no branches to take out.
        WeightsError: There are no weights, or the checkpoint cannot be read.
    """
    spec = get_model(name)
    check_scale(spec, scale, task)
    if prune_below is not None and not spec.prunable:
        raise UsageError(f"{spec.name} has no branches to prune", "Leave out --prune-branches.")
    found = (
        weights_from_file(spec, scale, task, weights)
        if weights is not None
        else find_weights(spec, scale, task, kind)
    )
    if found is None:
        raise no_photo_weights(spec, scale) if kind == "photo" else _no_weights(spec, scale, task)
    if prune_below is not None:
        found = _pruned(found, prune_below)
    return LoadedModel(spec=spec, scale=scale, weights=found, note=note, prune_below=prune_below)


def _pruned(weights: Weights, threshold: float) -> Weights:
    """Give the file another checksum, so that caches keep pruned and whole models apart.

    What is prepared of the whole model is not of the pruned one.
    """
    name = f"{weights.sha256} without branches below {threshold!r}"
    digest = hashlib.sha256(name.encode()).hexdigest()
    return replace(weights, sha256=digest, prepared_sha256=None)


def no_photo_weights(spec: ModelSpec, scale: Scale | None = None) -> WeightsError:
    """Return the error for missing weights for photographs, which names all that there are.

    Args:
        spec: The model that was asked for.
        scale: The scale that was asked for; None for any.
    """
    by = "" if scale is None else f" by {float(scale):g}"
    having = ", ".join(
        f"{weights.model} x{float(weights.scale):g}"
        for weights in shipped_weights()
        if weights.kind == "photo"
    )
    return WeightsError(
        f"srcli ships no weights for {spec.name} to upscale photographs{by}",
        f"Leave out --input photo, or choose a model and scale that have them: {having}.",
    )


def _no_weights(spec: ModelSpec, scale: Scale, task: Task) -> WeightsError:
    """Return the error for missing weights, which names all ways to get some."""
    purpose = f"to {task} by {float(scale):g}" if scale > 1 else f"to {task}"
    problem = f"srcli ships no weights for {spec.name} {purpose}"
    ways = []
    if others := [one for one in spec.scales_for(task) if find_weights(spec, one, task)]:
        named = " or ".join(f"x{one}" for one in others)
        ways.append(f"choose {named}, for which it has weights")
    if (distribution := left_out(spec, scale, task)) is not None:
        ways.append(f"run `{bring(distribution)}`, which brings them")
    publication = (
        spec.publications.get(int(scale)) if task == "upscale" and scale == int(scale) else None
    )
    if publication is not None and (path := fetched_path(spec, scale)) is not None:
        if os.path.lexists(path):
            problem = f"{path}: the weights that were fetched are damaged"
        ways.append(f"run `srcli weights fetch {spec.name} -s {scale}` for its authors'")
    elif publication is not None:
        ways.append(
            f"fetch its authors' with a browser (`srcli weights fetch {spec.name} -s {scale}` "
            "says where)"
        )
    ways.append("give your own with --weights FILE")
    if (other := _best(scale, task)) is not None:
        ways.append(f"use -m {other}, the best that ships")
    remedy = ", or ".join(ways)
    return WeightsError(problem, f"{remedy[0].upper()}{remedy[1:]}.")


def _best(scale: Scale, task: Task) -> str | None:
    """Return the shipped model that does the same work with the best scores; None without one.

    Of those that nobody could tell apart from the best, the one with the least work.
    """
    able = {
        weights.model: _mean_score(weights)
        for weights in shipped_weights()
        if (weights.scale, weights.task, weights.kind) == (scale, task, "clean")
        and weights.scores  # of one that was not measured nothing is promised
        and "protocol" not in weights.facts  # measured in another way than all others
    }
    good = [name for name, score in able.items() if score > max(able.values()) - ALIKE]

    def work(name: str) -> tuple[float, str]:
        return get_model(name).multiply_adds(scale).fused_form, name

    return min(good, key=work, default=None)


def _mean_score(weights: Weights) -> float:
    """Return the mean PSNR of all test sets."""
    scores = [row.get("psnr", row.get("psnr_rgb", 0.0)) for row in weights.scores.values()]
    return sum(scores) / len(scores)
