"""Many files: names, folders, pipes, resuming, interruption."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image
from support.folders import make_pictures, names, tree

from srcli.backends import BACKENDS
from srcli.backends.base import Session
from srcli.errors import InputError, OutputError, UsageError
from srcli.images import SaveOptions
from srcli.jobs.batch import Batch
from srcli.jobs.journal import NAME
from srcli.jobs.planning import Wishes, plan_jobs
from srcli.jobs.sizes import SizeRequest
from srcli.models.spec import Geometry
from srcli.pipeline.restorer import Restorer
from srcli.system.files import temporary_name

GEOMETRY = Geometry(margin=2, floats_per_pixel=1)


class Nearest(Session):
    """A session that repeats pixels, and remembers the batches it was given."""

    def __init__(self, scale: int = 2):
        self.scale = scale
        self.batches: list[int] = []

    def __call__(self, batch):
        self.batches.append(len(batch))
        return batch.repeat(self.scale, axis=2).repeat(self.scale, axis=3)

    def close(self):
        pass


def wishes(output=None, scale=2, **options):
    return Wishes(
        output=output,
        suffix=f"_x{scale}",
        size=SizeRequest(scale=scale),
        scales=(2, 3, 4),
        options=options.pop("save", SaveOptions()),
        **options,
    )


def batch_with(session, **options):
    restorer = Restorer(session=session, geometry=GEOMETRY, scale=session.scale)
    return Batch(restorer=lambda scale: restorer, **options)


def test_a_folder_becomes_a_tree(tmp_path):
    make_pictures(tmp_path / "in" / "deep" / "er", 1)
    make_pictures(tmp_path / "in", 2)
    jobs = plan_jobs([str(tmp_path / "in")], wishes(recursive=True))
    targets = [str(job.target.relative_to(tmp_path)) for job in jobs]
    assert targets == ["in_x2/000.png", "in_x2/001.png", "in_x2/deep/er/000.png"]


def test_a_folder_alone_is_not_recursive(tmp_path):
    make_pictures(tmp_path / "in" / "deep", 1)
    make_pictures(tmp_path / "in", 1)
    assert len(plan_jobs([str(tmp_path / "in")], wishes())) == 1


def test_patterns_are_expanded(tmp_path):
    make_pictures(tmp_path, 3)
    jobs = plan_jobs([str(tmp_path / "00[12].png")], wishes())
    assert [job.source.name for job in jobs] == ["001.png", "002.png"]


def test_a_pattern_that_matches_nothing_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no pictures"):
        plan_jobs([str(tmp_path / "*.png")], wishes())


def test_names_with_any_character_work(tmp_path):
    names = ["ünï 写真 🙂.png", "a[page=2].png", "100% *.png", "-dash.png", "x" * 200 + ".png"]
    for name in names:
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    jobs = plan_jobs([str(tmp_path / name) for name in names], wishes())
    outcomes = list(batch_with(Nearest()).run(jobs))
    assert [o.status for o in outcomes] == ["done"] * len(names)


def test_two_inputs_may_not_become_one_output(tmp_path):
    make_pictures(tmp_path / "a", 1)
    make_pictures(tmp_path / "b", 1)
    inputs = [str(tmp_path / "a" / "000.png"), str(tmp_path / "b" / "000.png")]
    with pytest.raises(UsageError, match="would both become"):
        plan_jobs(inputs, wishes(output=f"{tmp_path}/out/"))


def test_formats_may_collide_too(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.bmp")
    with pytest.raises(UsageError, match="would both become"):
        plan_jobs([str(tmp_path)], wishes(save=SaveOptions(format="webp")))


def test_an_output_may_not_replace_an_input(tmp_path):
    make_pictures(tmp_path, 1)
    (tmp_path / "000.png").rename(tmp_path / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "a_x2.png")
    with pytest.raises(UsageError, match="is an input"):
        plan_jobs([str(tmp_path / "a.png"), str(tmp_path / "a_x2.png")], wishes())


def test_links_out_of_the_folder_are_not_followed(tmp_path):
    make_pictures(tmp_path / "in", 1)
    make_pictures(tmp_path / "secret", 1)
    (tmp_path / "in" / "link.png").symlink_to(tmp_path / "secret" / "000.png")
    (tmp_path / "in" / "folder").symlink_to(tmp_path / "secret")
    jobs = plan_jobs([str(tmp_path / "in")], wishes(recursive=True))
    assert [job.source.name for job in jobs] == ["000.png"]


@pytest.mark.parametrize(
    ("suffix", "size", "reason"),
    [
        ("webp", (9000, 4), "16383"),
        ("jpeg", (33000, 4), "65500"),
    ],
)
def test_limits_of_formats_are_known_before_work(tmp_path, suffix, size, reason):
    Image.new("RGB", size).save(tmp_path / "a.png")
    (job,) = plan_jobs([str(tmp_path / "a.png")], wishes(save=SaveOptions(format=suffix)))
    assert reason in str(job.error)


def test_transparency_needs_a_background_in_jpeg(tmp_path):
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "a.png")
    arguments = [str(tmp_path / "a.png")]
    (job,) = plan_jobs(arguments, wishes(save=SaveOptions(format="jpeg")))
    assert "--background" in str(job.error)
    laid = SaveOptions(format="jpeg", background=(255, 255, 255))
    (job,) = plan_jobs(arguments, wishes(save=laid))
    assert job.error is None


def test_huge_inputs_are_refused_by_their_header(tmp_path):
    Image.new("L", (2000, 2000)).save(tmp_path / "a.png")
    (job,) = plan_jobs([str(tmp_path / "a.png")], wishes(max_pixels=3_999_999))
    assert "--max-pixels" in str(job.error)


@pytest.mark.parametrize(
    ("request_", "expected", "network"),
    [
        (SizeRequest(scale=2), (640, 360), 2),
        (SizeRequest(width=800), (800, 450), 3),
        (SizeRequest(height=360), (640, 360), 2),
        (SizeRequest(fit=(1000, 500)), (889, 500), 3),
        (SizeRequest(width=700, height=700), (700, 700), 4),
        (SizeRequest(width=3200), (3200, 1800), 12),
    ],
)
def test_sizes(request_, expected, network):
    size = request_.resolve(320, 180, (2, 3, 4))
    assert (size.width, size.height) == expected
    assert size.network_scale == network


def test_contradictory_sizes_are_refused():
    with pytest.raises(UsageError, match="exclude each other"):
        SizeRequest(scale=2, width=100)


def test_fractional_scales_resample_once(tmp_path, photograph):
    from fractions import Fraction

    from srcli.pipeline.resample import resize

    Image.fromarray(photograph).save(tmp_path / "a.png")
    (job,) = plan_jobs([str(tmp_path / "a.png")], wishes(f"{tmp_path}/b.png", Fraction("1.5")))
    (outcome,) = batch_with(Nearest()).run([job])
    assert outcome.status == "done"
    with Image.open(job.target) as result:
        pixels = np.asarray(result)
    doubled = photograph.repeat(2, 0).repeat(2, 1).astype(np.float32) / 255
    expected = np.clip(np.rint(resize(doubled, 240, 240) * 255), 0, 255)
    assert np.abs(pixels - expected).max() <= 1


def test_bad_files_do_not_stop_the_others(tmp_path):
    make_pictures(tmp_path / "in", 20, bad=(3, 4, 19))
    jobs = plan_jobs([str(tmp_path / "in")], wishes())
    outcomes = list(batch_with(Nearest()).run(jobs))
    assert [o.job.source.name for o in outcomes] == [f"{k:03}.png" for k in range(20)]
    assert {o.job.source.name for o in outcomes if o.status == "failed"} == {
        "003.png",
        "004.png",
        "019.png",
    }
    assert len(tree(tmp_path / "in_x2")) == 17


def test_pictures_of_one_size_go_together(tmp_path):
    make_pictures(tmp_path / "in", 7)
    Image.new("RGB", (5, 5)).save(tmp_path / "in" / "003.png")
    session = Nearest()
    jobs = plan_jobs([str(tmp_path / "in")], wishes())
    outcomes = list(batch_with(session, size=4).run(jobs))
    assert sorted(session.batches) == [1, 3, 3]
    assert all(o.status == "done" for o in outcomes)
    single = list(
        batch_with(Nearest()).run(plan_jobs([str(tmp_path / "in")], wishes(f"{tmp_path}/s/")))
    )
    assert len(single) == 7
    assert tree(tmp_path / "s") == tree(tmp_path / "in_x2")


class InPairs(Nearest):
    """A session whose calls end only when another one is under way."""

    def __init__(self):
        super().__init__()
        self.barrier = threading.Barrier(2, timeout=60)

    def __call__(self, batch):
        self.barrier.wait()
        return super().__call__(batch)


def test_pictures_are_in_the_network_side_by_side(tmp_path):
    make_pictures(tmp_path / "in", 8)
    restorer = Restorer(session=InPairs(), geometry=GEOMETRY, scale=2, concurrency=2)
    jobs = plan_jobs([str(tmp_path / "in")], wishes())
    outcomes = list(Batch(restorer=lambda scale: restorer, concurrency=2).run(jobs))
    assert [outcome.status for outcome in outcomes] == ["done"] * 8
    alone = plan_jobs([str(tmp_path / "in")], wishes(f"{tmp_path}/alone/"))
    assert len(list(batch_with(Nearest()).run(alone))) == 8
    assert tree(tmp_path / "in_x2") == tree(tmp_path / "alone")


@pytest.mark.parametrize(
    ("done", "options", "concurrency"),
    [
        (0, (), 2),
        (0, ("--threads", "1"), 1),
        (0, ("--tile", "9"), 1),
        (0, ("--memory", "600M"), 1),
        (0, ("--batch", "3"), 1),
        (1, ("--skip-existing",), 2),
        (2, ("--skip-existing",), 1),
        (2, ("--resume",), 1),
    ],
)
def test_concurrency_is_for_the_pictures_ahead(
    srcli, tmp_path, monkeypatch, done, options, concurrency
):
    """Of three pictures, on a machine of two cores with memory to spare."""
    from srcli.backends.ort import OnnxRuntimeSession
    from srcli.pipeline import budget

    monkeypatch.setattr(budget, "usable_cores", lambda: 2)
    monkeypatch.setattr(budget, "free_memory", lambda: 64 << 30)
    folder = make_pictures(tmp_path / "in", 3)
    (tmp_path / "in_x2").mkdir()
    for index in range(done):
        Image.new("RGB", (24, 20)).save(tmp_path / "in_x2" / f"{index:03}.png")
    opened = []

    class Recorded(OnnxRuntimeSession):
        def __init__(self, graph, options, **more):
            opened.append(options.concurrency)
            super().__init__(graph, options, **more)

    monkeypatch.setattr("srcli.backends.ort.OnnxRuntimeSession", Recorded)
    used = []
    run = Batch.run
    monkeypatch.setattr(
        Batch, "run", lambda self, jobs: used.append(self.concurrency) or run(self, jobs)
    )
    srcli("upscale", folder, "-s", "2", "--backend", "ort", *options)
    assert (opened[-1], used) == (
        concurrency,
        [concurrency],
    )  # before, the graph may have been verified


def test_large_pictures_are_done_in_strips(tmp_path, photograph):
    rgba = np.dstack([photograph, photograph[:, :, 0]])
    Image.fromarray(rgba).save(tmp_path / "a.png", dpi=(300, 300))
    whole = plan_jobs([str(tmp_path / "a.png")], wishes(f"{tmp_path}/whole.png"))
    strips = plan_jobs([str(tmp_path / "a.png")], wishes(f"{tmp_path}/strips.png"))
    assert next(batch_with(Nearest()).run(whole)).status == "done"
    restorer = Restorer(session=Nearest(), geometry=GEOMETRY, scale=2, memory=100_000)
    batch = batch_with(Nearest(), in_memory=1000)
    batch.restorer = lambda scale: restorer
    assert next(batch.run(strips)).status == "done"
    with Image.open(tmp_path / "whole.png") as a, Image.open(tmp_path / "strips.png") as b:
        assert np.array_equal(np.asarray(a), np.asarray(b))
        assert a.info["dpi"] == b.info["dpi"]
    assert names(tmp_path) == {"a.png", "whole.png", "strips.png"}


def test_skip_existing_keeps_what_is_there(tmp_path):
    make_pictures(tmp_path / "in", 3)
    (tmp_path / "in_x2").mkdir()
    (tmp_path / "in_x2" / "001.png").write_text("mine")
    jobs = plan_jobs([str(tmp_path / "in")], wishes())
    outcomes = list(batch_with(Nearest(), skip_existing=True).run(jobs))
    assert [o.status for o in outcomes] == ["done", "skipped", "done"]
    assert (tmp_path / "in_x2" / "001.png").read_text() == "mine"


def test_a_link_that_leads_nowhere_is_there(tmp_path):
    make_pictures(tmp_path / "in", 1)
    link = tmp_path / "in_x2" / "000.png"
    link.parent.mkdir()
    link.symlink_to("away.png")
    jobs = plan_jobs([str(tmp_path / "in")], wishes())
    (outcome,) = batch_with(Nearest(), skip_existing=True).run(jobs)
    assert outcome.status == "skipped"
    assert link.is_symlink()


def test_a_file_may_be_called_like_standard_input(srcli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (6, 4), "teal").save("-", "png")
    code, out, err = srcli("upscale", "./-", "-s", 2)
    assert code == 0, err
    assert out.startswith(str(tmp_path / "-_x2.png"))
    _, out, _ = srcli("upscale", "[-]", "-s", 2, "--dry-run", "--overwrite")
    assert out.startswith(str(tmp_path / "-"))


class Journey:
    """A folder that is restored again and again with --resume."""

    def __init__(self, tmp_path):
        self.source, self.target = make_pictures(tmp_path / "in", 4), tmp_path / "in_x2"

    def run(self, **options):
        jobs = plan_jobs([str(self.source)], wishes(**options.pop("wishes", {})))
        outcomes = batch_with(Nearest(), resume=True, facts=options).run(jobs)
        return [outcome.status for outcome in outcomes]


@pytest.fixture
def journey(tmp_path):
    journey = Journey(tmp_path)
    assert journey.run() == ["done"] * 4
    return journey


def test_resume_redoes_nothing_that_is_done(journey):
    before = tree(journey.target)
    assert journey.run() == ["skipped"] * 4
    assert tree(journey.target) == before


def test_resume_redoes_what_is_missing(journey):
    before = tree(journey.target)
    (journey.target / "002.png").unlink()
    assert journey.run() == ["skipped", "skipped", "done", "skipped"]
    assert tree(journey.target) == before


def test_resume_redoes_what_was_damaged(journey):
    before = tree(journey.target)
    (journey.target / "000.png").write_bytes(b"cut sho")
    assert journey.run() == ["done", "skipped", "skipped", "skipped"]
    assert tree(journey.target) == before


def test_resume_leaves_what_somebody_has_worked_on(journey):
    Image.new("RGB", (7, 7), "red").save(journey.target / "000.png")
    before = tree(journey.target)
    assert journey.run() == ["failed", "skipped", "skipped", "skipped"]
    assert tree(journey.target) == before


def test_resume_removes_what_killed_runs_have_left(journey):
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    own = temporary_name(".png")
    theirs = own.replace(f"-{os.getpid()}-", f"-{killed.pid}-")
    elsewhere = ".srcli-00000000" + theirs.removeprefix(".srcli-")[8:]
    former = temporary_name(".png")  # of a process of the same number, before this one
    for name in (own, former, theirs, elsewhere, ".srcli-notes.txt"):
        (journey.target / name).touch()
    os.utime(journey.target / former, (1, 1))
    journey.run()
    left = {path.name for path in journey.target.glob(".srcli-*")} - {NAME}
    assert left == {own, elsewhere, ".srcli-notes.txt"}


def test_resume_asks_for_the_weights_of_a_pictures_own_scale(journey):
    assert journey.run(weights_sha256={"x2": "a"}) == ["done"] * 4
    assert journey.run(weights_sha256={"x2": "a", "x4": "b"}) == ["skipped"] * 4
    assert journey.run(weights_sha256={"x2": "c", "x4": "b"}) == ["done"] * 4


def test_a_journal_that_is_a_folder(tmp_path):
    source = make_pictures(tmp_path / "in", 1)
    (tmp_path / "in_x2" / NAME / "main.jsonl").mkdir(parents=True)
    with pytest.raises(OutputError, match="is no journal"):
        list(batch_with(Nearest(), resume=True).run(plan_jobs([str(source)], wishes())))


def test_resume_knows_a_folder_by_all_its_names(tmp_path, monkeypatch):
    make_pictures(tmp_path, 2)
    monkeypatch.chdir(tmp_path)
    for expected in ("done", "skipped"):
        jobs = plan_jobs(["000.png", str(tmp_path / "001.png")], wishes())
        for outcome in batch_with(Nearest(), resume=True).run(jobs):
            assert outcome.status == expected, outcome.error


@pytest.mark.parametrize("name", ["a\u2028b", "bad\udcff", "new\nline"])
def test_resume_knows_files_of_any_name(tmp_path, name):
    source = tmp_path / "in"
    (file,) = make_pictures(source, 1).iterdir()
    try:
        file.rename(source / f"{name}.png")
    except (OSError, UnicodeError):
        pytest.skip("no such names here")
    for expected in ("done", "skipped"):
        jobs = plan_jobs([str(source)], wishes())
        (outcome,) = batch_with(Nearest(), resume=True).run(jobs)
        assert outcome.status == expected, outcome.error


def test_outputs_inside_the_input_folder_are_no_inputs(tmp_path):
    source = make_pictures(tmp_path / "in", 3)
    output = wishes(output=f"{source}/out/", recursive=True)
    for expected in ("done", "skipped"):
        jobs = plan_jobs([str(source)], output)
        assert [o.status for o in batch_with(Nearest(), resume=True).run(jobs)] == [expected] * 3


def test_an_input_without_a_name_is_not_this_folder():
    with pytest.raises(UsageError, match="no name"):
        plan_jobs([""], wishes())


@pytest.fixture
def interruptible():
    """Ctrl-C interrupts, also where a shell has started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_interruption_does_not_wait_for_the_whole_picture(tmp_path):
    class Slow(Nearest):
        def __call__(self, batch):
            time.sleep(0.05)
            if len(self.batches) == 3:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            return super().__call__(batch)

    jobs = plan_jobs([str(make_pictures(tmp_path / "in", 1, size=(60, 80)))], wishes())
    session = Slow()
    restorer = Restorer(session=session, geometry=GEOMETRY, scale=2, tile=5)
    with pytest.raises(KeyboardInterrupt):
        list(Batch(restorer=lambda scale: restorer).run(jobs))
    assert len(session.batches) < 12 * 16
    assert not list((tmp_path / "in_x2").glob("*"))


