"""What srcli keeps in its cache is checked before it is used, and made anew where it is damaged."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from srcli.backends import open_model
from srcli.backends.base import SessionOptions
from srcli.errors import MissingPartError
from srcli.loading import model as loading
from srcli.system import cache
from srcli.system.cache import cache_folder
from srcli.system.files import temporary_name

BATCH = np.random.default_rng(0).random((1, 3, 14, 19), np.float32)
# Whoever makes an entry, and the backend that reads it.
FORMS = {"native_weights": "native", "tap_graph": "openvino", "graph": None, "cpu_graph": None}


def load(name, scale, **options):
    """Load shipped weights as if they were the user's: they are prepared in the cache."""
    found = loading.load(name, scale).weights.path
    return loading.load(name, scale, weights=found, **options)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A cache in which lapar-c x2 is prepared in all forms."""
    folder = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRCLI_CACHE", str(folder))
        for form in FORMS:
            getattr(load("lapar-c", 2), form)()
    return folder


@pytest.fixture
def own_cache(filled, tmp_path, monkeypatch):
    """A copy of it."""
    folder = tmp_path / "cache"
    shutil.copytree(filled, folder)
    monkeypatch.setenv("SRCLI_CACHE", str(folder))
    return folder


def right() -> np.ndarray:
    with torch.inference_mode():
        return load("lapar-c", 2).published_network()(torch.from_numpy(BATCH)).numpy()


def restored(backend: str) -> tuple[np.ndarray, list[str]]:
    notes: list[str] = []
    session = open_model(backend, load("lapar-c", 2, note=notes.append), SessionOptions())[1]
    result = session(BATCH)
    session.close()
    return result, notes


def one(form: str) -> Path:
    """Where it is; prepared already, so nothing is made."""
    notes: list[str] = []
    path = getattr(load("lapar-c", 2, note=notes.append), form)()
    assert notes == []
    return path


def test_every_flipped_bit_is_seen(own_cache):
    """faults.md 33: at 200 places of the native weights, of a graph and of their seals."""
    random = np.random.default_rng(5)
    for path in (one("native_weights"), one("graph")):
        assert cache.is_whole(path)
        for file in (path, path.with_name(path.name + cache.SEAL)):
            content = file.read_bytes()
            for place in random.integers(0, len(content), 200):
                changed = bytearray(content)
                changed[place] ^= 1 << random.integers(0, 7)
                file.write_bytes(changed)
                # The line's end may change: it says nothing.
                assert not cache.is_whole(path) or changed.split() == content.split()
            file.write_bytes(content)


def truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path):
    path.write_bytes(b"")


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-1000] ^= 64
    path.write_bytes(content)


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def folder(path):
    path.unlink()
    (path / "inner").mkdir(parents=True)


def loop(path):
    path.unlink()
    path.symlink_to(path.name)


def unsealed(path):
    path.with_name(path.name + cache.SEAL).unlink()


def sealed_by_a_pipe(path):
    pipe(path.with_name(path.name + cache.SEAL))


def sealed_by_a_folder(path):
    folder(path.with_name(path.name + cache.SEAL))


def other_scale(path):
    from srcli.backends.native.weights import read_weights, write_weights

    if path.suffix == ".safetensors":
        weights, _, skips = read_weights(path)
        write_weights(path, weights, 3, skips)
    else:
        model = onnx.load(path)
        model.graph.doc_string = "another"
        onnx.save(model, path)


DAMAGES = [
    *(truncated, emptied, flipped, pipe, folder, loop, unsealed, sealed_by_a_pipe),
    *(sealed_by_a_folder, other_scale),
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_entry_is_made_anew(own_cache, damage):
    """faults.md 33: with a note, the same bytes, the right picture; no hang and no traceback."""
    path = one("native_weights")
    before = path.read_bytes()
    damage(path)
    result, notes = restored("native")
    np.testing.assert_allclose(result, right(), atol=1e-5, rtol=0)
    assert any("made anew" in note and str(path) in note for note in notes)
    assert path.read_bytes() == before
    assert restored("native")[1] == []


@pytest.mark.parametrize("form", ["tap_graph", "graph"])
def test_a_damaged_graph_is_made_anew(own_cache, form):
    """faults.md 33: and two writers write the same bytes."""
    path = one(form)
    before = path.read_bytes()
    flipped(path)
    notes: list[str] = []
    assert getattr(load("lapar-c", 2, note=notes.append), form)() == path
    assert "made anew" in notes[0]
    assert path.read_bytes() == before


def test_another_models_entry_under_the_name(own_cache):
    """faults.md 33: even with its own seal."""
    path = one("native_weights")
    other = load("lapar-c", 3).native_weights()
    for suffix in ("", cache.SEAL):
        shutil.copy(f"{other}{suffix}", f"{path}{suffix}")
    result, notes = restored("native")
    np.testing.assert_allclose(result, right(), atol=1e-5, rtol=0)
    assert any("made anew" in note for note in notes)


def test_what_killed_runs_left_is_removed(own_cache):
    """faults.md 42."""
    path = one("native_weights")
    name = temporary_name(".onnx").replace(f"-{os.getpid()}-", "-999999999-")
    (path.parent / name).write_bytes(b"half")
    path.unlink()
    restored("native")
    assert not (path.parent / name).exists()


@pytest.mark.parametrize("backend", ["native", "ort"])
def test_a_cache_that_cannot_be_written_stops_nothing(tmp_path, monkeypatch, backend):
    """faults.md 15: prepared for this run, with a note that says how to have it kept."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "file" / "cache"))
    result, notes = restored(backend)
    np.testing.assert_allclose(result, right(), atol=1e-5, rtol=0)
    assert any("for this run only" in note and "SRCLI_CACHE" in note for note in notes)
    assert (tmp_path / "file").read_text() == "in the way"
    assert restored(backend)[1] == []  # from where this process has it


