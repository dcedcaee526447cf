"""`eval --html` and `bench --html`: the figures of the table, as a page."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from srcli.bench import report
from srcli.bench.rows import Result, Row
from srcli.commands.html_reports import write_times


@pytest.fixture
def data(tmp_path, photograph, monkeypatch):
    (tmp_path / "set").mkdir()
    Image.fromarray(photograph[:48, :48]).save(tmp_path / "set" / "one.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def cells(page):
    return re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", page)


def test_scores_become_a_page(srcli, data):
    code, out, err = srcli("eval", "-m", "bicubic", "-s", "2", "-s", "3", "--html", "x.html", "set")
    assert code == 0, err
    page = (data / "x.html").read_text()
    lines = [line for line in out.splitlines() if line.split()[:1] == ["set"]]
    assert len(lines) == 2
    for line in lines:
        for word in line.split()[-3:]:
            assert word in cells(page), line
    assert page.count("<circle") == 2


def test_times_become_a_page(tmp_path):
    row = Row(model="lapar-c", scale=2, graph="fused", backend="native", height=8, width=8)
    result = Result(row=row, rounds=[[1.0, 2.0, 3.0]])
    shown = {"paper": False, "roof": False}
    table = report.columns(**shown), [report.cells(result, **shown)]
    write_times(tmp_path / "x.html", "Latency", table, [result, Result(row=row)], ["a note"])
    page = (tmp_path / "x.html").read_text()
    assert page.count("<rect") == 1
    assert "2.00" in cells(page)
    assert "a note" in page


@pytest.mark.parametrize(
    "command", [("eval", "-m", "bicubic", "-s", "2", "set"), ("bench", "--size", "8x8")]
)
def test_pages_are_refused_before_any_work(srcli, data, command):
    code, _, err = srcli(*command, "--html", "x.png")
    assert code == 2
    assert "x.png: a page must end in .html. Rename it." in err
    (data / "x.html").write_text("mine")
    code, _, err = srcli(*command, "--html", "x.html")
    assert code == 2
    assert "x.html: exists already. Give another --html, or --overwrite" in err
