"""Engine files, their keys, options and reports; no TensorRT is needed."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from srcli.backends.trt.engine import EngineInfo, Gpu, read_engine, sidecar_path
from srcli.errors import BackendError, OutputError, UsageError, VerificationError
from srcli.export.build_progress import Phases
from srcli.export.engines import EngineOptions, engine_key, trtexec_line, write_engine
from srcli.export.precision import check_precision, inspected_types

PLAN = b"a plan"
H200 = Gpu("NVIDIA H200", "9.0")
A10 = Gpu("NVIDIA A10", "8.6")
INFO = EngineInfo(
    flavour="tensorrt",
    version="10.16.1",
    gpu=H200.name,
    compute_capability=H200.compute_capability,
    precision="fp32",
    profile={"min": (1, 3, 8, 8), "opt": (1, 3, 9, 9), "max": (1, 3, 9, 9)},
    network_types={"CONVOLUTION FLOAT": 24},
    engine_types={"CaskConvolution FLOAT": 20},
    onnx_sha256="0" * 64,
    engine_sha256=hashlib.sha256(PLAN).hexdigest(),
    tags={"model": "lapar-c", "scale": 4},
    options=EngineOptions().facts(),
    messages=("a warning",),
)


def _tensorrt(version: str, flavour: str = "tensorrt") -> SimpleNamespace:
    return SimpleNamespace(__name__=flavour, __version__=version)


# Files


def test_engine_file_and_back(tmp_path: Path) -> None:
    write_engine(tmp_path / "x.engine", PLAN, INFO)
    assert read_engine(tmp_path / "x.engine") == (PLAN, INFO)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["x.engine", "x.engine.json"]


@pytest.mark.parametrize("blocked", ["x.engine", "x.engine.json"])
def test_nothing_is_left_of_a_failure(tmp_path: Path, blocked: str) -> None:
    (tmp_path / blocked).mkdir()
    with pytest.raises(OutputError):
        write_engine(tmp_path / "x.engine", PLAN, INFO)
    assert [file.name for file in tmp_path.iterdir()] == [blocked]


@pytest.mark.parametrize(
    "damage",
    [
        lambda engine: engine.write_bytes(b"another plan"),
        lambda engine: engine.unlink(),
        lambda engine: sidecar_path(engine).unlink(),
        lambda engine: sidecar_path(engine).write_text("{}"),
        lambda engine: sidecar_path(engine).write_text("[1]"),
        lambda engine: sidecar_path(engine).write_text("not JSON"),
    ],
)
def test_damaged_engine_is_refused(tmp_path: Path, damage: object) -> None:
    engine = tmp_path / "x.engine"
    write_engine(engine, PLAN, INFO)
    damage(engine)
    with pytest.raises(BackendError, match="Build it anew"):
        read_engine(engine)


@pytest.mark.parametrize(
    ("version", "gpu", "options", "usable"),
    [
        ("10.16.1", H200, {}, True),
        ("10.16.2", H200, {}, False),
        ("10.16.2", H200, {"version_compatible": True}, True),
        ("11.4.0", H200, {"version_compatible": True}, True),
        ("10.9.0", H200, {"version_compatible": True}, False),
        ("10.16.1", A10, {}, False),
        ("10.16.1", A10, {"hardware_compatible": True}, True),
        ("10.16.1", Gpu("NVIDIA T4", "7.5"), {"hardware_compatible": True}, False),
    ],
)
def test_stale_engines(version: str, gpu: Gpu, options: dict[str, bool], usable: bool) -> None:
    reason = replace(INFO, options=options).stale(_tensorrt(version), gpu)
    assert (reason is None) == usable


def test_flavours_do_not_mix() -> None:
    rtx = _tensorrt("10.16.1", "tensorrt_rtx_bindings")
    assert "tensorrt_rtx 10.16.1" in str(INFO.stale(rtx, H200))


# Keys and options


def test_key_depends_on_everything() -> None:
    base = {
        "weights_sha256": "a",
        "onnx_sha256": "b",
        "options": EngineOptions(),
        "flavour": "tensorrt",
        "version": "11.4.0",
        "gpu": H200,
    }
    changes = [
        {},
        {"weights_sha256": "c"},
        {"onnx_sha256": "c"},
        {"flavour": "tensorrt_rtx"},
        {"version": "11.4.1"},
        {"gpu": A10},
        {"gpu": None},
        *(
            {"options": EngineOptions(**{name: value})}
            for name, value in {
                "precision": "fp16",
                "min_shape": (1, 3, 9, 8),
                "opt_shape": (1, 3, 361, 640),
                "max_shape": (2, 3, 1080, 1920),
                "optimization_level": 5,
                "hardware_compatible": True,
                "version_compatible": True,
                "workspace_bytes": 1 << 30,
            }.items()
        ),
    ]
    keys = [engine_key(**base | change) for change in changes]
    assert len(set(keys)) == len(keys)
    cached = EngineOptions(timing_cache=Path("x"))
    assert engine_key(**base | {"options": cached}) == keys[0]


@pytest.mark.parametrize(
    "options",
    [
        {"min_shape": (1, 3, 2000, 8)},
        {"opt_shape": (2, 3, 360, 640)},
        {"min_shape": (0, 3, 8, 8)},
        {"min_shape": (3, 8, 8)},
        {"optimization_level": 6},
        {"workspace_bytes": 0},
    ],
)
def test_senseless_options(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        EngineOptions(**options)


def test_trtexec_line() -> None:
    options = EngineOptions(
        timing_cache=Path("timing cache"),
        optimization_level=4,
        hardware_compatible=True,
        version_compatible=True,
        workspace_bytes=1 << 30,
    )
    line = trtexec_line(Path("a.onnx"), Path("a.engine"), options, version="10.16.1")
    assert shlex.split(line) == [
        "trtexec",
        "--onnx=a.onnx",
        "--saveEngine=a.engine",
        "--minShapes=input:1x3x8x8",
        "--optShapes=input:1x3x360x640",
        "--maxShapes=input:1x3x1080x1920",
        "--noTF32",
        "--profilingVerbosity=detailed",
        "--timingCacheFile=timing cache",
        "--builderOptimizationLevel=4",
        "--hardwareCompatibilityLevel=ampere+",
        "--versionCompatible",
        "--memPoolSize=workspace:1073741824B",
        "--skipInference",
        "--stronglyTyped",
    ]


def test_trtexec_line_by_version() -> None:
    files = (Path("a.onnx"), Path("a.engine"), EngineOptions())
    assert "stronglyTyped" not in trtexec_line(*files, version="11.4.0")
    assert trtexec_line(*files).endswith("# TensorRT 10: --stronglyTyped")
    assert "Shapes" not in trtexec_line(*files, dynamic=False)
    assert trtexec_line(*files, flavour="tensorrt_rtx").startswith("tensorrt_rtx --onnx")


# What TensorRT reports


def test_inspector_report() -> None:
    """Spellings of TensorRT 8 to 11, from its documentation and from published reports."""
    report = {
        "Layers": [
            {"LayerType": "kgen", "Inputs": [{"Format/Datatype": "Float"}], "Outputs": []},
            {
                "LayerType": "CaskConvolution",
                "Inputs": [{"Format/Datatype": "Row major linear FP32"}],
                "Outputs": [
                    {"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}
                ],
            },
            {"LayerType": "gemm", "Outputs": [{"Format/Datatype": "Half"}]},
            {"LayerType": "fusion", "Outputs": [{"Format/Datatype": "BFloat16"}]},
            {"LayerType": "Shape", "Outputs": [{"Format/Datatype": "Int64"}]},
            "a layer of which only the name is known",
        ],
        "Bindings": ["input", "output"],
    }
    assert inspected_types(json.dumps(report)) == {
        "kgen FLOAT": 1,
        "CaskConvolution HALF": 1,
        "gemm HALF": 1,
        "fusion BF16": 1,
    }
    assert inspected_types("{}") == {}


@pytest.mark.parametrize(
    ("types", "precision", "right"),
    [
        ({"CaskConvolution HALF": 9, "kgen FLOAT": 2}, "fp16", True),
        ({"CaskConvolution HALF": 9, "CaskConvolution FLOAT": 1}, "fp16", False),
        ({"MATRIX_MULTIPLY FLOAT": 1}, "fp16", False),
        ({"CONVOLUTION FLOAT": 9}, "fp32", True),
        ({"CONVOLUTION FLOAT": 9, "kgen HALF": 1}, "fp32", False),
    ],
)
def test_precision_rule(types: dict[str, int], precision: str, right: bool) -> None:
    if right:
        check_precision(types, precision)
    else:
        with pytest.raises(VerificationError, match="No file was written"):
            check_precision(types, precision)


def test_progress_of_nested_phases() -> None:
    phases = Phases()
    phases.start("build", None, 2)
    phases.start("fuse", "build", 4)
    assert phases.step("fuse", 0) == 1 / 8
    assert phases.step("fuse", 3) == phases.finish("fuse") == 1 / 2
    phases.start("time", "build", 10)
    assert phases.step("time", 0) == 1 / 2  # it was told half before
    assert phases.step("build", 0) == 1 / 2
    assert phases.step("unheard of", 7) == phases.finish("unheard of") == 1 / 2
    assert phases.finish("build") == 1
