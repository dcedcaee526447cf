"""The proof that another form of a network is the same function, for anybody's weights."""

from __future__ import annotations

import importlib
import json
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from support.random_weights import filled_model

from srcli.backends import open_model
from srcli.backends.base import SessionOptions
from srcli.errors import VerificationError, WeightsError
from srcli.loading.model import LoadedModel, load
from srcli.models.dcls import network

to_onnx = importlib.import_module("srcli.export.to_onnx")
verify = importlib.import_module("srcli.export.verify")

FAMILIES = [
    ("lapar-c", 3),
    ("awsrn-sd", 2),
    ("asdn-base", 2),
    ("fsdn-base", 3),
    ("hpinet-s", 2),
    ("dcls-aniso", 2),
]


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """One small crop for the networks that cost much."""
    monkeypatch.setattr(verify, "AFFORDABLE", 2e8)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A model with weights that make large values, as a user's own checkpoint."""
    folder = tmp_path_factory.mktemp("checkpoints")
    return lambda name, scale: filled_model(name, scale, folder)


def in_double(model, batch):
    with torch.inference_mode():
        return model.published_network().double()(torch.from_numpy(batch).double()).numpy()


@pytest.mark.parametrize(("name", "scale"), FAMILIES[:4])
def test_any_checkpoint_is_exported(filled, tmp_path, name, scale):
    """faults.md 13: values of hundreds are rounded more than pictures, which is no difference."""
    model = filled(name, scale)
    compared = to_onnx.export_verified(model, tmp_path / "net.onnx")
    assert {found.form for found in compared} == {"fused", "onnx"}
    assert all(found.difference <= found.limit for found in compared)
    # The limit is not loosened where nothing else than the tolerance decides.
    assert all(found.limit == model.spec.tolerance for found in compared if not found.rounding)
    # Nor beyond what the published network's rounding explains.
    assert all(found.limit <= 8 * found.rounding for found in compared if found.rounding)


@pytest.mark.parametrize(("name", "scale"), [("lapar-c", 4), ("awsrn-sd", 2)])
def test_any_checkpoint_runs(filled, name, scale):
    """faults.md 13."""
    model = filled(name, scale)
    batch = np.random.default_rng(1).random((1, 3, 20, 24), np.float32)
    expected = in_double(model, batch)
    with torch.inference_mode():
        own = np.abs(model.published_network()(torch.from_numpy(batch)).numpy() - expected).max()
    assert np.abs(expected).max() > 10
    for backend in ("auto", "ort", "openvino"):
        session = open_model(backend, model, SessionOptions(threads=1))[1]
        assert np.abs(session(batch) - expected).max() <= 8 * own
        session.close()


def planted(network, name):
    """A network with the largest number of a tensor changed by 1e-4 of itself."""
    flat = network.state_dict()[name].reshape(-1)
    flat[flat.abs().argmax()] *= 1 + 1e-4
    return network


