"""The kernel that applies LAPAR's filters on a GPU: compiled, and interpreted on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from srcli.backends.filters.fused import use_kernel
from srcli.loading.model import load
from srcli.models.lapar.network import apply_filters
from srcli.models.registry import get_model

MODULE = "srcli.backends.cuda.filters"
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

    from srcli.backends.cuda.filters import BLOCK, _assemble

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


@pytest.mark.filterwarnings("ignore::UserWarning")  # what Triton says of its own defaults
@pytest.mark.parametrize(
    "kind",
    [
        "float16",
        pytest.param("float32", marks=pytest.mark.slow),
        pytest.param("bfloat16", marks=pytest.mark.slow),
    ],
)
def test_layers_compile_for_gpus(kind, network):
    """And use what the GPU has for products of matrices, with nothing spilled."""
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from srcli.backends.cuda import convolutions as triton_convolutions
    from srcli.backends.cuda import pictures as triton_pictures

    calls = {}

    class Recorder:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            return self.record

        def record(self, *given, **constants):
            names = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
            options = {k: constants.pop(k) for k in ("num_warps", "num_stages") if k in constants}
            types, aligned = {}, {}
            for index, (name, value) in enumerate(zip(self.kernel.arg_names, given, strict=False)):
                if isinstance(value, torch.Tensor):
                    types[name], aligned[(index,)] = (
                        f"*{names[value.dtype]}",
                        [["tt.divisibility", 16]],
                    )
                else:
                    types[name] = "i32" if isinstance(value, int) else "fp32"
            types |= dict.fromkeys(constants, "constexpr")
            key = str((self.kernel.__name__, types, constants, options))
            calls[key] = (self.kernel, types, constants, aligned, options)

    with pytest.MonkeyPatch.context() as patch:
        for module, names in (
            (triton_convolutions, ["_convolve"]),
            (triton_pictures, ["_filter", "_prepare", "_enlarge"]),
        ):
            for name in names:
                patch.setattr(module, name, Recorder(getattr(module, name)))
        from srcli.backends.cuda.networks import for_gpu

        for_gpu(network, getattr(torch, kind))(torch.rand(1, 3, 45, 80))
    assert len(calls) >= 7
    for kernel, types, constants, aligned, options in calls.values():
        source = ASTSource(kernel, signature=types, constexprs=constants, attrs=aligned)
        compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
        assert compiled.metadata.shared <= 227 << 10
        if kernel.__name__ in ("_convolve", "_filter"):
            ptx = compiled.asm["ptx"]
            assert "mma" in ptx
            if options["num_stages"] > 1:
                assert "cp.async" in ptx  # rows are loaded ahead
            if kind != "float32":
                # Windows are loaded 16 bytes at a time.
                assert "ld.global.b16" not in ptx and "ld.global.ca.b16" not in ptx


INTERPRETED = """
import torch
from srcli.backends.filters import fused
from srcli.backends.filters.fused import use_kernel
from srcli.backends.cuda.filters import BLOCK, apply_filters
from srcli.loading.model import load
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
fused.SAMPLE = (2, 3, 3, 50)  # each block takes the interpreter a quarter of a second
assert 300 > BLOCK
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


NETWORK = """
import sys
import torch
from srcli.backends.cuda.networks import for_gpu
from srcli.loading.model import load

model, scale, task, *sizes = sys.argv[1:]
network = load(model, int(scale), task=task).network()
torch.manual_seed(0)
for size in sizes:
    n, height, width = map(int, size.split("x"))
    picture = torch.rand(n, 3, height, width)
    expected = network(picture)
    for dtype, most in ((torch.float32, 1e-5), (torch.float16, 1 / 255)):
        found = for_gpu(network, dtype)(picture)
        assert found.dtype == torch.float32 and found.is_contiguous()
        error = (found - expected).abs().max()
        assert error < most, (size, dtype, error)
print("the same")
"""
SMALL, ALL = ("1x3x3", "2x5x7"), ("1x2x2", "1x4x3", "2x21x19", "1x45x67")
slow, exhaustive = pytest.mark.slow, pytest.mark.exhaustive


