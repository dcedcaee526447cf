"""How `srcli bench` times a GPU, on a pretended one: order of events, clocks, ceilings, roof."""

from __future__ import annotations

import importlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from srcli.bench import ceilings, elsewhere, events, processes, report, runner, worker
from srcli.bench.counting import Work, count
from srcli.bench.rows import Result, Row
from srcli.commands import bench_rows
from srcli.models.registry import get_model

bench = importlib.import_module("srcli.commands.bench")

ROW = Row(model="lapar-c", scale=4, graph="fused", backend="torch", height=9, width=16)


@pytest.fixture
def device(monkeypatch):
    """A GPU on which every launch takes 2 ms, and what was asked of it."""
    asked, now = [], [0.0]

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            asked.append("event")
            self.at = now[0]

        def synchronize(self):
            asked.append("wait")

        def elapsed_time(self, other):
            return other.at - self.at

    class Stream:
        def __init__(self, stream=None):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *details):
            pass

        def synchronize(self):
            asked.append("wait for the stream")

    def launch():
        asked.append("launch")
        now[0] += 2

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: asked.append("spin"))
    monkeypatch.setattr(torch.cuda, "stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: asked.append("synchronize"))
    return SimpleNamespace(asked=asked, launch=launch)


def on_gpu(**more):
    """A session on a GPU."""
    return SimpleNamespace(
        **{"facts": {"device": "H100"}, "waits": False, "cuda_stream": None, **more}
    )


def test_launches_are_queued_before_the_first_event(device):
    assert events.between_events(device.launch) == 2
    assert device.asked == ["spin", "event", "launch", "event", "wait"]


def test_a_burst_is_the_mean_of_many_between_two_events(device):
    opened = worker._Open(on_gpu(), ROW, device.launch)
    assert opened.burst(10.0) == 2
    assert device.asked.count("launch") == worker.BURST / 10
    assert device.asked.count("event") == 2
    assert opened.sample() == 2
    device.asked.clear()
    assert len(opened.host_times()) == worker.HOST_RUNS
    assert device.asked == ["launch", "wait for the stream"] * worker.HOST_RUNS


def test_later_forms_of_a_session_are_checked_too(device, tmp_path):
    """On a GPU the first run may take another form than those that are timed."""
    answers = iter([0.5, 0.5, 0.75])
    truth = SimpleNamespace(picture=tmp_path / "picture.npy", restored=tmp_path / "restored.npy")
    np.save(truth.picture, np.zeros((1, 3, 2, 2), np.float32))
    np.save(truth.restored, np.full((1, 3, 2, 2), 0.5, np.float32))

    def session(picture):
        return np.full_like(picture, next(answers))

    assert worker._error(session, truth, worker.FORMS) == 0.25
    answers = iter([np.nan, 0.5, 0.5])
    assert np.isnan(worker._error(session, truth, worker.FORMS))


def test_what_is_waited_for_is_timed_by_the_host(device):
    """ONNX Runtime launches on a stream of its own, and returns when that is done."""
    opened = worker._Open(on_gpu(waits=True), ROW, device.launch)
    assert (opened.on_cuda, opened.by_events) == (True, False)
    assert opened.sample() < 2
    assert (opened.burst(1.0), opened.host_times()) == (None, [])
    assert device.asked == ["launch"]


def test_onnx_runtime_says_that_it_waits():
    from srcli.backends.ort import OnnxRuntimeSession

    assert OnnxRuntimeSession.waits


def test_ceilings_are_of_random_numbers_and_by_events(device, monkeypatch):
    sizes = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(ceilings, "SECONDS", 0)
    made = torch.randn

    def random(*shape, device):
        sizes.append(shape)
        return made(4, 4)

    monkeypatch.setattr(torch, "randn", random)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **more: empty(8, dtype=torch.uint8))
    monkeypatch.setattr(ceilings, "between_events", lambda step: step() is None or 4.0)
    rates = ceilings.ceilings()
    assert rates["copy_bytes_per_second"] == 2 * 2**30 / 4e-3
    for precision in ("fp32", "fp16", "bf16"):
        assert rates[f"{precision}_multiply_adds_per_second"] == 8192**3 / 4e-3
    assert sizes == [(8192, 8192)] * 6


class Small(nn.Module):
    """Two layers, a rectifier between them, and the picture added."""

    def __init__(self, *, joined):
        super().__init__()
        self.first, self.second = (nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(2))
        self.joined = joined

    def forward(self, x):
        y = self.second(F.relu(self.first(x)))
        return torch.cat([y, x], 1) if self.joined else y


def test_layers_read_and_write_once_and_nothing_between_them_counts():
    picture, weights = 4 * 3 * 5 * 7, 4 * 81
    layers = 2 * (2 * picture + weights)
    found = count(Small(joined=False), (1, 3, 5, 7))
    assert found.layers == layers
    assert found.moved == layers + 2 * picture
    # The last layer's output is read once more, and the network's written.
    assert count(Small(joined=True), (1, 3, 5, 7)).layers == layers + picture + 2 * picture


