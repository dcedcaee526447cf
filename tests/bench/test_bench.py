"""`srcli bench`: rows, statistics, judgement, reports, plots. Nothing here depends on time."""

from __future__ import annotations

import csv
import importlib
import io
import itertools
import json
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from srcli import images
from srcli.backends import get_backend
from srcli.backends.base import Session
from srcli.bench import processes, report, runner, timing, worker
from srcli.bench.compare import compare, read_report
from srcli.bench.counting import Work, count
from srcli.bench.plot import growth, plot
from srcli.bench.rows import Result, Row, input_size
from srcli.commands import bench
from srcli.errors import SrcliError, UsageError
from srcli.jobs.sizes import parse_size
from srcli.models.registry import get_model
from srcli.models.spec import Geometry

pytest.importorskip("matplotlib")

SMALL = ("--size", "64x48", "--seconds", "0", "--threads", "1")
MILLISECONDS = st.lists(st.floats(0.01, 1e4), min_size=1, max_size=40)


class InProcess:
    """A worker without a process, so that a test can change what it calls."""

    def __init__(self, habits):
        # How malloc behaves cannot be changed back, and this process has other tests to run.
        self._worker = worker.Worker(replace(habits, keep_memory=False))

    def ask(self, method, *arguments):
        try:
            return getattr(self._worker, method)(*arguments)
        except SrcliError as error:
            raise runner.WorkerFailed(str(error)) from error

    def close(self):
        self._worker.end()

    kill = close

    def __enter__(self):
        return self

    def __exit__(self, *details):
        self.close()


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(runner, "WorkerProcess", InProcess)
    monkeypatch.setattr(processes, "WorkerProcess", InProcess)


@pytest.fixture
def wrong_backend(monkeypatch, in_process):
    """ONNX Runtime, but every output is brighter by one hundredth."""
    right = worker.get_backend

    class Brighter(Session):
        def __init__(self, session):
            self.session = session

        def __call__(self, batch):
            return self.session(batch) + np.float32(0.01)

        def close(self):
            self.session.close()

    class Backend:
        def open(self, model, options):
            return Brighter(right("ort").open(model, options))

    monkeypatch.setattr(
        worker, "get_backend", lambda name: Backend() if name == "ort" else right(name)
    )


@given(MILLISECONDS)
def test_percentiles_are_numpys(samples):
    for share in (0, 50, 90, 99, 100):
        assert timing.percentile(samples, share) == pytest.approx(np.percentile(samples, share))
    summary = timing.summarise(samples)
    assert summary.minimum <= summary.median <= summary.p90 <= summary.p99 <= max(samples)


@given(MILLISECONDS, st.floats(0.1, 10))
def test_the_interval_of_a_ratio_holds_the_ratio(samples, factor):
    ratio, low, high = timing.ratio_interval(samples, [factor * s for s in samples], draws=50)
    assert ratio == pytest.approx(factor)
    assert low <= high


