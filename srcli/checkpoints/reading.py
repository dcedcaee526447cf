"""Read the weights of a network from files that other people's programs wrote."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.checkpoints.sniffing import kind_of
from srcli.errors import WeightsError
from srcli.system.files import open_regular

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")

# Where training programs put the weights beside other things, best choice first: a moving
# average is what they would ship.
_WRAPPERS = (
    "params_ema",
    "model_ema",
    "ema",
    "params",
    "state_dict",
    "model_state_dict",
    "model",
    "net_g",
    "netG",
    "network",
    "net",
    "generator",
    "weights",
)
_DEEPEST = 8  # wrappers within each other; a dictionary may hold itself
# What tools leave among the weights: counts of operations (thop), of averaged models (SWA).
_EXTRAS = ("total_ops", "total_params", "n_averaged")
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "netG.", "net_g.", "network.", "generator.")


def load_weights(network: nn.Module, file: Path) -> None:
    """Fill a network in place from a `.safetensors` file or a PyTorch checkpoint.

    The names must be the network's own, as published; wrappers (`state_dict`, `params`, ...) and
    prefixes (`module.`, ...) of training programs are seen through. Constants that are not
    trained (a mean, a dictionary) may be missing: the network then keeps its own.

    Raises:
        WeightsError: The file cannot be read, holds anything but data, or does not fit.
    """
    tensors = read_tensors(file)
    own = network.state_dict()
    optional = {name for name, p in network.named_parameters() if not p.requires_grad}
    tensors = _without_prefix(tensors, set(own) - optional)
    missing = sorted(set(own) - optional - set(tensors))
    if missing:
        raise WeightsError(
            f"{file}: these weights are of another model: {len(missing)} of {len(own)} tensors "
            f"are missing, {missing[0]} among them",
            "Choose the model that they belong to with -m.",
        )
    _check_values(file, own, tensors)
    unknown = sorted(set(tensors) - set(own))
    if unknown:
        raise WeightsError(
            f"{file}: these weights are of another model: it has no tensor {unknown[0]} "
            f"({len(unknown)} like that)",
            "Choose the model that they belong to with -m.",
        )
    network.load_state_dict(tensors, strict=False)


def fits(network: nn.Module, tensors: Mapping[str, Tensor]) -> bool:
    """Tell whether these are the network's tensors, by names and shapes; values do not matter."""
    own = network.state_dict()
    optional = {name for name, p in network.named_parameters() if not p.requires_grad}
    found = _without_prefix(dict(tensors), set(own) - optional)
    return (
        set(own) - optional <= set(found)
        and set(found) <= set(own)
        and all(value.shape == own[name].shape for name, value in found.items())
    )


def _check_values(file: Path, own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    for name, value in tensors.items():
        if name not in own:
            continue
        if value.shape != own[name].shape:
            raise WeightsError(
                f"{file}: {name} is {_shape(value)}, this model needs {_shape(own[name])}",
                "Choose the model and scale that the weights belong to with -m and -s.",
            )
        if not bool(value.isfinite().all()):
            raise WeightsError(
                f"{file}: {name} holds values that are not finite",
                "The file is damaged or its training diverged; use another checkpoint.",
            )


def read_tensors(file: Path) -> dict[str, Tensor]:
    """Read all tensors of a checkpoint by name, on the CPU, unwrapped, floats as float32.

    Raises:
        WeightsError: The file cannot be read or holds anything but data.
    """
    if file.suffix.lower() not in SUFFIXES:
        raise WeightsError(
            f"{file}: not a checkpoint", f"Give a file that ends in {', '.join(SUFFIXES)}."
        )
    kind = kind_of(file)
    if kind == "onnx":
        raise WeightsError(
            f"{file}: is an ONNX network, not a checkpoint",
            "Rename it so that it ends in .onnx, and give it with --model-file.",
        )
    content = _read_safetensors(file) if kind == "safetensors" else _read(file)
    tensors = _unwrapped(content)
    if not tensors:
        raise WeightsError(f"{file}: holds no tensors", "Give a checkpoint of a network.")
    for name, value in tensors.items():
        if (reason := _oddity(value)) is not None:
            raise WeightsError(
                f"{file}: {_shown(name)} is {reason}, which srcli does not read",
                "Save the weights as plain tensors of floating-point numbers.",
            )
    return {k: v.detach().float() if v.is_floating_point() else v for k, v in tensors.items()}


def _oddity(value: Tensor) -> str | None:
    """Return why a tensor does not hold plain numbers; None if it does."""
    import torch

    if value.is_meta:
        return "a tensor without values (on the meta device)"
    if value.is_quantized:
        return "quantised"
    if value.layout != torch.strided or value.is_nested:
        return "sparse or nested"
    if value.is_complex():
        return "complex"
    # A view may repeat a single number without end.
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return "larger than what the file holds of it"
    return None


def _shown(name: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in name[:100])


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise WeightsError(
            f"{file}: damaged or not a safetensors file ({error})", "Fetch it again."
        ) from error


def _read(file: Path) -> object:
    import torch

    try:
        with warnings.catch_warnings(), open_regular(file) as stream:
            warnings.simplefilter("ignore")  # about pickle versions: only the outcome matters
            # Tensors and plain containers only: a pickle may otherwise run any program it likes.
            # By content: PyTorch goes by the name of a file.
            return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _refusal(str(error)).about(str(file)) from error
    except Exception as error:  # a damaged pickle can fail in any way at all
        raise WeightsError(
            f"{file}: damaged or not a PyTorch checkpoint", "Fetch it again."
        ) from error


def _refusal(said: str) -> WeightsError:
    """Return the error for a pickle with more than tensors in it; `said` is PyTorch's reason."""
    found = re.search(r"(?:Unsupported global: )?GLOBAL (\S+)", said)
    advice = "Ask its author for a .safetensors file, or for a checkpoint of the state_dict alone."
    if found is None:
        problem = "refused: it is damaged, or holds more than tensors, which could run code"
        return WeightsError(problem, advice)
    return WeightsError(
        f"refused: it holds Python objects ({_shown(found[1])}) beside tensors, which could run "
        "code; whole networks are saved so",
        advice,
    )


def _unwrapped(content: object, depth: int = 0) -> dict[str, Tensor]:
    import torch

    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return {}
    for key in _WRAPPERS:
        inner = content.get(key)
        if isinstance(inner, Mapping) and inner:
            return _unwrapped(inner, depth + 1)
    return {
        str(k): v
        for k, v in content.items()
        if isinstance(v, torch.Tensor) and str(k).rpartition(".")[2] not in _EXTRAS
    }


def _without_prefix(tensors: dict[str, Tensor], wanted: set[str]) -> dict[str, Tensor]:
    """Strip known prefixes, outermost first, until the names fit."""
    while not wanted <= set(tensors):
        prefix = next((p for p in _PREFIXES if all(k.startswith(p) for k in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _shape(tensor: Tensor) -> str:
    return "x".join(str(side) for side in tensor.shape) or "a single number"