def some_tensors(network):
    """Weights of convolutions or products at the start, in the middle and at the end."""
    names = [name for name, value in network.named_parameters() if value.numel() > 1000]
    return [names[0], names[len(names) // 2], names[-1]]


@contextmanager
def planting(network, name):
    """Change the largest number of a network's tensor by 1e-4 of itself, for a while."""
    value = network.state_dict()[name]
    own = value.clone()
    planted(network, name)
    yield
    value.copy_(own)


@pytest.mark.parametrize(("name", "scale"), FAMILIES)
def test_a_changed_weight_of_the_fused_form_is_seen(filled, name, scale):
    """faults.md 13: in float32 alone, and in double precision too, in every family."""
    model = filled(name, scale)
    proof = verify.Proof(model)
    (crop,) = verify.sample_crops(verify.crops_for(model))
    exact = proof.on(crop)
    few = 1 if model.spec.parameters(scale) > 5e6 else 3
    single, double = proof._fused, proof._exact_fused
    for tensor in some_tensors(single)[:few]:
        with planting(single, tensor), pytest.raises(VerificationError, match="of the fused form"):
            proof.check_weights()
        with planting(double, tensor), pytest.raises(VerificationError, match="another function"):
            proof.check_algebra(exact)
    proof.check_weights()
    proof.check_algebra(exact)


def test_auto_goes_down_to_the_published_network(monkeypatch, tmp_path):
    """faults.md 13: where no form proves itself; each is named in a note."""
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path))
    notes = []
    own = load("lapar-c", 2).weights.path  # what ships has proved itself before
    model = load("lapar-c", 2, weights=own, note=notes.append)
    network = LoadedModel.network
    monkeypatch.setattr(LoadedModel, "network", lambda own: planted(network(own), "taps.weight"))
    backend, session = open_model("auto", model, SessionOptions(threads=1))
    batch = np.random.default_rng(1).random((1, 3, 12, 17), np.float32)
    np.testing.assert_allclose(session(batch), in_double(model, batch), atol=1e-5, rtol=0)
    session.close()
    assert backend.name == "torch"
    assert any("taps.weight of the fused form differs" in note for note in notes)
    assert any("runs the published network" in note for note in notes)
    with pytest.raises(VerificationError):
        open_model("ort", model, SessionOptions())


def test_export_says_which_figure_is_too_large(srcli, monkeypatch, tmp_path):
    """faults.md 13."""
    monkeypatch.chdir(tmp_path)
    call = verify.OnnxRuntimeSession.__call__
    monkeypatch.setattr(
        verify.OnnxRuntimeSession, "__call__", lambda own, batch: call(own, batch) + 0.01
    )
    code, _, err = srcli("export", "-s", 2)
    assert code == 1
    assert "onnx form differs from the published network by 0.01" in err
    assert "published network's own float32 is off" in err
    assert not list(tmp_path.iterdir())


def test_the_report_names_limits(srcli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = srcli("export", "-s", 2, "--json")
    assert code == 0
    rows = json.loads(out)["comparisons"]
    assert {(row["limit"], row["reference"]) for row in rows} == {(1e-5, "float32")}


def test_weights_that_give_no_numbers_are_named(tmp_path):
    """faults.md 42: a clear message that names the file, not a request to report it."""
    from safetensors.torch import load_file, save_file

    tensors = load_file(load("lapar-c", 2).weights.path)
    tensors = {
        name: value * 1e20 if name.endswith("weight_g") else value
        for name, value in tensors.items()
    }
    save_file(tensors, tmp_path / "wild.safetensors")
    model = load("lapar-c", 2, weights=tmp_path / "wild.safetensors")
    with pytest.raises(WeightsError, match=r"wild\.safetensors: with these weights") as caught:
        open_model("auto", model, SessionOptions())
    assert "report" not in str(caught.value)


def test_the_clamp_hides_nothing(tmp_path, monkeypatch):
    """faults.md 13: a network that clamps at its end is compared before that."""
    import onnx

    monkeypatch.setattr(network, "GROUPS", 2)  # fewer, which end as all do
    monkeypatch.setattr(network, "BLOCKS", 1)
    model = filled_model("dcls-aniso", 2, tmp_path)
    graph = to_onnx.to_onnx(model).SerializeToString()
    bare = verify.without_clamp(graph)
    kinds = [
        {node.op_type for node in onnx.load_model_from_string(content).graph.node}
        for content in (graph, bare)
    ]
    assert kinds[0] >= {"Max", "Min"}
    plain = to_onnx.to_onnx(load("lapar-c", 2)).SerializeToString()
    assert verify.without_clamp(plain) == plain
    batch = np.random.default_rng(1).random((1, 3, 12, 13), np.float32)
    free, held = (verify.OnnxRuntimeSession(g, SessionOptions())(batch) for g in (bare, graph))
    assert np.abs(free).max() > 1
    np.testing.assert_array_equal(free.clip(0, 1), held)