def test_an_empty_cache_without_torch(tmp_path, monkeypatch, srcli):
    """faults.md 15: a message and exit code 3, no traceback."""
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "torch", None)
    own = load("lapar-c", 2).weights.path
    for backend in ("native", "openvino", "ort"):
        words = ("-s", 2, "--backend", backend, "--weights", own)
        code, _, err = srcli("upscale", tmp_path / "x.png", *words)
        assert code == MissingPartError.exit_code
        assert "takes torch" in err
        assert "pip install torch" in err
        assert "Traceback" not in err


def test_fetched_weights_that_are_damaged_are_not_used(tmp_path, monkeypatch, srcli):
    """faults.md 33."""
    from srcli.checkpoints.shipped import fetched_path, fetched_weights
    from srcli.models.registry import get_model

    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path))
    spec = get_model("hpinet-l")
    path = fetched_path(spec, 4)
    path.parent.mkdir(parents=True)
    shutil.copy(load("lapar-c", 2).weights.path, path)
    cache.seal(path)
    assert fetched_weights(spec, 4) is not None
    flipped(path)
    assert fetched_weights(spec, 4) is None
    code, _, err = srcli("export", "-m", "hpinet-l", "-s", 4)
    assert code == 3
    assert f"{path}: the weights that were fetched are damaged" in err
    assert "weights fetch hpinet-l -s 4" in err
    assert cache_folder() == tmp_path


class TestSmallEntries:
    """A text with its seal: what was measured once."""

    def test_what_is_kept_comes_back(self, tmp_path):
        place = tmp_path / "new" / "choice.txt"
        assert cache.kept(place) is None
        cache.keep(place, "Triton")
        assert cache.kept(place) == "Triton"
        place.write_text("cuDNN")  # not as it was sealed
        assert cache.kept(place) is None

    def test_a_folder_in_its_place_makes_room(self, tmp_path):
        (tmp_path / "choice.txt" / "deep").mkdir(parents=True)
        cache.keep(tmp_path / "choice.txt", "Triton")
        assert cache.kept(tmp_path / "choice.txt") == "Triton"

    def test_what_was_faster_on_a_gpu_need_not_be_kept(self, tmp_path, monkeypatch):
        """A cache that cannot be written stops nothing; then it is measured each time."""
        recorded = pytest.importorskip("srcli.backends.cuda.recorded")
        network = recorded.CudaNetwork.__new__(recorded.CudaNetwork)
        network.facts, network._tolerance = {"device": "a GPU"}, 1e-5
        network._exact, network._dtype = load("lapar-c", 2).network(), torch.float16
        monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
        assert network._remembered() is None
        network._remember(recorded.TRITON)
        assert network._remembered() == recorded.TRITON
        network._dtype = torch.float32
        assert network._remembered() is None
        (tmp_path / "file").touch()
        monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "file"))
        network._remember(recorded.TRITON)
        assert network._remembered() is None
