"""Prepare the shipped weights for our compiled code, and verify them.

    python -m srcli.weights.training.prepare
    python -m srcli.weights.training.prepare lapar-c-x2

Writes `weights/prepared`, which ships, and the checksums in `manifest.toml`. So nobody needs
PyTorch to run these models, nor waits the first time. Each file is compared with the published
network before it gets its name.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

from srcli.checkpoints.shipped import Weights, prepared_file, sha256_of, shipped_weights
from srcli.loading.model import LoadedModel
from srcli.models.registry import get_model
from srcli.system.installation import SMALL

from .scores import change_row


def prepare(weights: Weights, target: Path) -> None:
    """Write the prepared form of shipped weights.

    Args:
        weights: Of a model that our compiled code runs.
        target: Appears once it is verified.

    Raises:
        VerificationError: The compiled code computes something else than the published network.
    """
    model = LoadedModel(spec=get_model(weights.model), scale=weights.scale, weights=weights)
    importlib.import_module("srcli.export.to_native").write_verified(model, target)


def _comes_prepared(weights: Weights) -> bool:
    """Tell whether weights run without PyTorch; what comes with `srcli` has PyTorch beside it."""
    return get_model(weights.model).compiled and weights.distribution == SMALL


def main() -> None:
    """Prepare all that come with `srcli-lite`, or what is named."""
    program = "python -m srcli.weights.training.prepare"
    parser = argparse.ArgumentParser(prog=program, description=__doc__)
    parser.add_argument("names", nargs="*", help="only these, such as lapar-c-x2")
    arguments = parser.parse_args()
    able = {w.path.stem: w for w in shipped_weights() if _comes_prepared(w)}
    if unknown := set(arguments.names) - set(able):
        parser.error(
            f"{min(unknown)} does not ship with srcli-lite, or our compiled code does not run it"
        )
    for name in arguments.names or able:
        target = prepared_file(able[name])
        target.parent.mkdir(exist_ok=True)
        prepare(able[name], target)
        target.chmod(0o644)
        change_row(name, able[name].sha256, prepared_sha256=sha256_of(target))


if __name__ == "__main__":
    main()
