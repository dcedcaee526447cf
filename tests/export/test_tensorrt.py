"""Building TensorRT engines. The TensorRT-RTX wheels do that on a machine without a GPU."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from support.random_weights import untrained_model

from srcli.backends.trt.engine import EngineInfo, collecting_logger
from srcli.errors import BackendError, InputError, UsageError, VerificationError
from srcli.export import limits, to_tensorrt
from srcli.export.precision import check_precision, network_types
from srcli.export.to_onnx import OnnxOptions, to_onnx
from srcli.export.to_tensorrt import (
    EngineOptions,
    build_engine,
    check_largest_tensor,
    load_tensorrt,
    unsupported_operators,
)
from srcli.loading.model import load
from srcli.models.registry import MODELS, get_model
from srcli.models.spec import GraphPrecision

Graphs = Callable[..., bytes]
with_rtx = pytest.mark.usefixtures("rtx")


@pytest.fixture
def rtx(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT-RTX, whatever else is installed, as on a machine without a GPU."""
    if importlib.util.find_spec("tensorrt_rtx_bindings") is None:
        pytest.skip("needs tensorrt-rtx-cu13-libs and tensorrt-rtx-cu13-bindings")
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(to_tensorrt, "current_gpu", lambda: None)


@pytest.fixture(scope="module")
def lapar() -> Graphs:
    """LAPAR-C as ONNX for a scale and a precision."""

    @cache
    def graph(scale: int, precision: str = "fp32") -> bytes:
        model = to_onnx(load("lapar-c", scale))
        return (_half(model) if precision == "fp16" else model).SerializeToString()

    return graph


def _half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A float16 graph with float32 input and output."""
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in graph.node:
        node.input[:] = ["input.half" if name == "input" else name for name in node.input]
        node.output[:] = ["output.half" if name == "output" else name for name in node.output]
    graph.node.insert(
        0, helper.make_node("Cast", ["input"], ["input.half"], to=TensorProto.FLOAT16)
    )
    graph.node.append(helper.make_node("Cast", ["output.half"], ["output"], to=TensorProto.FLOAT))
    onnx.checker.check_model(model, full_check=True)
    return model


def _one(kind: str, shape: tuple[int | str, ...] = (1, 3, "h", "w"), **attributes: object) -> bytes:
    """A graph of one operator with constant 3x3 weights or scales where it wants them."""
    constants = {
        "Conv": {"w": np.ones((3, 3, 3, 3), np.float32)},
        "Resize": {"roi": np.zeros(0, np.float32), "s": np.array([1, 1, 2, 2], np.float32)},
        "TopK": {"k": np.array([4000], np.int64)},
    }.get(kind, {})
    outputs = ["output", "indices"] if kind == "TopK" else ["output"]
    node = helper.make_node(kind, ["input", *constants], outputs, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString()


# Building


@with_rtx
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_lapar_builds(lapar: Graphs, scale: int, precision: str) -> None:
    seen: list[float] = []
    graph = lapar(scale, precision)
    tags = {"model": "lapar-c", "scale": scale}
    plan, info = build_engine(
        graph, EngineOptions(precision=precision), tags, lambda phase, done: seen.append(done)
    )
    assert info.engine_sha256 == hashlib.sha256(plan).hexdigest()
    assert info.onnx_sha256 == hashlib.sha256(graph).hexdigest()
    kind = {"fp32": "FLOAT", "fp16": "HALF"}[precision]
    assert {types for types in info.network_types if types.startswith("CONV")} == {
        f"CONVOLUTION {kind}"
    }
    assert info.engine_types == "not checked: no GPU"
    assert info.profile["max"] == (1, 3, 1080, 1920)
    assert b'{"model": "lapar-c"' in plan  # the engine's name
    assert seen == sorted(seen) and seen[-1] == 1
    assert EngineInfo.from_json(info.to_json()) == info


VARIANTS = [(spec.name, scale) for spec in MODELS for scale in spec.scales]
# Those that build in seconds, in one precision, belong to the suite. All others are `make engines`,
# which takes minutes.
QUICK = [v for v in VARIANTS if v[0].startswith(("lapar-b", "awsrn"))] + [
    ("asdn-base", 2), ("fsdn-base", 4)
]  # fmt: skip


def _offered(name: str) -> tuple[GraphPrecision, ...]:
    return ("fp32",) if get_model(name).half_tolerance is None else ("fp32", "fp16")


def _marks(name: str, scale: int, precision: GraphPrecision) -> tuple[pytest.MarkDecorator, ...]:
    if (name, scale) in QUICK and precision == _offered(name)[-1]:
        return ()
    # The papers' sizes of networks that are built in all scales in smaller ones.
    largest = "paper" in name and scale != get_model(name).scales[-1]
    return (pytest.mark.exhaustive if largest else pytest.mark.slow,)


BUILDS = [
    pytest.param(name, scale, precision, marks=_marks(name, scale, precision))
    for name, scale in VARIANTS
    for precision in _offered(name)
]


@with_rtx
@pytest.mark.parametrize(
    ("name", "scale"),
    [(spec.name, spec.scales[-1]) for spec in MODELS if "paper" not in spec.name],
)
def test_every_graph_is_read(tmp_path: Path, name: str, scale: int) -> None:
    """Each model's at one scale, in seconds; `make engines` builds all, the largest too."""
    model = untrained_model(name, scale, tmp_path)
    trt = load_tensorrt()
    logger, messages = collecting_logger(trt)
    builder = to_tensorrt._new_builder(trt, logger, messages)
    for precision in _offered(name):
        graph = to_onnx(model, OnnxOptions(precision=precision)).SerializeToString()
        network, parser = to_tensorrt._parse(trt, builder, logger, graph)
        check_precision(network_types(network), precision)
        assert network.get_output(0).shape[1] == 3
        del parser


