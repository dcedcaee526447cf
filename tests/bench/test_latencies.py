"""Latencies that are measured once for each machine."""

from __future__ import annotations

import pytest

from srcli.bench import latencies, timing
from srcli.checkpoints.shipped import find_weights
from srcli.models.registry import get_model


@pytest.mark.parametrize(("milliseconds", "runs"), [(20.0, latencies.RUNS), (30_000.0, 1)])
def test_a_run_of_half_a_minute_is_not_made_twice(monkeypatch, milliseconds, runs):
    made = []

    def clock(step):
        made.append(step())
        return milliseconds

    monkeypatch.setattr(timing, "clock", clock)
    monkeypatch.setattr(latencies, "WIDTH", 64)
    monkeypatch.setattr(latencies, "HEIGHT", 36)
    found = latencies.measure(find_weights(get_model("lapar-c"), 4, "upscale"))
    assert found.runs == runs and found.milliseconds == milliseconds
    assert len(made) == runs + (runs > 1)  # the first run of quick ones does not count
