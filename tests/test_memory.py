"""What `--memory` promises, measured with real networks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from srcli.backends import BACKENDS

STATUS = Path("/proc/self/status")
BUDGET = 160 << 20
PEAK = """
import sys
from pathlib import Path
import numpy as np
from srcli.backends import get_backend
from srcli.backends.base import SessionOptions
from srcli.images import Picture
from srcli.loading import load
from srcli.pipeline import Restorer

def bytes_of(what):  # VmRSS now, VmHWM at the worst moment
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(what))

backend, task, scale, budget = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
model = load("lapar-c", scale, task=task)
session = get_backend(backend).open(model, SessionOptions())
restorer = Restorer(session=session, geometry=model.geometry, scale=scale, memory=budget)
side = 900 // scale
pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
restorer(Picture(color=pixels[:64, :64]))
before = bytes_of("VmRSS")
restorer(Picture(color=pixels))
print(bytes_of("VmHWM") - before)
"""


def why_not(name):
    return next(backend for backend in BACKENDS if backend.name == name).unavailable()


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
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PEAK, backend, task, str(scale), str(BUDGET)],
        capture_output=True,
        text=True,
        check=True,
    )
    # Beside the tiles there are the picture itself and what a runtime needs to compile them.
    assert int(done.stdout) < 1.5 * BUDGET