@pytest.mark.parametrize(
    ("model", "scale", "task", "sizes"),
    [
        ("lapar-c", 4, "upscale", ("2x2x3",)),
        ("awsrn-sd", 2, "upscale", ("1x2x3",)),
        pytest.param("lapar-c", 1, "deblock", SMALL, marks=slow),
        pytest.param("lapar-a", 2, "upscale", ALL[:3], marks=exhaustive),
        pytest.param("lapar-b", 3, "upscale", ("1x1x1", *ALL[:2]), marks=slow),
        *(
            pytest.param(f"lapar-{size}", scale, "upscale", ALL, marks=exhaustive)
            for size in "abc"
            for scale in (2, 3, 4)
        ),
        pytest.param("lapar-a", 1, "denoise", ALL[1:], marks=exhaustive),
        *(pytest.param("awsrn-sd", scale, "upscale", ALL, marks=exhaustive) for scale in (2, 3, 4)),
    ],
)
def test_networks_of_layers(model, scale, task, sizes):
    """In the interpreter, which has no products of bfloat16, against the fused network."""
    pytest.importorskip("triton")
    answer = subprocess.run(
        [sys.executable, "-c", NETWORK, model, str(scale), task, *sizes],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout == "the same\n", answer.stderr


@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize(("step", "group"), [(1, 1), (1, 2), (2, 2), (2, 4)])
def test_arranged_weights_are_the_convolution(step, group, scale, side):
    """As one matrix for each block of pixels, whichever way it is cut."""
    from srcli.backends.cuda.blocked import Tuning, block

    torch.manual_seed(side)
    planes, channels, outputs = 2, 3, 5
    weight = torch.randn(scale**2 * outputs, planes * channels, side, side).double()
    bias = torch.randn(scale**2 * outputs).double()
    picture = torch.randn(1, planes * channels, 4 * step, 3 * group).double()
    expected = torch.nn.functional.conv2d(picture, weight, bias, padding=side // 2)
    expected = torch.nn.functional.pixel_shuffle(expected, scale)[0].permute(1, 2, 0)
    padded = torch.nn.functional.pad(picture, [side // 2] * 4)[0]
    maps = padded.view(planes, channels, *padded.shape[1:]).permute(0, 2, 3, 1)  # planes H W C
    for part in [0] if scale == 1 else [0, scale, 1]:
        tuning = Tuning(step=step, group=group, part=part, piece=16)
        if part == 1 and step > 1:
            continue
        layer = block(
            weight,
            bias,
            tuning,
            dtype=torch.float64,
            scale=scale,
            planes=planes,
            inputs=channels + 1,
            outputs=outputs + 1,
        )
        stored = torch.nn.functional.pad(maps, [0, 1])
        found = torch.full_like(expected, torch.nan)
        for top in range(0, 4 * step, step):
            for left in range(0, 3 * group, group):
                for index in range(layer.parts):
                    first = top + index * layer.part // scale
                    window = stored[:, first : first + layer.rows, left : left + group + side - 1]
                    run = window.reshape(planes, layer.rows, -1)
                    run = torch.nn.functional.pad(run, [0, layer.pieces * 16 - run.shape[-1]])
                    made = run.flatten() @ layer.weights[index] + layer.bias[index].double()
                    rows = made.view(layer.part, -1)[:, : group * scale * (outputs + 1)]
                    rows = rows.view(layer.part, group * scale, outputs + 1)
                    y = top * scale + index * layer.part
                    own = found[y : y + layer.part, left * scale : (left + group) * scale]
                    own[:] = rows[..., :outputs]
                    assert (rows[..., outputs] == 0).all()
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


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