@with_rtx
@pytest.mark.parametrize(("name", "scale", "precision"), BUILDS)
def test_every_graph_builds(
    tmp_path: Path, name: str, scale: int, precision: GraphPrecision
) -> None:
    model = untrained_model(name, scale, tmp_path)
    minimum, maximum = max(8, model.geometry.minimum), 64
    options = EngineOptions(
        precision=precision,
        min_shape=(1, 3, minimum, minimum),
        opt_shape=(1, 3, maximum, maximum),
        max_shape=(1, 3, maximum, maximum),
    )
    graph = to_onnx(model, OnnxOptions(precision=precision)).SerializeToString()
    plan, info = build_engine(graph, options, {"model": name})
    assert info.engine_sha256 == hashlib.sha256(plan).hexdigest()
    assert info.profile["max"] == (1, 3, maximum, maximum)


@with_rtx
def test_same_graph_same_engine() -> None:
    """TensorRT numbers some symbols in the order of its threads, so a few bytes may differ."""
    first, second = (build_engine(_one("Conv"), EngineOptions(), {})[0] for _ in range(2))
    assert len(first) == len(second)
    assert sum(a != b for a, b in zip(first, second, strict=True)) < 100


@with_rtx
def test_turing_is_built_for_where_it_is(lapar: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The paper's card is a Turing, which TensorRT-RTX leaves out unless it is asked for."""
    trt = load_tensorrt()
    logger, messages = collecting_logger(trt)
    builder = to_tensorrt._new_builder(trt, logger, messages)
    for capability, expected in (("7.5", ["SM75"]), ("9.0", []), (None, [])):
        config = builder.create_builder_config()
        to_tensorrt.aim_at(trt, config, capability)
        named = range(config.num_compute_capabilities)
        assert [config.get_compute_capability(index).name for index in named] == expected
    aim = to_tensorrt.aim_at
    monkeypatch.setattr(to_tensorrt, "aim_at", lambda trt, config, _: aim(trt, config, "7.5"))
    options = EngineOptions(precision="fp16", opt_shape=(1, 3, 32, 32), max_shape=(1, 3, 64, 64))
    assert build_engine(lapar(4, "fp16"), options, {})[0]


@with_rtx
def test_precision_is_checked(lapar: Graphs) -> None:
    with pytest.raises(VerificationError, match=r"fp16 was asked for.*CONVOLUTION FLOAT"):
        build_engine(lapar(2), EngineOptions(precision="fp16"), {})


@with_rtx
def test_fixed_dimensions_hold() -> None:
    _, info = build_engine(_one("Conv", (1, 3, 24, 32)), EngineOptions(), {})
    assert set(info.profile.values()) == {(1, 3, 24, 32)}


@with_rtx
def test_interruption_stops_the_build(lapar: Graphs) -> None:
    def interrupt(phase: str, done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_engine(lapar(2), EngineOptions(), {}, interrupt)


@with_rtx
def test_parser_errors_are_told() -> None:
    with pytest.raises(BackendError, match=r"cannot read the graph: DFT: only TensorRT 11"):
        build_engine(_one("DFT", (1, 16, 16, 1)), EngineOptions(), {})


@with_rtx
@pytest.mark.parametrize(
    "options",
    [{"hardware_compatible": True}, {"version_compatible": True}, {"timing_cache": Path("x")}],
)
def test_rtx_refuses_what_it_lacks(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="TensorRT-RTX has no --"):
        build_engine(b"", EngineOptions(**options), {})


@pytest.mark.parametrize("shape", [(1, 3, "w"), ()])
def test_no_image(shape: tuple[int | str, ...]) -> None:
    with pytest.raises(UsageError, match="one input of batch x channels x height x width"):
        check_largest_tensor(_one("Relu", shape), (1, 3, 8, 8))


def test_no_graph() -> None:
    with pytest.raises(InputError, match="no ONNX file"):
        unsupported_operators(b"\xff" * 9)


def test_no_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_libs", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=r"not installed\. Run `pip install"):
        load_tensorrt()
    assert BackendError.exit_code == 3


def test_old_tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("tensorrt")
    vars(old).update(__version__="8.6.1", Builder=object)
    for name in ("tensorrt_rtx", "tensorrt_rtx_libs"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "tensorrt", old)
    with pytest.raises(BackendError, match=r"tensorrt 8\.6\.1 is too old"):
        load_tensorrt()


def test_no_gpu_for_the_builder() -> None:
    def builder(logger: object) -> None:
        raise TypeError("factory returned nullptr")

    trt = SimpleNamespace(Builder=builder, __version__="11.4.0")
    with pytest.raises(BackendError, match=r"cannot start \(no driver\)\. It needs an NVIDIA GPU"):
        to_tensorrt._new_builder(trt, None, ["no driver"])


class Config:
    """The part of a builder's configuration that holds the timing cache."""

    def __init__(self, usable: bytes) -> None:
        self.usable, self.cache = usable, None

    def create_timing_cache(self, data: bytes) -> SimpleNamespace:
        return SimpleNamespace(data=data, serialize=lambda: data + b" and more")

    def set_timing_cache(self, cache: SimpleNamespace, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache.data not in (self.usable, b""):
            return False
        self.cache = cache
        return True

    def get_timing_cache(self) -> SimpleNamespace | None:
        return self.cache


@pytest.mark.parametrize(
    ("found", "kept"),
    [(None, b" and more"), (b"ours", b"ours and more"), (b"of another GPU", b" and more")],
)
def test_timing_cache(tmp_path: Path, found: bytes | None, kept: bytes) -> None:
    file = tmp_path / "timing.cache"
    if found is not None:
        file.write_bytes(found)
    config = Config(usable=b"ours")
    to_tensorrt._load_timing_cache(config, file)
    to_tensorrt._save_timing_cache(config, file)
    assert file.read_bytes() == kept
    assert [path.name for path in tmp_path.iterdir()] == ["timing.cache"]


def test_unreadable_timing_cache(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="timing cache cannot be read"):
        to_tensorrt._load_timing_cache(Config(b""), tmp_path)


# Limits


def test_lapar_is_supported(lapar: Graphs) -> None:
    assert unsupported_operators(lapar(4)) == []


@pytest.mark.parametrize(
    ("graph", "trouble"),
    [
        (_one("Resize", mode="cubic", antialias=1), "antialias=1"),
        (_one("Resize", coordinate_transformation_mode="half_pixel_symmetric"), "symmetric"),
        (_one("DFT"), "11.2.1"),
        (_one("TopK"), "3840"),
        (_one("NonZero"), "plugin"),
        (_one("Unique"), "Unique: not supported"),
        (_one("Conv", domain="com.example"), "com.example::Conv"),
    ],
)
def test_unsupported_operators(graph: bytes, trouble: str) -> None:
    (line,) = unsupported_operators(graph)
    assert trouble in line


def test_operators_inside_branches_are_found() -> None:
    inner = onnx.load_model_from_string(_one("Det")).graph
    node = helper.make_node("If", ["input"], ["output"], then_branch=inner, else_branch=inner)
    model = helper.make_model(helper.make_graph([node], "outer", [], []))
    assert unsupported_operators(model.SerializeToString()) == ["Det: not supported"]


@with_rtx
def test_list_of_operators_is_the_parsers() -> None:
    trt = load_tensorrt()
    logger, _ = collecting_logger(trt)
    builder = trt.Builder(logger)
    parser = trt.OnnxParser(builder.create_network(), logger)
    assert [kind for kind in limits.SUPPORTED if not parser.supports_operator(kind)] == []


def test_largest_tensor(lapar: Graphs) -> None:
    assert check_largest_tensor(lapar(4), (1, 3, 270, 480)) == 16 * 1080 * 1920
    with pytest.raises(UsageError, match=r"that fits is (1x3x\d+x\d+)") as caught:
        check_largest_tensor(lapar(4), (1, 3, 4320, 7680))
    named = caught.value.remedy.split("that fits is ")[1].split(".")[0]
    _, _, height, width = (int(side) for side in named.split("x"))
    assert check_largest_tensor(lapar(4), (1, 3, height, width)) < 2**31
    with pytest.raises(UsageError):
        check_largest_tensor(lapar(4), (1, 3, height + 1, width + 1))
    with pytest.raises(UsageError, match="smaller batch"):
        check_largest_tensor(lapar(4), (10**8, 3, 8, 8))
