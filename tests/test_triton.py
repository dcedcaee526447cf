"""The kernel that applies LAPAR's filters on a GPU: compiled, and interpreted on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from srcli.backends.fused_filters import use_kernel
from srcli.loading import load
from srcli.models.lapar.network import apply_filters
from srcli.registry import get_model

MODULE = "srcli.backends.triton_filters"
CPU = torch.device("cpu")


@pytest.fixture
def network():
    return load("lapar-c", 2).network()


@pytest.mark.filterwarnings("ignore::UserWarning")  # what Triton says of its own defaults
@pytest.mark.parametrize("count", [13, 25])
@pytest.mark.parametrize("kind", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize("capability", [75, 80, 90])
def test_it_compiles_for_gpus(capability, kind, count):
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from srcli.backends.triton_filters import BLOCK, _assemble

    constants = {"COUNT": count, "BLOCK": BLOCK}
    tensors = dict.fromkeys(("picture", "taps", "out"), f"*{kind}")
    types = {
        name: "constexpr" if name in constants else tensors.get(name, "i32")
        for name in _assemble.arg_names
    }
    source = ASTSource(_assemble, signature=types, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32))
    # One reading of each tap, and of each plane of each of 25 neighbours.
    pixels_a_lane = BLOCK // (32 * compiled.metadata.num_warps)
    assert compiled.asm["ptx"].count("ld.global") == pixels_a_lane * (count + 75)
    assert compiled.asm["cubin"]


INTERPRETED = """
import torch
from srcli.backends.fused_filters import use_kernel
from srcli.backends.triton_filters import BLOCK, apply_filters
from srcli.loading import load
from srcli.models.lapar.network import apply_filters as plain

torch.manual_seed(0)
for (n, height, width), layout in {
    (2, 3, 3): torch.contiguous_format,
    (1, 3, BLOCK + 1): torch.channels_last,
}.items():
    for count in (13, 25):
        picture = torch.rand(n, 3, height, width).to(memory_format=layout)
        taps = torch.randn(n, count, height, width).to(memory_format=layout)
        expected = plain(picture, taps, count)
        torch.testing.assert_close(apply_filters(picture, taps, count), expected)
halves = picture.half(), taps.half(), count
exact = plain(picture.half().float(), taps.half().float(), count)
errors = [(way(*halves).float() - exact).abs().max() for way in (apply_filters, plain)]
assert errors[0] < errors[1]
network = load("lapar-c", 2).network()
x = torch.rand(1, 3, 3, 4)
expected = network(x)
halved = load("lapar-c", 3).network()
assert use_kernel(halved, torch.device("cpu"), torch.float16) == "Triton"
assert use_kernel(network, torch.device("cpu"), torch.float32) == "Triton"
torch.testing.assert_close(network(x), expected)
print("the same")
"""


def test_it_computes_what_pytorch_does():
    """And in half precision something better, because its sums are in float32."""
    pytest.importorskip("triton")
    answer = subprocess.run(
        [sys.executable, "-c", INTERPRETED],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout == "the same\n", answer.stderr


def test_without_triton_pytorch_does_it(monkeypatch, network):
    monkeypatch.setitem(sys.modules, MODULE, None)
    assert use_kernel(network, CPU, torch.float32).startswith("PyTorch (")
    assert network.assemble is apply_filters


def test_a_kernel_that_fails_or_is_wrong_is_not_used(monkeypatch, network):
    def wrong(picture, taps, count):
        return apply_filters(picture, taps, count) * 1.001

    def failing(picture, taps, count):
        raise RuntimeError("no kernel image\nfor this GPU")

    for kernel, reason in ((wrong, "the kernel differs by"), (failing, "no kernel image")):
        monkeypatch.setitem(sys.modules, MODULE, SimpleNamespace(apply_filters=kernel))
        assert reason in use_kernel(network, CPU, torch.float32)
        assert network.assemble is apply_filters


def test_other_networks_have_no_filters():
    assert use_kernel(get_model("awsrn-sd").build(4), CPU, torch.float32) is None
