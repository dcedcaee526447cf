"""Shared places and pictures. What lies outside the repository may be absent: tests then skip."""

from __future__ import annotations

import os
import signal

if "PYTEST_XDIST_WORKER" in os.environ:
    # Tests run beside each other: one core each, said before PyTorch is loaded.
    os.environ["OMP_NUM_THREADS"] = "1"

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A shell's job in the background: the programs that tests interrupt would not hear it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image
from support.pictures import same_everywhere

from srcli.images import Picture

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"

settings.register_profile("untimed", deadline=None)  # coverage and busy machines take longer
settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One cache for the whole run, so that each graph is exported once, and never the user's."""
    folder = tmp_path_factory.mktemp("cache")
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = tmp_path_factory.getbasetemp().parent / "cache"  # of all workers
        folder.mkdir(exist_ok=True)
    before = os.environ.get("SRCLI_CACHE")
    os.environ["SRCLI_CACHE"] = str(folder)
    yield folder
    if before is None:
        del os.environ["SRCLI_CACHE"]
    else:
        os.environ["SRCLI_CACHE"] = before


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of test pictures and reference vectors beside the repository."""
    if not SHARED.is_dir():
        pytest.skip("needs ../shared (test pictures and reference vectors), which is not here")
    return SHARED


@pytest.fixture(scope="session")
def photograph() -> np.ndarray:
    """160 x 160 x 3 uint8, a crop of a NASA portrait."""
    with Image.open(ROOT / "export" / "sample.png") as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.fixture(params=[128, 256, 512], ids=lambda bits: f"{bits} bits")
def vectors(request: pytest.FixtureRequest) -> Iterator[int]:
    """Bits of the vectors that the compiled network computes in, for one test."""
    from srcli.backends.native.compiled import COMPILED

    compiled = pytest.importorskip(COMPILED, exc_type=ImportError)
    chosen = compiled.choose(request.param)
    try:
        if not chosen:
            pytest.skip("this processor or this build has no such vectors")
        yield request.param
    finally:
        compiled.choose(0)


@pytest.fixture
def srcli(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line in this process: (exit code, stdout, stderr)."""
    from srcli.cli import run

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def stored(tmp_path: Path) -> Callable[..., Picture]:
    """Reads bytes from a file, not from memory."""

    def put(content: bytes, name: str = "x.tif") -> Picture:
        path = tmp_path / name
        path.write_bytes(content)
        return same_everywhere(path)

    return put