def test_of_the_roof_means_of_what_layers_must_move():
    result = Result(row=replace(ROW, precision="bf16"))
    result.rounds = [[4.0]]
    work = Work(multiply_adds=1000, elementwise=0, moved=8000, layers=2000, peak=0)
    rates = {
        "copy_bytes_per_second": 1e6,
        "fp32_multiply_adds_per_second": 1.0,
        "bf16_multiply_adds_per_second": 2e6,
    }
    runner._roof([result], {result.row.subject: (None, {"fused": work})}, rates)
    roof = result.roofline
    assert (roof["memory_ms"], roof["every_pass_ms"], roof["compute_ms"]) == (1.0, 4.0, 0.5)
    assert (roof["bound"], roof["reached"]) == ("memory", 0.25)


def test_the_report_says_what_was_timed_how():
    ort = Result(row=replace(ROW, backend="ort"), facts={"clock": "host", "device": "cuda"})
    torch_ = Result(row=ROW, facts={"clock": "events", "device": "H100"}, bursts=[1.0])
    said = "\n".join(report.notes([ort, torch_]))
    assert "ort on the GPU: measured by the host's clock" in said
    assert "burst" in said
    on_cpu = Result(row=ROW, facts={"clock": "host", "device": "cpu"})
    assert not report.notes([on_cpu])


def test_bursts_are_shown_where_there_are_any():
    result = Result(row=ROW, rounds=[[2.0]], bursts=[1.0, 1.5, 9.0], error=0.0)
    headings = report.columns(paper=False, roof=False, burst=True)
    cells = report.cells(result, paper=False, roof=False, burst=True)
    assert cells[headings.index("burst ms")] == "1.50"
    assert result.as_dict()["burst_ms"] == 1.5
    assert "burst ms" not in report.columns(paper=False, roof=False)


def test_a_sweep_keeps_its_processes_and_replaces_one_that_died(monkeypatch):
    started = []

    class Process:
        def __init__(self, habits):
            started.append(self)
            self.dead = False

        def ask(self, method, *arguments):
            if self.dead:
                raise runner.WorkerFailed("it died")
            return method

        def close(self):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *details):
            pass

    monkeypatch.setattr(processes, "WorkerProcess", Process)
    with runner.WorkerProcesses(worker.Habits()) as workers:
        first = workers.of(ROW)
        workers.clear()
        assert workers.of(ROW) is first
        first.dead = True
        workers.clear()
        assert workers.of(ROW) is not first
    assert len(started) == 2


def test_closed_rows_are_given_back():
    closed = []
    process = worker.Worker(worker.Habits(keep_memory=False))
    session = SimpleNamespace(facts={}, close=lambda: closed.append(True))
    process._open[ROW] = worker._Open(session, ROW, lambda: None)
    process.clear()
    assert (closed, process._open) == ([True], {})
    process.end()


def on_paper_size(device, **changes):
    row = replace(ROW, height=180, width=320, **changes)
    return Result(row=row, rounds=[[1.0]], facts={"device": device}, error=0.0)


def test_published_figures_stand_beside_ours_on_a_gpu():
    results = [on_paper_size("H100", model=name) for name in ("lapar-a", "lapar-b", "lapar-c")]
    found = elsewhere.figures(results * 2)
    papers = [figure for figure in found if "paper" in figure.what]
    assert [figure.milliseconds for figure in papers] == [37.3, 29.1, 22.2]
    assert {figure.device for figure in papers} == {"RTX 2080 Ti"}
    others = {figure.device: figure.milliseconds for figure in found if figure not in papers}
    assert (others["L40"], others["B40"], others["RTX 3090"]) == (0.55, 0.371, 1.17)
    assert all(figure.source for figure in found)
    assert elsewhere.cells(papers[0])[1:5] == ["1280x720", "320x180", "37.3", "RTX 2080 Ti"]
    assert elsewhere.HEADINGS[0] == "not measured here"


@pytest.mark.parametrize("changes", [{"batch": 2}, {"scale": 2}])
def test_figures_of_other_sizes_are_left_out(changes):
    assert not elsewhere.figures([on_paper_size("H100", **changes)])
    assert not elsewhere.as_dicts([on_paper_size("cpu")])


def test_on_cuda_all_precisions_are_measured(monkeypatch):
    monkeypatch.setattr("srcli.system.cuda.driver", lambda: SimpleNamespace(devices=1))
    kinds = bench_rows.kinds(get_model("lapar-c"), (), (), (), sweep=False)
    found = {(kind["graph"], kind["precision"]) for kind in kinds if kind["backend"] == "torch"}
    graphs = "published", "fused"
    assert found == {(graph, kind) for graph in graphs for kind in ("fp32", "fp16", "bf16")}
