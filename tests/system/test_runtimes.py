"""Other runtimes: what they load, and that they keep quiet."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace

from srcli.system import runtimes


class Preloading:
    """ONNX Runtime as far as loading libraries goes: it prints, in Python and in C, and fails."""

    def __init__(self, folder):
        self.__file__ = str(folder / "onnxruntime" / "__init__.py")
        self.asked = []

    def preload_dlls(self, directory=None):
        self.asked.append(directory)
        sys.stdout.write("Failed to load libcublas.so\n")
        os.write(1, b"Failed as well\n")
        raise RuntimeError("no directory")


def packages(monkeypatch, place):
    for name in ("cu13/lib", "cudnn/lib", "cu13/include"):
        (place / "nvidia" / name).mkdir(parents=True)
    found = SimpleNamespace(submodule_search_locations=[str(place / "nvidia")])
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: found)


def test_libraries_installed_elsewhere_are_found(monkeypatch, tmp_path):
    """A package in a user's folder does not look into the system's, where PyTorch is."""
    packages(monkeypatch, tmp_path / "system")
    ort = Preloading(tmp_path / "user")
    runtimes.preload_cuda(ort)
    folder = tmp_path / "system" / "nvidia"
    assert ort.asked == [str(folder / "cu13" / "lib"), str(folder / "cudnn" / "lib"), None]


def test_libraries_beside_it_are_left_to_it(monkeypatch, tmp_path):
    packages(monkeypatch, tmp_path)
    ort = Preloading(tmp_path)
    runtimes.preload_cuda(ort)
    assert ort.asked == [None]


def test_what_it_prints_does_not_spoil_an_answer(capfd, monkeypatch, tmp_path):
    packages(monkeypatch, tmp_path)
    sys.stdout.write("before\n")
    runtimes.preload_cuda(Preloading(tmp_path))
    sys.stdout.write("after\n")
    sys.stdout.flush()
    os.write(1, b"the end")
    assert capfd.readouterr().out == "before\nafter\nthe end"


def test_without_nvidias_packages_only_itself_is_asked(monkeypatch, tmp_path):
    monkeypatch.setattr(runtimes.importlib.util, "find_spec", lambda name: None)
    ort = Preloading(Path(tmp_path))
    runtimes.preload_cuda(ort)
    assert ort.asked == [None]
