"""The rule that fills a network with numbers from its tensors' names, for the golden vectors."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from srcli.models.registry import get_model

RGB_MEAN = (0.4488, 0.4371, 0.4040)


def fill(network: torch.nn.Module) -> None:
    """Give every tensor the numbers that its name and shape stand for."""
    tensors = {name: _draw(name, value.shape) for name, value in network.state_dict().items()}
    network.load_state_dict(tensors)


def golden(shared: Path, name: str, *keys: str) -> list[torch.Tensor]:
    """Tensors of a reference vector; the test is skipped where there is none."""
    file = shared / "reference" / "golden" / f"{name}.npz"
    if not file.exists():
        pytest.skip(f"no reference vector for {name}")
    with np.load(file) as arrays:
        return [torch.from_numpy(arrays[key]) for key in keys]


def check_published_tensors(shared: Path, name: str, network: torch.nn.Module) -> None:
    """The tensors of `model-x<scale>` have the published names and shapes, and are as many."""
    manifest = json.loads((shared / "reference" / "manifest.json").read_text())[name]
    own = {key: list(value.shape) for key, value in network.state_dict().items()}
    assert own == manifest["tensors"]
    model, _, scale = name.rpartition("-x")
    assert get_model(model).parameters(int(scale)) == manifest["parameters"]


def _draw(name: str, shape: torch.Size) -> torch.Tensor:
    noise = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    values = _scaled(name, noise.astype(np.float32))
    return torch.from_numpy(np.asarray(values, np.float32))


def _scaled(name: str, noise: np.ndarray) -> np.ndarray:
    if name.endswith("rgb_mean"):
        return np.array(RGB_MEAN, np.float32).reshape(noise.shape)
    if name.endswith("weight_g"):
        return 1 + 0.1 * np.abs(noise)
    if noise.size == 1:
        return 1 + 0.1 * noise
    if noise.ndim > 1:
        return noise / np.sqrt(math.prod(noise.shape[1:]))
    return 1 + 0.1 * noise if name.endswith("weight") else 0.05 * noise