def test_processes_measure_and_answer_in_json(srcli):
    backends = ("--backend", "torch", "--backend", "ort")
    code, out, err = srcli("bench", "-m", "lapar-c", *backends, *SMALL, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert {"cpu", "cores", "packages", "before", "after", "ceilings"} <= set(found["hardware"])
    rows = found["rows"]
    assert {row["graph"] for row in rows} == {"published", "fused"}
    assert {row["backend"] for row in rows} == {"torch", "ort"}
    for row in rows:
        assert row["verdict"] == "ok"
        assert row["error"] <= row["tolerance"]
        assert len(row["samples_ms"]) == runner.MIN_ROUNDS
        assert 0 < row["min_ms"] <= row["median_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["facts"]["device"] == "cpu"
        assert row["facts"]["allocator"] in ("keep", "default")
        assert len(row["speedup_by_round"]) == runner.MIN_ROUNDS
        assert len(row["cores_busy_by_others"]) == runner.MIN_ROUNDS
    base = next(row for row in rows if row["graph"] == "published")
    assert base["speedup"] == 1
    assert "median" in found["definitions"]["speedup"]


def test_a_wrong_backend_is_found_out(srcli, wrong_backend):
    code, out, err = srcli("bench", "-m", "lapar-c", "--backend", "ort", *SMALL, "--graph", "fused")
    assert code == 1
    assert "wrong" in out
    assert "differs by" in err


def test_a_backend_that_is_not_here_is_an_error(srcli):
    assert srcli("bench", "--backend", "nonsense", *SMALL)[0] == 3


@pytest.mark.slow
def test_from_file_to_file(srcli):
    code, out, err = srcli(
        *("bench", "-m", "lapar-c", "--backend", "torch", "--batch", 1, "--batch", 2),
        *("--graph", "published", "--graph", "fused"),
        *("--scope", "network", "--scope", "file", *SMALL, "--markdown"),
    )
    assert code == 0, err
    rows = [line.strip("| ").split(" | ") for line in out.splitlines()[2:]]
    found = [(graph, scope, size) for _, graph, _, _, scope, size, *_ in rows]
    sizes = ("64x48", "64x48 x 2")
    expected = itertools.product(("published", "fused"), ("network", "file"), sizes)
    assert sorted(found) == sorted(expected)
    assert {row[-1] for row in rows} == {"ok"}


def test_a_file_is_restored_as_upscale_does(tmp_path):
    class Doubled(Session):
        def __call__(self, batch):
            return np.repeat(np.repeat(batch, 2, 2), 2, 3)

    pictures = [np.full((8, 9, 3), value, np.uint8) for value in (7, 200)]
    bench.restore_files(Doubled(), Geometry(margin=1), 2, pictures, tmp_path)()
    for number, pixels in enumerate(pictures):
        restored = images.read(tmp_path / f"{number}.out.png").color
        assert np.array_equal(restored, np.repeat(np.repeat(pixels, 2, 0), 2, 1))


def test_without_a_way_to_files_a_row_of_files_is_refused():
    row = Row(
        model="lapar-c", scale=4, graph="fused", backend="torch", height=4, width=4, scope="file"
    )
    idle = worker.Worker(worker.Habits(keep_memory=False))
    with pytest.raises(SrcliError, match="reads and writes pictures"):
        idle._step(object(), row, Geometry(margin=1))
    idle.end()


def test_kept_memory_is_not_fetched_again():
    """In a process of its own: how malloc behaves cannot be changed back."""
    code = (
        "from srcli.bench.worker import keep_freed_memory, page_faults\n"
        "import numpy as np, sys\n"
        "if not keep_freed_memory(): sys.exit()\n"
        "def touch(): np.ones(64 << 20, np.uint8)\n"
        "touch(); before = page_faults(); touch()\n"
        "print(page_faults() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout or 0) < 1000  # of the 16384 that it takes afresh


def test_a_process_that_dies_is_told(monkeypatch):
    with runner.WorkerProcess(worker.Habits()) as process:
        process._process.kill()
        with pytest.raises(runner.WorkerFailed, match="died"):
            process.ask("ceilings")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--size", "1280x721"), "--size 1280x720"),
        (("-s", "3", "--size", "1280x720"), "--size 1281x720"),
        (("--size", "large"), "WIDTHxHEIGHT"),
        (("--size", "0x4"), "WIDTHxHEIGHT"),
        (("--size", "8x8", "--input-size", "2x2"), "exclude each other"),
        (("--json", "--csv"), "exclude each other"),
        (("-m", "lapar-x"), "Did you mean"),
        (("--plot", "plot.gif"), ".svg"),
        (("-s", "7"), "cannot upscale by 7"),
    ],
)
def test_what_cannot_be_measured_is_refused(srcli, arguments, says):
    code, out, err = srcli("bench", *arguments)
    assert (code, out) == (2, "")
    assert says in err


def test_sizes():
    assert parse_size("1280x720") == (1280, 720)
    assert input_size((1280, 720), 4) == (320, 180)
    with pytest.raises(UsageError, match="--size 1281x720"):
        input_size((1280, 720), 3)


@pytest.mark.parametrize("name", ["lapar-a", "lapar-b", "lapar-c"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_counted_work_is_what_the_paper_says(name, scale):
    """Multi-Adds at 1280x720 output; the paper leaves out applying the dictionary's filters."""
    spec = get_model(name)
    paper = {
        "lapar-a": {2: 171, 3: 114, 4: 94},
        "lapar-b": {2: 85, 3: 61, 4: 53},
        "lapar-c": {2: 35, 3: 28, 4: 25},
    }[name][scale]
    height, width = 720 // scale, round(1280 / scale)
    pixels = height * width * scale**2
    network = spec.build(scale)
    facts = spec.multiply_adds(scale)
    counted = count(network.fuse(), (1, 3, height, width)).multiply_adds
    # The filters of the fused graph are applied by additions and multiplications, not counted as
    # products of a convolution; the bicubic enlargement is.
    applied = (13 + 25) * 3
    assert counted == pytest.approx((facts.fused_form - applied) * pixels, rel=0.05)
    counted = count(network, (1, 3, height, width)).multiply_adds
    filtering = 72 * 25 * 3 * pixels
    assert (counted - filtering) / 1e9 == pytest.approx(paper, rel=0.05)


def test_counting_knows_products():
    class Products(torch.nn.Module):
        def forward(self, x):
            return torch.bmm(x[:, 0], x[:, 1].transpose(1, 2))

    work = count(Products(), (2, 3, 5, 7))
    assert (work.multiply_adds, work.elementwise) == (2 * 5 * 5 * 7, 0)
    assert count(torch.nn.ConvTranspose2d(3, 4, 2, 2), (1, 3, 5, 5)).multiply_adds == 25 * 3 * 4 * 4


def measured(times, **changes):
    row = {"model": "lapar-c", "scale": 4, "graph": "fused", "backend": "ort", "height": 9}
    result = Result(row=Row(**{**row, "width": 16, "cuda_graph": False, **changes}))
    result.rounds, result.error, result.tolerance = [[t] for t in times], 0.0, 1e-5
    return result


def saved(folder, name, results, **hardware):
    facts = {"cpu": "one", "cores": 2, "gpus": [], **hardware}
    file = folder / name
    file.write_text(json.dumps(report.as_dict(results, facts)))
    return file


def times(by_round, **changes):
    result = measured([], **changes)
    result.rounds = [list(samples) for samples in by_round]
    return result


def test_times_faster_is_the_median_over_rounds_of_ratios_within_a_round():
    """The machine was three times slower in the last rounds, and hiccuped in the second."""
    published = times([[20, 22, 21], [40], [60], [66], [63]], graph="published", backend="torch")
    fused = times([[10, 11, 10.5], [10], [30], [33], [90]])
    runner._compare([published, fused])
    assert fused.speedups == pytest.approx([2, 4, 2, 2, 0.7])
    assert fused.speedup == 2
    assert fused.speedup_quartiles == (2, 2)
    assert published.speedup == 1


def test_rounds_that_other_work_disturbed_do_not_count():
    published = times([[20], [60], [20], [30], [20]], graph="published", backend="torch")
    fused = times([[10], [10], [10], [10], [10]])
    published.others, fused.others = [0, 1.5, 0.1, 0, 0], [0.1, 0, 0, 0.9, 0]
    runner._compare([published, fused])
    assert (fused.speedups, fused.disturbed) == ([2, 2, 2], False)
    fused.others = [1.0] * 5
    runner._compare([published, fused])
    assert (fused.speedups, fused.disturbed) == ([2, 6, 2, 3, 2], True)
    row = report.cells(fused, paper=False, roof=False)
    assert row[report.COLUMNS.index("times faster")] == "2.00 ~"


def test_rows_of_other_scopes_and_sizes_have_no_part_in_a_ratio():
    published = times([[20]], graph="published", backend="torch")
    others = [times([[10]], scope="file"), times([[10]], width=17), times([[10]], batch=2)]
    runner._compare([published, *others])
    assert [result.speedup for result in others] == [None] * 3


def foreseen(result, before=(), *, peak=0, longest=None):
    work = Work(multiply_adds=0, elementwise=0, moved=0, layers=0, peak=peak)
    truths = {result.row.subject: (None, {"fused": work})}
    runner._foresee(result, truths, [*before, result], longest)
    return result.failure


def test_what_would_not_fit_or_take_too_long_is_left_out(monkeypatch):
    monkeypatch.setattr(runner, "free_memory", lambda: 8 << 30)
    monkeypatch.setattr(runner, "driver", lambda: SimpleNamespace(devices=0))
    before = [measured([1000, 1100], batch=batch) for batch in (2, 1)]
    assert not foreseen(measured([], batch=8), before, peak=1 << 30, longest=10)
    assert "9 GB are free" in foreseen(measured([]), peak=8 << 30)
    assert "about 16 s, more than 10 s" in foreseen(measured([], batch=32), before, longest=10)
    assert not foreseen(measured([], batch=32, backend="torch"), before, longest=10)


def test_counting_knows_what_is_held_at_once():
    class Chain(torch.nn.Module):
        def forward(self, x):
            for _ in range(5):
                x = (x + 1).view(-1) * 2  # three of them at once: before, between and after
            return x

    assert count(Chain(), (1, 1, 10, 10)).peak == pytest.approx(3 * 400, abs=400)


def test_comparing_finds_what_became_slower(srcli, tmp_path):
    first = saved(tmp_path, "a.json", [measured([10, 10.1, 9.9, 10, 10.2])])
    same = saved(tmp_path, "b.json", [measured([10.1, 10, 9.9, 10.1, 10])])
    slower = saved(tmp_path, "c.json", [measured([12, 12.1, 11.9, 12, 12.2])])
    assert srcli("bench", "compare", first, same)[0] == 0
    code, out, _ = srcli("bench", "compare", first, slower)
    assert (code, "slower" in out) == (1, True)
    assert srcli("bench", "compare", first, slower, "--tolerance", "0.3")[0] == 0
    code, out, _ = srcli("bench", "compare", slower, first, "--json")
    assert code == 0
    (row,) = json.loads(out)["rows"]
    assert row["high"] < 0.9


def test_comparing_refuses_what_cannot_be_compared(srcli, tmp_path):
    first = saved(tmp_path, "a.json", [measured([10, 10])])
    elsewhere = saved(tmp_path, "b.json", [measured([10, 10])], cpu="another")
    other_scope = saved(tmp_path, "c.json", [measured([10, 10], scope="host")])
    nothing = saved(tmp_path, "d.json", [measured([10], model="lapar-a")])
    several = saved(
        tmp_path, "f.json", [measured([t, t], scope=s) for t, s in ((30, "file"), (10, "network"))]
    )
    kept = measured([10, 10])
    kept.facts = {"allocator": "keep"}
    kept = saved(tmp_path, "g.json", [kept])
    broken = tmp_path / "e.json"
    broken.write_text('{"rows": 3}')
    with pytest.raises(UsageError, match="different hardware"):
        compare(read_report(first), read_report(elsewhere))
    assert compare(read_report(first), read_report(elsewhere), anyway=True)
    code, _, err = srcli("bench", "compare", first, other_scope)
    assert (code, "--scope network, the other with --scope host" in err) == (2, True)
    assert srcli("bench", "compare", first, other_scope, "--anyway")[0] == 0
    assert "--allocator default" in srcli("bench", "compare", first, kept)[2]
    (change,) = compare(read_report(several), read_report(first))
    assert change.ratio == 1
    assert srcli("bench", "compare", first, nothing)[0] == 2
    assert srcli("bench", "compare", first, broken)[0] == 1
    assert srcli("bench", "compare", first, tmp_path / "missing.json")[0] == 1


def test_a_value_that_is_not_a_number_is_wrong():
    result = measured([1.0])
    result.error = float("nan")
    assert result.verdict == "wrong"


def test_reports_agree():
    results = [measured([1.0, 2.0, 4.0])]
    (line,) = csv.DictReader(io.StringIO(report.to_csv(results)))
    assert float(line["median_ms"]) == 2.0
    headings = report.columns(paper=False, roof=False)
    row = report.cells(results[0], paper=False, roof=False)
    assert len(headings) == len(row)
    assert report.to_markdown(headings, [row]).count("\n") == 3


def test_growth_of_a_power():
    assert growth([1, 2, 8], [3, 6, 24]) == pytest.approx(1)
    assert growth([1, 2, 8], [3, 12, 192]) == pytest.approx(2)


@pytest.mark.parametrize("name", ["plot.svg", "plot.png"])
@pytest.mark.parametrize("sizes", [(16,), (16, 32)])
def test_plots_are_drawn(tmp_path, name, sizes):
    results = [measured([1.0 * width], width=width) for width in sizes]
    said = plot(results, tmp_path / name)
    assert ("size" in said) == (len(sizes) > 1)
    if name.endswith("png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.width > 800
    else:
        assert "<svg" in (tmp_path / name).read_text()
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("backend", "graph", "precision"),
    [
        ("native", "published", "fp32"),
        ("native", "fused", "bf16"),
        ("torch", "fused", "int8"),
    ],
)
def test_nothing_to_measure_is_said(srcli, backend, graph, precision):
    code, _, err = srcli(
        "bench", "-m", "lapar-c", "--backend", backend, "--graph", graph, "--precision", precision
    )
    assert code == 2
    assert "nothing to measure" in err


@pytest.mark.parametrize("after", [0, 3])
def test_an_interruption_gives_what_was_measured(srcli, in_process, monkeypatch, after):
    """Where minutes are dear, the last ones are not to take the others with them."""
    sample, timed = runner._sample, []

    def interrupted(result, workers, seconds):
        timed.append(bool(seconds))
        if sum(timed) > after:
            raise KeyboardInterrupt
        return sample(result, workers, seconds)

    monkeypatch.setattr(runner, "_sample", interrupted)
    code, out, _ = srcli(
        *("bench", "--json", "--size", "64x48", "-m", "lapar-c", "--backend", "torch"),
        *("--graph", "fused", "--graph", "published", "--seconds", 30),
    )
    assert code == 130
    if not after:
        assert out == ""
        return
    found = json.loads(out)
    assert found["interrupted"] is True
    assert {row["failure"] for row in found["rows"]} == {None}
    assert all(row["median_ms"] > 0 for row in found["rows"])


def test_auto_is_chosen_for_each_graph_and_precision():
    kinds = importlib.import_module("srcli.commands.bench_rows").kinds
    spec = get_model("lapar-c")

    def chosen(graph, precision):
        return [
            kind["backend"] for kind in kinds(spec, ("auto",), (precision,), (graph,), sweep=False)
        ]

    assert chosen("fused", "fp32") == [get_backend("auto", spec).name]
    assert chosen("fused", "int8") == [get_backend("auto", spec, "int8").name]
    assert "native" not in chosen("published", "fp32")
    assert len(chosen("published", "fp32")) == 1
