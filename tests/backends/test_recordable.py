"""Networks on a pretended CUDA device: on one device throughout, and without a look at values.

What waits for a value on the device cannot be recorded as a CUDA graph.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode

from srcli.models.registry import MODELS, get_model
from srcli.models.spec import ModelSpec


def _marks(spec: ModelSpec, scale: int) -> tuple[pytest.MarkDecorator, ...]:
    """The largest of a family differ from others by their size only."""
    last, largest = scale == spec.scales[-1], "paper" in spec.name
    if largest and not last:
        return (pytest.mark.exhaustive,)
    return () if last and not largest else (pytest.mark.slow,)


VARIANTS = [
    pytest.param(spec.name, scale, marks=_marks(spec, scale))
    for spec in MODELS
    for scale in spec.scales
]
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
CUDA = torch.device("cuda", 0)


class Cut(TorchFunctionMode):
    """Cuts tensors by operations: PyTorch's own way asks for a library of the device."""

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        if function is not Tensor.__getitem__:
            return function(*arguments, **(keywords or {}))
        tensor, place = arguments
        dim = 0
        for part in place if isinstance(place, tuple) else (place,):
            if part is Ellipsis:
                dim = tensor.ndim - (len(place) - 1 - place.index(Ellipsis))
            elif part is None:
                tensor = tensor.unsqueeze(dim)
                dim += 1
            elif isinstance(part, slice):
                end = tensor.shape[dim] if part.stop is None else part.stop
                tensor = torch.ops.aten.slice(tensor, dim, part.start or 0, end, part.step or 1)
                dim += 1
            elif isinstance(part, int):
                tensor = tensor.select(dim, part)
            else:
                return function(*arguments)
        return tensor


def on_cuda(tensor: Tensor, mode: FakeTensorMode) -> FakeTensor:
    return FakeTensor(mode, tensor.detach().to("meta"), CUDA)


def restored(network, mode, dtype):
    picture = on_cuda(torch.empty(1, 3, 24, 36, dtype=dtype), mode)
    with mode, Cut(), torch.inference_mode():
        return network(picture)


@pytest.fixture(autouse=True)
def _new_parameters():
    """Let a conversion put new parameters into a module, instead of new values into old ones."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    yield
    torch.__future__.set_overwrite_module_params_on_conversion(False)


def precisions(spec: ModelSpec) -> list[str]:
    return ["fp32"] if spec.half_tolerance is None else list(TYPES)


@pytest.mark.parametrize(("name", "scale"), VARIANTS)
def test_a_fused_network_can_be_recorded(name, scale):
    spec = get_model(name)
    with torch.device("meta") if name.startswith("dcls") else torch.device("cpu"):
        published = spec.build(scale)
    for precision in precisions(spec):
        mode = FakeTensorMode()
        network = published.fuse().eval().requires_grad_(False).to(TYPES[precision])
        network._apply(lambda tensor, mode=mode: on_cuda(tensor, mode))
        result = restored(network, mode, TYPES[precision])
        assert result.device == CUDA
        assert result.dtype == TYPES[precision]
        assert result.shape == (1, 3, 24 * scale, 36 * scale)


class Looks(torch.nn.Module):
    def forward(self, x):
        return x if x.mean() > 0 else -x


class Mixes(torch.nn.Module):
    def forward(self, x):
        return x + torch.ones(x.shape)


@pytest.mark.parametrize("network", [Looks(), Mixes()])
def test_others_are_found_out(network):
    with pytest.raises((RuntimeError, DataDependentOutputException)):
        restored(network, FakeTensorMode(), torch.float32)
