"""What a process may use, inside the control groups of both versions."""

from __future__ import annotations

import os

import pytest

from srcli.backends.base import SessionOptions
from srcli.models.spec import Geometry
from srcli.pipeline.budget import (
    LARGEST_BUDGET,
    MAX_CONCURRENCY,
    SMALLEST_BUDGET,
    automatic_budget,
    sensible_concurrency,
)
from srcli.system import machine

GIB = 1 << 30


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A machine of 64 cores with 16 GiB free, whose control groups the test writes."""

    def write(files):
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)

    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    write({"proc/meminfo": f"MemTotal: 1 kB\nMemAvailable: {16 * GIB >> 10} kB\n"})
    return write


VERSION_2 = {
    "proc/self/cgroup": "0::/outer/inner\n",
    "cgroup/outer/cpu.max": "250000 100000\n",
    "cgroup/outer/inner/cpu.max": "max 100000\n",
    "cgroup/outer/memory.max": f"{3 * GIB}\n",
    "cgroup/outer/memory.current": f"{2 * GIB}\n",
    "cgroup/outer/memory.stat": f"anon 7\ninactive_file {GIB // 2}\n",
    "cgroup/outer/inner/memory.max": "max\n",
    "cgroup/outer/inner/memory.current": "0\n",
}
# As inside a container: the path is the host's, the files are the container's.
VERSION_1 = {
    "proc/self/cgroup": "5:cpu,cpuacct:/docker/1f\n3:memory:/docker/1f\n1:name=systemd:/\n0::/\n",
    "cgroup/cpu/cpu.cfs_quota_us": "250000\n",
    "cgroup/cpu/cpu.cfs_period_us": "100000\n",
    "cgroup/memory/memory.limit_in_bytes": f"{3 * GIB}\n",
    "cgroup/memory/memory.usage_in_bytes": f"{2 * GIB}\n",
    "cgroup/memory/memory.stat": f"total_inactive_file {GIB // 2}\n",
}


@pytest.mark.parametrize("files", [VERSION_2, VERSION_1], ids=["version 2", "version 1"])
def test_a_container_has_its_share(place, files):
    place(files)
    assert machine.usable_cores() == 3
    assert machine.free_memory() == 3 * GIB // 2
    assert SessionOptions().thread_limit == 3
    assert SessionOptions(threads=5).thread_limit == 5
    assert automatic_budget() == 3 * GIB // 8


@pytest.mark.parametrize(
    ("pictures", "changes", "concurrency"),
    [
        (1, {}, 1),
        (3, {}, 3),
        (99, {}, MAX_CONCURRENCY),
        (99, {"threads": 2}, 2),
        (99, {"memory": LARGEST_BUDGET + 1}, 1),
        (99, {"memory": 1}, 1),
        (99, {"memory": 2 * LARGEST_BUDGET}, 2),
        (99, {"tile": 64}, 1),
    ],
)
def test_pictures_side_by_side(place, pictures, changes, concurrency):
    place({"proc/self/cgroup": ""})
    geometry = Geometry(margin=8, minimum=1, floats_per_pixel=100)
    assert sensible_concurrency(pictures, geometry, **changes) == concurrency


def test_what_tiles_approximate_has_all_memory(place):
    place({"proc/self/cgroup": ""})
    geometry = Geometry(margin=8, minimum=1, floats_per_pixel=100, tiling="approximate")
    assert sensible_concurrency(99, geometry) == 1


def test_each_lane_has_its_memory_unless_there_is_little(place):
    place({"proc/self/cgroup": ""})
    assert automatic_budget(concurrency=3) == 3 * LARGEST_BUDGET
    place({"proc/meminfo": f"MemAvailable: {GIB >> 10} kB\n"})
    assert automatic_budget(concurrency=3) == GIB // 4


def test_without_limits_the_machine_counts(place):
    place(
        {
            "proc/self/cgroup": "4:memory:/\n2:cpu:/\n0::/\n",
            "cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            "cgroup/memory/memory.usage_in_bytes": "1\n",
        }
    )
    assert machine.usable_cores() == 64
    assert machine.free_memory() == 16 * GIB
    assert SessionOptions().thread_limit is None
    assert automatic_budget() == LARGEST_BUDGET


def test_a_full_container_gets_the_smallest_budget(place):
    place(VERSION_2 | {"cgroup/outer/memory.current": f"{4 * GIB}\n"})
    assert automatic_budget() == SMALLEST_BUDGET


def test_where_nothing_is_told(place, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "PROC", tmp_path / "none")
    assert machine.free_memory() is None
    assert machine.usable_cores() == 64
    assert automatic_budget() == LARGEST_BUDGET
