"""A model that does not do what a command is for is refused by name, wherever it is asked for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image

import srcli as api
from srcli.errors import UsageError
from srcli.models.registry import MODELS
from srcli.models.spec import TASKS
from srcli.serving.orders import order_of
from srcli.serving.restoring import wishes_of

UNABLE = [(spec.name, task) for spec in MODELS for task in TASKS if task not in spec.tasks()]


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize(("model", "task"), UNABLE)
def test_the_models_that_can_are_named(srcli, picture, model, task):
    able = ", ".join(spec.name for spec in MODELS if task in spec.tasks())
    said = f"{model} cannot {task}. Choose one of {able}."
    code, out, err = srcli(task, picture, "-m", model)
    assert (code, out, err) == (2, "", f"error: {said}\n")
    order = order_of(task, {}, (model,))
    with pytest.raises(UsageError, match=said):
        wishes_of(order, 100)
    with pytest.raises(UsageError, match=said):
        api.load(model, task=task)


def test_as_dry_run_check_and_of_a_list(srcli, picture):
    (model, task), *_ = UNABLE
    names = picture.with_name("names.txt")
    names.write_text(str(picture))
    for arguments in ((picture, "--dry-run"), (picture, "--check"), ("--files-from", names)):
        code, _, err = srcli(task, *arguments, "-m", model)
        assert (code, f"{model} cannot {task}" in err) == (2, True)


def network(file, factor):
    """Write an ONNX file that repeats each pixel."""
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], np.array([1, 1, factor, factor]))
    nodes = [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="nearest")]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, *sides])
        for name, sides in (("x", "hw"), ("y", "HW"))
    ]
    graph = helper.make_graph(nodes, "theirs", ends[:1], ends[1:], [scales])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), file)
    return file


@pytest.mark.parametrize(
    ("factor", "task", "says", "other"),
    [
        (2, "denoise", "enlarges by 2", "upscale"),
        (2, "deblock", "enlarges by 2", "upscale"),
        (1, "upscale", "keeps the size of pictures", "denoise"),
    ],
)
def test_networks_of_others(srcli, picture, tmp_path, factor, task, says, other):
    file = network(tmp_path / "theirs.onnx", factor)
    code, out, err = srcli(task, picture, "--model-file", file)
    assert (code, out) == (2, "")
    assert err.endswith(f"error: {file}: {says}. Use `srcli {other} --model-file {file}`.\n")
    code, _, err = srcli(other, picture, "--model-file", file)
    assert code == 0, err
