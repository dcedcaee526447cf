"""Thousands of damaged and lying files through what `srcli upscale` does with a folder of them.

All in one other process, so that a crash or a hang is a failure of this test and not of the whole
run. By hand, `PYTHONPATH=tests python tests/jobs/test_hostile.py FOLDER SEED` leaves the files too.
"""

from __future__ import annotations

import json
import os
import random
import resource
import struct
import subprocess
import sys
import time
import warnings
import zlib
from pathlib import Path

import pytest
import tifffile
from PIL import Image
from support.corpus import corpus

SEED = 20240506
TURNS = 19  # files made from each picture of the corpus
SECONDS = 10  # between two files; a good one takes a hundredth
ALL_SECONDS = 300
MEMORY = 2 << 30  # bytes that one file may make the process take
MAX_PIXELS = 100_000_000  # less than the usual limit, for the sake of small machines
SUFFIXES = (".png", ".jpg", ".tif", ".webp", ".avif", ".bmp")
MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"MM\0*", b"RIFF\xff\xff\xff\x7fWEBP",
         b"\0\0\0\x20ftypavif", b"BM")  # fmt: skip
SIDES = (0, 1, 0x7FFF, 0xFFFF, 60_000, 0x7FFFFFFF, 0xFFFFFFFF)


# How files are harmed -----------------------------------------------------------------------------


def cut(data, chance):
    return data[: chance.randrange(len(data))]


def cut_in_the_head(data, chance):
    return data[: chance.randrange(min(100, len(data)))]


