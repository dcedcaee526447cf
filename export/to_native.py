"""Prepare weights for `srcli.backends.native`; they are verified before they get their name."""

from __future__ import annotations

from pathlib import Path

from srcli.backends.native.network import compiled_network
from srcli.backends.native.weights import read_weights, write_weights
from srcli.loading.model import LoadedModel
from srcli.models.awsrn.network import Awsrn
from srcli.models.lapar.network import Lapar
from srcli.system.files import atomic_path
from srcli.system.machine import usable_cores

from .verify import Comparison, verify_form


def write_verified(model: LoadedModel, target: Path) -> list[Comparison]:
    """Write a model's fused weights to `target`, which appears only after its check.

    Raises:
        VerificationError: Our compiled code computes something else than the published network.
        OutputError: The file cannot be written.
    """
    published = model.published_network()
    assert isinstance(published, Lapar | Awsrn), "other models have no such form"
    weights = {name: value.numpy() for name, value in published.fuse().state_dict().items()}
    with atomic_path(target) as partial:
        write_weights(partial, weights, published.scale, published.skips())
        network = compiled_network(*read_weights(partial), threads=usable_cores())
        try:
            return verify_form(model, "native", network)
        finally:
            network.close()
