"""`srcli export --triton`: repositories that Triton Inference Server takes."""

from __future__ import annotations

from contextlib import closing

import numpy as np
import onnxruntime
import pytest

from srcli.backends.base import SessionOptions
from srcli.backends.eager import TorchBackend
from srcli.loading.model import load

pytestmark = pytest.mark.services
protobuf = pytest.importorskip("google.protobuf.text_format", reason="needs protobuf")
MODELS = (
    ("lapar-c", 4, []),
    ("awsrn-sd", 2, ["--fp16"]),
    ("hpinet-s", 4, []),
)


def parsed(file):
    """A configuration, as Triton's own message has it."""
    messages = pytest.importorskip(
        "tritonclient.grpc.model_config_pb2", reason="needs tritonclient"
    )
    return protobuf.Parse(file.read_text(), messages.ModelConfig())


@pytest.mark.parametrize(("name", "scale", "more"), MODELS)
def test_the_configuration_is_one(srcli, tmp_path, name, scale, more):
    assert srcli("export", "--triton", tmp_path, "-m", name, "-s", scale, *more)[0] == 0
    (folder,) = tmp_path.iterdir()
    config = parsed(folder / "config.pbtxt")
    assert config.name == folder.name
    assert (config.platform, config.max_batch_size) == ("onnxruntime_onnx", 8)
    graph = onnxruntime.InferenceSession(folder / "1" / "model.onnx")
    for stated, found in zip(
        (*config.input, *config.output), (*graph.get_inputs(), *graph.get_outputs()), strict=True
    ):
        assert stated.name == found.name
        assert found.type == "tensor(float)"
        assert stated.data_type == 11  # TYPE_FP32
        assert [*stated.dims] == [3, -1, -1]
        assert len(found.shape) == 4
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 64
    (warm,) = config.model_warmup
    shape = [warm.batch_size, *warm.inputs["input"].dims]
    restored = graph.run(None, {"input": np.zeros(shape, np.float32)})[0]
    assert restored.shape == (1, 3, shape[2] * scale, shape[3] * scale)


def test_the_graph_takes_batches_as_stated(srcli, tmp_path):
    code, *_ = srcli("export", "--triton", tmp_path, "-m", "lapar-c", "-s", 2, "--max-batch", 3)
    assert code == 0
    (folder,) = tmp_path.iterdir()
    most = parsed(folder / "config.pbtxt").max_batch_size
    assert most == 3
    batch = np.random.default_rng(0).random((most, 3, 12, 17), np.float32)
    graph = onnxruntime.InferenceSession(folder / "1" / "model.onnx")
    model = load("lapar-c", 2)
    with closing(TorchBackend().open(model, SessionOptions())) as session:
        expected = session(batch)
    np.testing.assert_allclose(graph.run(None, {"input": batch})[0], expected, atol=1e-5, rtol=0)


def test_a_fixed_size_is_stated(srcli, tmp_path):
    arguments = ("export", "--triton", tmp_path, "-m", "lapar-c", "-s", 2, "--size", "20x12")
    assert srcli(*arguments)[0] == 0
    (folder,) = tmp_path.iterdir()
    config = parsed(folder / "config.pbtxt")
    assert [*config.input[0].dims] == [3, 12, 20]
    assert [*config.output[0].dims] == [3, 24, 40]
    assert [*config.model_warmup[0].inputs["input"].dims] == [3, 12, 20]


def test_a_model_that_is_there_gets_a_new_version(srcli, tmp_path):
    for version in ("1", "2", "3"):
        code, out, err = srcli("export", "--triton", tmp_path, "-m", "lapar-c", "-s", 2)
        assert (code, out.split()[-1]) == (0, str(tmp_path / "lapar-c-x2" / version))
        assert "tritonserver --model-repository" in err
    files = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {
        "lapar-c-x2/config.pbtxt",
        *(f"lapar-c-x2/{version}/model.onnx" for version in "123"),
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "a.onnx"], "--triton names the files itself"),
        (["--onnx"], "--triton names the files itself"),
        (["--trt", "--max-batch", "4"], "one picture at a time"),
    ],
)
def test_options_that_do_not_go_together(srcli, tmp_path, arguments, said):
    code, _, err = srcli("export", "--triton", tmp_path, "-m", "lapar-c", "-s", 2, *arguments)
    assert code in (2, 3)  # without TensorRT that is what is missing
    assert said in err or code == 3
    assert not [*tmp_path.iterdir()]


def test_max_batch_alone(srcli):
    code, _, err = srcli("export", "-m", "lapar-c", "-s", 2, "--max-batch", 4)
    assert code == 2
    assert "--max-batch is for --triton" in err
