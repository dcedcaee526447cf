"""What `--memory` promises, measured with real networks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from support.random_weights import untrained_model

from srcli.backends import BACKENDS

STATUS = Path("/proc/self/status")
BUDGET = 160 << 20
PEAK = """
import sys
from pathlib import Path
import numpy as np
from srcli.backends import get_backend
from srcli.backends.base import SessionOptions
from srcli.bench.memory import peak_bytes, resident_bytes
from srcli.images import Picture
from srcli.loading.model import load
from srcli.pipeline.restorer import Restorer

backend, task, name, scale, side, budget, *weights = sys.argv[1:]
scale, side, budget = int(scale), int(side), int(budget)
model = load(name, scale, task=task, weights=Path(weights[0]) if weights else None)
session = get_backend(backend).open(model, SessionOptions())
restorer = Restorer(session=session, geometry=model.geometry, scale=scale, memory=budget)
pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
restorer(Picture(color=pixels[:64, :64]))
before = resident_bytes()
restorer(Picture(color=pixels))
print(peak_bytes() - before)
"""


def peak(*arguments):
    """Bytes that a restorer in a process of its own takes for one picture."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PEAK, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout)


def why_not(name):
    obstacle = next(backend for backend in BACKENDS if backend.name == name).unavailable()
    return None if obstacle is None else str(obstacle)


@pytest.mark.skipif(not STATUS.exists(), reason="needs Linux")
@pytest.mark.parametrize(
    ("backend", "task", "scale"),
    [
        ("ort", "denoise", 1),
        ("openvino", "denoise", 1),
        ("torch", "upscale", 2),
        ("native", "denoise", 1),
        ("native", "upscale", 2),
    ],
)
def test_tiles_stay_within_their_memory(backend, task, scale):
    if (problem := why_not(backend)) is not None:
        pytest.skip(problem)
    # Beside the tiles there are the picture itself and what a runtime needs to compile them.
    assert peak(backend, task, "lapar-c", scale, 900 // scale, BUDGET) < 1.5 * BUDGET


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="needs Linux")
@pytest.mark.parametrize("backend", ["ort", "openvino"])
def test_so_do_those_of_dense_networks(tmp_path, backend):
    """Which would take three times as much if they put together what they read."""
    if (problem := why_not(backend)) is not None:
        pytest.skip(problem)
    weights = untrained_model("asdn-base", 3, tmp_path).weights.path
    found = peak(backend, "upscale", "asdn-base", 3, 90, BUDGET, weights)
    assert found < 1.2 * BUDGET