def test_resume_notices_a_changed_input(journey):
    Image.new("RGB", (12, 10)).save(journey.source / "001.png")
    assert journey.run() == ["skipped", "done", "skipped", "skipped"]


def test_resume_notices_another_model(journey):
    assert journey.run(model="another") == ["done"] * 4


def test_resume_notices_other_options(journey):
    assert journey.run(wishes={"save": SaveOptions(strip=True)}) == ["done"] * 4


def test_resume_leaves_foreign_files_alone(tmp_path):
    journey = Journey(tmp_path)
    journey.target.mkdir()
    (journey.target / "003.png").write_text("mine")
    assert journey.run() == ["done", "done", "done", "failed"]
    assert (journey.target / "003.png").read_text() == "mine"


def test_resume_survives_a_damaged_journal(journey):
    from srcli.jobs.journal import NAME

    file = journey.target / NAME / "main.jsonl"
    lines = file.read_text().splitlines()
    escape = json.dumps({"output": "../../escape.png", "input_sha256": "", "recipe": ""})
    file.write_text("\n".join([*lines[:2], "{not json", "[]", escape, lines[2], lines[3][:50]]))
    assert journey.run() == ["skipped"] * 3 + ["failed"]  # the last line was lost with its record
    assert not (journey.target.parent.parent / "escape.png").exists()


