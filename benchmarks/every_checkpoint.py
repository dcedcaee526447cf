"""Whether a checkpoint of anybody's proves itself: every model and scale with weights that no layer
keeps small, so that values grow to hundreds and float32 rounds them visibly.

    python benchmarks/every_checkpoint.py --out benchmarks/results/every-checkpoint.csv

For each: `algebra` is the fused network against the published one in double precision, of the
largest value; `weights` the fused tensors in float32 against those in double precision, of each
tensor's largest; `published`, `fused` and `onnx` how far each is in float32 from the published
network in double precision. `caught` counts the tensors of the fused form, of those tried, whose
largest weight could be seen changed by 1e-4 of itself in double precision. The file is written
after each row; what it has is not measured again.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from every_graph import read_rows, variants, write_rows
from support.random_weights import filled_model

from srcli.backends.base import SessionOptions
from srcli.backends.ort import OnnxRuntimeSession
from srcli.errors import SrcliError
from srcli.export import verify
from srcli.export.to_onnx import to_onnx
from srcli.loading.model import LoadedModel

FIELDS = [
    *("model", "scale", "largest", "algebra", "weights", "published", "fused", "onnx"),
    *("caught", "verdict"),
]
TRIED = 5  # tensors


def measure(model: LoadedModel, afford: float) -> dict[str, Any]:
    proof = verify.Proof(model)
    (crop,) = verify.sample_crops([_size(model, afford)])
    reference = proof.on(crop)
    exact, largest = reference.exact, float(np.abs(reference.exact).max())
    again = proof.exact_fused(crop.astype(float))
    graph = verify.without_clamp(to_onnx(model).SerializeToString())
    session = OnnxRuntimeSession(graph, SessionOptions())
    row = {
        "largest": largest,
        "algebra": np.abs(again - exact).max() / largest,
        "weights": worst_weight(proof),
        "published": np.abs(reference.expected - exact).max(),
        "fused": np.abs(proof.fused(crop) - exact).max(),
        "onnx": np.abs(session(crop) - exact).max(),
        "caught": caught(proof, crop, exact),
    }
    return {
        name: value if isinstance(value, str) else f"{value:.1e}" for name, value in row.items()
    }


def _size(model: LoadedModel, afford: float) -> tuple[int, int]:
    per_pixel = model.spec.multiply_adds(model.scale).published_form * float(model.grid) ** 2
    side = max(8, model.geometry.minimum, min(24, int((afford / per_pixel) ** 0.5)))
    step = model.geometry.multiple_of
    return (-(-side // step) * step,) * 2


def worst_weight(proof: Any) -> float:
    exact = proof._exact_fused.state_dict()
    return max(
        float((value.double() - exact[name]).abs().max() / exact[name].abs().max().clamp(1e-30))
        for name, value in proof._fused.state_dict().items()
        if value.is_floating_point()
    )


def caught(proof: Any, crop: np.ndarray, exact: np.ndarray) -> str:
    parameters = [p for p in proof._exact_fused.parameters() if p.numel() > 1000]
    chosen = parameters[:: max(1, len(parameters) // TRIED)][:TRIED]
    seen = 0
    for tensor in chosen:
        flat = tensor.reshape(-1)
        place = flat.abs().argmax()
        before = flat[place].clone()
        flat[place] *= 1 + 1e-4
        difference = np.abs(proof.exact_fused(crop.astype(float)) - exact).max()
        seen += bool(difference > verify.ALGEBRA * np.abs(exact).max())
        flat[place] = before
    return f"{seen} of {len(chosen)}"


def verdict(model: LoadedModel) -> str:
    """What `export` says."""
    from srcli.export.to_onnx import export_verified

    with tempfile.TemporaryDirectory() as folder:
        try:
            export_verified(model, Path(folder) / "net.onnx")
        except SrcliError as error:
            return f"REFUSED: {error}"
    return "exported"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", default="", help="names that begin so")
    parser.add_argument("--afford", type=float, default=4e9, help="multiply-adds of one run")
    arguments = parser.parse_args()
    verify.AFFORDABLE = arguments.afford
    torch.set_grad_enabled(False)
    rows = read_rows(arguments.out, "model", "scale")
    for spec, scale in variants():
        key = (spec.name, str(scale))
        if not spec.name.startswith(arguments.only) or key in rows:
            continue
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            model = filled_model(spec.name, scale, Path(folder))
            rows[key] = {"model": spec.name, "scale": scale, **measure(model, arguments.afford)}
            rows[key]["verdict"] = verdict(model)
        write_rows(arguments.out, FIELDS, rows)
        print(f"{time.perf_counter() - started:.0f} s  {rows[key]}", flush=True)
        gc.collect()


if __name__ == "__main__":
    main()