def one_bit(data, chance):
    harmed = bytearray(data)
    harmed[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return bytes(harmed)


def many_bits(data, chance):
    for _ in range(chance.randrange(2, 100)):
        data = one_bit(data, chance)
    return data


def head_overwritten(data, chance):
    harmed = bytearray(data)
    for _ in range(chance.randrange(1, 6)):
        harmed[chance.randrange(min(80, len(data)))] = chance.choice((0, 1, 127, 128, 255))
    return bytes(harmed)


def hole(data, chance):
    start, size = chance.randrange(len(data)), chance.randrange(1, 200)
    return data[:start] + bytes(len(data[start : start + size])) + data[start + size :]


def piece_missing(data, chance):
    start = chance.randrange(len(data))
    return data[:start] + data[start + chance.randrange(1, 60) :]


def piece_twice(data, chance):
    start = chance.randrange(len(data))
    return data[:start] + data[start : start + chance.randrange(1, 300)] + data[start:]


def other_tail(data, chance):
    other = chance.choice(list(corpus().values())).content
    return data[: chance.randrange(len(data))] + other[chance.randrange(len(other)) :]


def noise(data, chance):
    return chance.randbytes(len(data))


def noise_after_the_magic(data, chance):
    return chance.choice(MAGIC) + chance.randbytes(chance.randrange(3000))


def another_magic(data, chance):
    magic = chance.choice(MAGIC)
    return magic + data[len(magic) :]


def lying_size(data, chance):
    """The same picture, with a header that states another size."""
    width, height = chance.choice(SIDES), chance.choice(SIDES)
    harmed = bytearray(data)
    if data[1:4] == b"PNG":
        harmed[16:24] = struct.pack(">II", width, height)
        harmed[29:33] = struct.pack(">I", zlib.crc32(harmed[12:29]))
    elif data[:2] == b"BM":
        harmed[18:26] = struct.pack("<II", width, height)
    elif data[:2] == b"\xff\xd8":
        start = max(data.find(b"\xff\xc0\0"), data.find(b"\xff\xc2\0"))
        harmed[start + 5 : start + 9] = struct.pack(">HH", height & 0xFFFF, width & 0xFFFF)
    elif b"ispe" in data:
        start = data.index(b"ispe") + 8
        harmed[start : start + 8] = struct.pack(">II", width, height)
    elif data[8:12] == b"WEBP":
        harmed[23:30] = chance.randbytes(7)
    else:
        _lie_in_tiff(harmed, width, height)
    return bytes(harmed)


def _lie_in_tiff(data, width, height):
    order = "<" if data[:2] == b"II" else ">"
    for tag, side in ((256, width), (257, height)):
        for kind in (3, 4):
            start = data.find(struct.pack(f"{order}HH", tag, kind))
            if start >= 0:
                data[start + 2 : start + 12] = struct.pack(f"{order}HII", 4, 1, side)


def untouched(data, chance):
    return data


WAYS = (
    cut, cut_in_the_head, one_bit, many_bits, head_overwritten, hole, piece_missing, piece_twice,
    other_tail, noise, noise_after_the_magic, another_magic, lying_size,
)  # fmt: skip


def fill(folder, seed):
    """Write the files; returns how many."""
    chance = random.Random(seed)
    folder.mkdir(parents=True)
    number = 0
    for sample in corpus().values():
        name = Path(sample.name)
        for turn in range(TURNS):
            # Every way once, then by chance; some under a name that lies about the format.
            way = WAYS[turn] if turn < len(WAYS) else chance.choice((*WAYS, lying_size, untouched))
            lie = way is untouched or chance.random() < 0.1
            suffix = chance.choice(SUFFIXES) if lie else name.suffix
            file = folder / f"{number:05}-{way.__name__}-{name.stem}{suffix}"
            file.write_bytes(way(sample.content, chance))
            number += 1
    for suffix in SUFFIXES:
        (folder / f"empty{suffix}").touch()
        (folder / f"one-byte{suffix}").write_bytes(b"B")
    return number + 2 * len(SUFFIXES)


# What is done with them ---------------------------------------------------------------------------


def restore(folder):
    """Do the folder as `srcli upscale FOLDER -s 2` does; a line of JSON for each file."""
    from srcli.backends.base import Session
    from srcli.images import SaveOptions
    from srcli.jobs.batch import Batch
    from srcli.jobs.planning import Wishes, plan_jobs
    from srcli.jobs.sizes import SizeRequest
    from srcli.models.spec import Geometry
    from srcli.pipeline.restorer import Restorer

    class Repeated(Session):
        """Makes every pixel four."""

        def __call__(self, batch):
            return batch.repeat(2, axis=2).repeat(2, axis=3)

    wishes = Wishes(
        output=None,
        suffix="_x2",
        size=SizeRequest(scale=2),
        scales=(2,),
        options=SaveOptions(),
        max_pixels=MAX_PIXELS,
    )
    started = time.monotonic()
    jobs = plan_jobs([str(folder)], wishes)
    _say(planned=len(jobs), seconds=time.monotonic() - started)
    geometry = Geometry(margin=1, floats_per_pixel=4)
    restorer = Restorer(session=Repeated(), geometry=geometry, scale=2)
    batch = Batch(restorer=lambda scale: restorer, max_pixels=MAX_PIXELS)
    last = time.monotonic()
    for outcome in batch.run(jobs):
        now, size = time.monotonic(), outcome.job.size
        _say(
            file=outcome.job.source.name,
            target=outcome.job.target.name,
            status=outcome.status,
            error=None if outcome.error is None else str(outcome.error),
            size=None if size is None else [size.width, size.height],
            seconds=now - last,
        )
        last = now
    _say(memory=_peak())


def _peak():
    """Bytes; on Linux without what the process had that started this one."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))


def _say(**facts):
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """The folder of files, and what was said of each."""
    folder = tmp_path_factory.mktemp("hostile") / "in"
    count = fill(folder, SEED)
    done = subprocess.run(
        [sys.executable, __file__, str(folder)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=ALL_SECONDS,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, f"ended with {done.returncode} after {lines[-1:]}\n{done.stderr}"
    assert lines[0]["planned"] == count
    return folder, done.stderr, lines


@pytest.fixture(scope="module")
def outcomes(report):
    return report[2][1:-1]


def test_every_file_has_an_outcome(report, outcomes):
    names = sorted(path.name for path in report[0].iterdir())
    assert sorted(outcome["file"] for outcome in outcomes) == names
    assert len(outcomes) >= 2000
    assert {outcome["status"] for outcome in outcomes} == {"done", "failed"}


def test_nothing_is_printed_past_us(report):
    assert report[1] == ""


def test_an_error_is_one_clear_line(report, outcomes):
    for outcome in outcomes:
        if outcome["status"] == "failed":
            text = outcome["error"]
            assert outcome["file"] in text
            assert text.isprintable(), text
            said = text.replace(str(report[0]), "")
            assert 20 < len(said) < 400, text
            assert "Error(" not in said, text
            assert "NoneType" not in said, text


def test_no_partial_output(report, outcomes):
    """What is there was done; what was done is there, and whole for other readers."""
    out = report[0].with_name("in_x2")
    expected = {outcome["target"]: outcome for outcome in outcomes if outcome["status"] == "done"}
    made = [path for path in out.iterdir() if not path.name.startswith(".")]
    assert {path.name for path in made} == set(expected)
    for path in made:
        assert size_of(path) == expected[path.name]["size"], path.name


def size_of(path):
    if path.suffix == ".tif":
        height, width = tifffile.imread(path).shape[:2]
        return [width, height]
    # Warnings are of metadata that was harmed before.
    with warnings.catch_warnings(action="ignore"), Image.open(path) as image:
        image.load()
        return list(image.size)


def test_no_file_takes_long(report, outcomes):
    slowest = max(outcomes, key=lambda outcome: outcome["seconds"])
    assert slowest["seconds"] < SECONDS, slowest
    assert report[2][0]["seconds"] < ALL_SECONDS / 2


def test_no_file_takes_much_memory(report):
    assert report[2][-1]["memory"] < MEMORY


def test_whole_files_are_done_whatever_they_are_called(outcomes):
    for outcome in outcomes:
        if "-untouched-" in outcome["file"] and outcome["status"] == "failed":
            assert "--background" in outcome["error"]


if __name__ == "__main__":
    if len(sys.argv) > 2:
        fill(Path(sys.argv[1]), int(sys.argv[2]))
    restore(Path(sys.argv[1]))