def command(source, *arguments):
    return [sys.executable, "-m", "srcli", "upscale", str(source), "-s", "2", *arguments]


def test_killed_at_any_moment_and_resumed(tmp_path, srcli):
    """The final tree is that of an undisturbed run, byte for byte."""
    source = make_pictures(tmp_path / "in", 30, size=(40, 60), bad=(5,))
    assert srcli("upscale", source, "-s", 2, "--resume", "-o", f"{tmp_path}/whole/")[0] == 1
    random.seed(4)
    killed = 0
    for _ in range(6):
        process = subprocess.Popen(
            command(source, "--resume", "-o", f"{tmp_path}/cut/"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(random.uniform(0.05, 0.9))
        killed += process.poll() is None
        process.kill()
        process.wait()
    assert killed
    assert srcli("upscale", source, "-s", 2, "--resume", "-o", f"{tmp_path}/cut/")[0] == 1
    assert tree(tmp_path / "cut") == tree(tmp_path / "whole")


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupting_leaves_finished_files_only(tmp_path, sent, code):
    source = make_pictures(tmp_path / "in", 200, size=(60, 80))
    process = subprocess.Popen(
        command(source),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs these tests in the background has switched Ctrl-C off for all children.
    )
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    outputs = [tmp_path / "in_x2" / name for name in names(tmp_path / "in_x2")]
    assert 3 <= len(outputs) < 200
    for file in outputs:
        with Image.open(file) as picture:
            picture.load()


def test_through_a_pipe(tmp_path, photograph):
    buffer = io.BytesIO()
    Image.fromarray(photograph[:20, :30]).save(buffer, "PNG")
    done = subprocess.run(command("-", "-f", "webp"), input=buffer.getvalue(), capture_output=True)
    assert done.returncode == 0, done.stderr
    with Image.open(io.BytesIO(done.stdout)) as result:
        assert (result.format, result.size) == ("WEBP", (60, 40))


def test_dry_run_does_nothing(srcli, tmp_path):
    source = make_pictures(tmp_path / "in", 3, bad=(1,))
    code, out, err = srcli("upscale", source, "--dry-run")
    assert code == 1
    assert len(out.splitlines()) == 2
    assert "001.png" in err
    assert not (tmp_path / "in_x4").exists()


@pytest.mark.parametrize(
    ("option", "what"), [("--skip-existing", "kept)"), ("--resume", "kept, unless")]
)
def test_dry_run_tells_what_is_there(srcli, tmp_path, option, what):
    source = make_pictures(tmp_path / "in", 2)
    (tmp_path / "in_x4").mkdir()
    (tmp_path / "in_x4" / "001.png").write_text("mine")
    _, out, _ = srcli("upscale", source, "--dry-run", option)
    first, second = out.splitlines()
    assert "exists" not in first
    assert f"(exists: {what}" in second
    _, out, _ = srcli("upscale", source, "--dry-run", "--json", option)
    assert [row["exists"] for row in json.loads(out)["files"]] == [False, True]
    assert "exists" not in srcli("upscale", source, "--dry-run", "--check")[1]


def test_a_batch_reports_and_goes_on(srcli, tmp_path):
    """200 pictures, 10 of them bad: 190 outputs, 10 reports, exit code 1."""
    source = make_pictures(tmp_path / "in", 200, size=(8, 8), bad=range(5, 200, 20))
    code, out, err = srcli("upscale", source, "-s", 2)
    assert code == 1
    assert len(out.splitlines()) == 190
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 10
    assert "190 done, 10 failed" in err
    assert len(names(tmp_path / "in_x2")) == 190


def test_check_compares_tiles_and_backends(srcli, tmp_path, photograph):
    Image.fromarray(photograph[:70, :60]).save(tmp_path / "a.png")
    code, out, _ = srcli("upscale", tmp_path / "a.png", "--check", "--tile", 16, "--json")
    rows = json.loads(out)
    assert code == 0
    usable = [backend for backend in BACKENDS if backend.unavailable() is None]
    assert len(rows) == 2 * len(usable) - 1  # each one's tiles, and the others against the first
    assert all(float(row["difference"]) < 1e-5 for row in rows)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


def test_check_goes_on_after_a_damaged_picture(srcli, tmp_path, photograph):
    for name in ("a.png", "b.png"):
        Image.fromarray(photograph[:30, :20]).save(tmp_path / name)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:-100])
    code, out, err = srcli("upscale", tmp_path, "--check", "--backend", "torch", "--json")
    assert (code, "a.png" in err) == (1, True)
    assert [row["input"] for row in json.loads(out)] == [str(tmp_path / "b.png")]
    # Nor is one that could not be written in this format the end.
    Image.new("RGBA", (20, 30), (9, 9, 9, 99)).save(tmp_path / "a.png")
    code, out, err = srcli(
        "upscale", tmp_path, "--check", "--backend", "torch", "--json", "-f", "jpeg"
    )
    assert (code, "a.jpg" in err) == (1, True)
    assert [row["input"] for row in json.loads(out)] == [str(tmp_path / "b.png")]


