"""Trainings that are stopped: a polite end saves, and a stopped process does not train."""

from __future__ import annotations

import importlib
import signal

import pytest
from safetensors.torch import load_file
from support.training_data import write_pictures

stopping = importlib.import_module("srcli.weights.training.stopping")
cuda_train = importlib.import_module("srcli.weights.training.cuda_train")
PLAN = "awsrn-sd:x2:60,lapar-c:x2:60"


@pytest.fixture
def data(tmp_path, photograph):
    folder = tmp_path / "pictures"
    folder.mkdir()
    return write_pictures(folder, photograph)


def queue(data, out):
    """Run both models of the plan for six steps; returns the exit code."""
    words = ["--plan", PLAN, "--data", data, "--out", out, "--device", "cpu", "--processes", 1]
    words += ["--batch", 2, "--patch", 24, "--steps", 6]
    with pytest.raises(SystemExit) as ended:
        cuda_train.main([str(word) for word in words])
    return ended.value.code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_queue_saves_and_goes_on(tmp_path, data, monkeypatch, number):
    assert queue(data, tmp_path / "whole") == 0
    advance, before = cuda_train.Stepper.advance, signal.getsignal(number)

    def interrupted(stepper, rate):
        advance(stepper, rate)
        if stepper.step == 3:
            signal.raise_signal(number)

    with monkeypatch.context() as patched:
        patched.setattr(cuda_train.Stepper, "advance", interrupted)
        assert queue(data, tmp_path / "parted") == 128 + number
    assert signal.getsignal(number) == before
    assert [folder.name for folder in (tmp_path / "parted").iterdir()] == ["awsrn-sd-x2"]
    assert queue(data, tmp_path / "parted") == 0
    for model in ("awsrn-sd-x2", "lapar-c-x2"):
        whole, parted = (
            load_file(tmp_path / part / model / "weights.safetensors")
            for part in ("whole", "parted")
        )
        assert all(parted[name].equal(value) for name, value in whole.items()), model


def test_a_stopped_process_does_not_train(monkeypatch):
    times = iter([0.0, 2.0, 502.0, 503.0])
    monkeypatch.setattr(stopping.time, "monotonic", lambda: next(times))
    watch = stopping.Stopwatch()
    assert [watch.lap() for _ in range(3)] == [2.0, stopping.LONGEST_STEP, 1.0]


def test_a_long_start_counts_whole(monkeypatch):
    monkeypatch.setattr(stopping.time, "monotonic", iter([95.0, 195.0]).__next__)
    watch = stopping.Stopwatch(began=5.0)
    assert [watch.lap() for _ in range(2)] == [90.0, stopping.LONGEST_STEP]
