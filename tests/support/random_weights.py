"""Models with weights drawn at random, for what does not depend on what these are."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from srcli.loading.model import LoadedModel, load
from srcli.models.registry import get_model
from support.reference import fill


def untrained_model(name: str, scale: int, folder: Path, *, seed: int = 0) -> LoadedModel:
    """As from a user's own checkpoint, which is made in `folder` unless it is there."""
    file = folder / f"{name}-x{scale}.safetensors"
    if not file.exists():
        torch.manual_seed(seed)
        _save(get_model(name).build(scale), file)
    return load(name, scale, task="denoise" if scale == 1 else "upscale", weights=file)


def filled_model(name: str, scale: int, folder: Path) -> LoadedModel:
    """With weights that keep no layer small: values grow to hundreds."""
    file = folder / f"{name}-x{scale}-filled.safetensors"
    if not file.exists():
        network = get_model(name).build(scale)
        fill(network)
        _save(network, file)
    return load(name, scale, task="denoise" if scale == 1 else "upscale", weights=file)


def _save(network: torch.nn.Module, file: Path) -> None:
    """As safetensors, which are read many times faster than a pickle."""
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, file)