@pytest.mark.parametrize("task", ["denoise", "deblock"])
def test_restoring_without_weights_names_the_remedy(srcli, tmp_path, photograph, task, monkeypatch):
    from srcli.checkpoints import shipped

    others = tuple(w for w in shipped.shipped_weights() if w.model != "lapar-b")
    monkeypatch.setattr(shipped, "shipped_weights", lambda: others)
    Image.fromarray(photograph[:20, :20]).save(tmp_path / "a.png")
    code, _, err = srcli(task, tmp_path / "a.png", "-m", "lapar-b")
    assert code == 3
    assert "--weights FILE" in err


@pytest.mark.parametrize("task", ["denoise", "deblock"])
def test_restoring_with_own_weights(srcli, tmp_path, photograph, task):
    import torch

    from srcli.models.registry import get_model

    torch.manual_seed(0)
    torch.save(get_model("lapar-c").build(1).state_dict(), tmp_path / "net.pth")
    Image.fromarray(photograph[:20, :24]).save(tmp_path / "a.png")
    code, _, err = srcli(task, tmp_path / "a.png", "--weights", tmp_path / "net.pth")
    assert code == 0, err
    with Image.open(tmp_path / f"a_{task}ed.png".replace("denoiseed", "denoised")) as result:
        assert result.size == (24, 20)
