"""The recipe at a tiny size."""

from __future__ import annotations

import importlib
import re
import signal
import subprocess
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils._python_dispatch import TorchDispatchMode

from srcli.loading.model import load
from srcli.models.lapar.network import apply_filters
from srcli.models.registry import get_model
from srcli.pipeline.resample import reduce, resize
from srcli.quality.metrics import psnr
from srcli.weights.training.gradients import Gradients
from srcli.weights.training.losses import LOSSES, decibels, taught_decibels
from srcli.weights.training.teachers import lessons, load_lessons, save_lessons
from srcli.weights.training.variants import VARIANTS

CPU = torch.device("cpu")
train = importlib.import_module("srcli.weights.training.train")


@pytest.fixture
def data(tmp_path, photograph):
    folder = tmp_path / "data"
    folder.mkdir()
    Image.fromarray(photograph).save(folder / "a.png")
    Image.fromarray(photograph[:101, :97]).save(folder / "b.png")
    return folder


def recipe(**changes):
    return train.Recipe(
        **{"model": "lapar-c", "scale": 2, "batch": 2, "patch": 8, "steps": 6} | changes
    )


def run_for(recipe, folder, data, until):
    folder.mkdir(exist_ok=True)
    run = train.Run(recipe, folder, CPU)
    if run.checkpoint.exists():
        run.restore()
    pictures = train.Pictures(data, recipe.scale)
    while run.step < until:
        run.update(*pictures.batch(recipe, run.step))
    run.save()
    return run


TASKS = {
    "upscale": {},
    "denoise": {"scale": 1, "task": "denoise", "loss": "psnr-rgb"},
    "deblock": {"scale": 1, "task": "deblock", "loss": "psnr"},
    "awsrn": {"model": "awsrn-sd"},
}
FORMS = [{"variant": variant} for variant in VARIANTS] + [{"model": "awsrn-sd"}]


@pytest.mark.parametrize(
    ("task", "optimiser"),
    [*((task, "adam") for task in TASKS), ("upscale", "soap"), ("awsrn", "soap")],
)
def test_resuming_gives_the_same_weights(tmp_path, data, task, optimiser):
    wanted = recipe(**TASKS[task], optimiser=optimiser, steps=30)
    whole = run_for(wanted, tmp_path / "whole", data, 12)  # beyond a turn of SOAP's axes
    run_for(wanted, tmp_path / "halves", data, 7)
    halves = run_for(wanted, tmp_path / "halves", data, 12)
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, halves.net.state_dict()[name]), name
        assert torch.equal(whole.average[name], halves.average[name]), name


def test_a_checkpoint_of_another_version_is_refused(tmp_path, data):
    run = run_for(recipe(), tmp_path, data, 2)
    state = torch.load(run.checkpoint)
    del state["format"]
    torch.save(state, run.checkpoint)
    with pytest.raises(SystemExit, match=r"another version.*--init .*weights\.safetensors"):
        run.restore()


@pytest.mark.parametrize("model", ["lapar-c", "awsrn-sd"])
def test_training_reduces_the_loss(tmp_path, data, model):
    wanted = recipe(model=model, steps=40, patch=12)
    run = train.Run(wanted, tmp_path, CPU)
    pictures = train.Pictures(data, 2)
    losses = [run.update(*pictures.batch(wanted, step)) for step in range(40)]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_pairs_belong_together(data):
    """The reduced patch is the reduction of the other, wherever it was cut and turned."""
    wanted = recipe(patch=24, batch=4)
    low, high = train.Pictures(data, 2).batch(wanted, 5)
    for small, large in zip(low, high, strict=True):
        pixels = large.permute(1, 2, 0).contiguous().numpy()
        # Borders were reduced with what lies beyond them.
        reduced = reduce(pixels, 2)[4:-4, 4:-4]
        expected = small.permute(1, 2, 0).numpy()[4:-4, 4:-4]
        assert psnr(reduced, expected) > 55


def test_workers_cut_what_is_cut_here(data):
    wanted = recipe()
    pictures = train.Pictures(data, 2)
    prepared = train.batches(pictures, wanted, 3, workers=2, pinned=False)
    for step, found in zip(range(3, 8), prepared, strict=False):
        for ours, theirs in zip(pictures.batch(wanted, step), found, strict=True):
            assert torch.equal(ours, theirs)


class TestTeachers:
    def test_they_come_nearer_than_each_of_them(self, data):
        """The mean of two networks over eight flips and turns, on a picture that none has seen."""
        pictures = train.Pictures(data, 2)

        def score(taught):
            return np.mean([psnr(*pair) for pair in zip(taught, pictures.high, strict=True)])

        models = ("lapar-c", "lapar-b")
        together = score(lessons(pictures.low, models, 2, CPU))
        for model in models:
            fused = load(model, 2).network()
            with torch.no_grad():
                alone = [fused(train.tensor([low]) / 255)[0] for low in pictures.low]
            assert together > score([p.permute(1, 2, 0).numpy() * 255 for p in alone])

    def test_patches_are_cut_and_turned_alike(self, data):
        wanted = recipe(batch=8)
        pictures = train.Pictures(data, 2)
        pictures.teach([picture.astype(np.float16) for picture in pictures.high])
        low, high, taught = pictures.batch(wanted, 3)
        assert torch.equal(high, taught)
        assert low.shape[2:] == (8, 8)

    def test_patches_are_kept_where_teachers_gain_most(self, data):
        """They know the left half of each picture, and of the right no more than bicubic."""
        pictures = train.Pictures(data, 2)
        taught = []
        for low, high in zip(pictures.low, pictures.high, strict=True):
            lesson = resize(low.astype(np.float32), *high.shape[:2]).astype(np.float16)
            half = high.shape[1] // 2
            lesson[:, :half] = high[:, :half]
            taught.append(lesson)
        pictures.teach(taught)

        def share_known(candidates):
            _, high, taught = pictures.batch(recipe(candidates=candidates, batch=32), 0)
            return float(((high - taught).abs().mean(dim=(1, 2, 3)) < 1).float().mean())

        assert share_known(1) < 0.7
        assert share_known(8) > 0.9

    def test_towards_the_original_the_gradient_is_that_of_the_loss(self):
        high = torch.rand(3, 3, 6, 6)
        restored = (high + 0.1 * torch.rand_like(high)).requires_grad_()
        expected = torch.autograd.grad(decibels(restored - high), restored)
        found = torch.autograd.grad(taught_decibels(restored - high, restored - high), restored)
        torch.testing.assert_close(found, expected)

    def test_weights_learn_what_is_taught(self, tmp_path, data):
        """Two runs by the same patches, whose teachers see all darker and brighter."""
        pictures, means = train.Pictures(data, 2), []
        for shift in (-20, 20):
            pictures.teach([(p + np.float16(shift)).astype(np.float16) for p in pictures.high])
            run = train.Run(recipe(taught=0.9, loss="psnr"), tmp_path, CPU)
            for step in range(6):
                run.update(*pictures.batch(run.recipe, step))
            means.append(float(run.net.fuse()(torch.full((1, 3, 9, 9), 0.5)).mean()))
        assert means[0] < means[1]

    def test_what_is_saved_is_read_whole(self, tmp_path, data):
        file = tmp_path / "x2.safetensors"
        pictures = train.Pictures(data, 2)
        (exactly,) = lessons(pictures.low[:1], ["lapar-c"], 2, CPU)
        taught = list(lessons(pictures.low[:1], ["lapar-c"], 2, CPU, bf16=True))
        assert psnr(taught[0].astype(float), exactly.astype(float)) > 60
        save_lessons(file, taught, pictures.low[:1])
        assert np.array_equal(load_lessons(file, pictures.low[:1])[0], taught[0])
        with pytest.raises(SystemExit, match="is not of these pictures"):
            load_lessons(file, pictures.low)
        file.write_bytes(file.read_bytes()[:100])
        with pytest.raises(SystemExit, match="cannot be read"):
            load_lessons(file, pictures.low)

    def test_what_a_stopped_command_has_made_is_not_made_again(self, tmp_path, data):
        low = train.Pictures(data, 2).low[:2]
        stopped = lessons(low, ["lapar-c"], 2, CPU, kept=tmp_path)
        first = next(stopped)
        stopped.close()
        assert np.array_equal(np.load(tmp_path / "0.npy"), first)
        np.save(tmp_path / "0.npy", first + 1)  # to be known again
        again = list(lessons(low, ["lapar-c"], 2, CPU, kept=tmp_path))
        assert np.array_equal(again[0], first + 1)
        assert again[1].shape == (2 * low[1].shape[0], 2 * low[1].shape[1], 3)
        assert (tmp_path / "1.npy").exists()

    @pytest.mark.slow
    def test_the_commands_work_together(self, tmp_path, data):
        def run(program, *options):
            command = [sys.executable, "-m", f"srcli.weights.training.{program}", *options]
            return subprocess.run(command, capture_output=True, text=True, check=False)

        file, out = str(tmp_path / "x4.safetensors"), str(tmp_path / "run")
        done = run("teachers", "lapar-c", "-s", "4", "--data", str(data), "--out", file)
        assert done.returncode == 0, done.stderr
        assert re.search(r"(\d+) of \1 pictures", done.stderr)
        assert not list(tmp_path.glob("*.partial"))
        options = ["lapar-c", "-s", "4", "--data", str(data), "--out", out, "--teachers", file]
        options += ["--loss", "psnr", "--patch", "8", "--batch", "2", "--steps", "2"]
        done = run("train", *options, "--taught", "0.9")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "run" / "weights.safetensors").exists()
        assert "go together" in run("train", *options).stderr


class TestRecording:
    """What CUDA graphs need, as far as that shows on a CPU."""

    WAITS_FOR_VALUES = ("_local_scalar_dense", "equal", "nonzero", "lift_fresh", "item")

    @pytest.mark.parametrize("loss", [*LOSSES, "taught"])
    @pytest.mark.parametrize("form", FORMS, ids=lambda form: "".join(form.values()))
    def test_nothing_in_a_step_waits_for_values(self, tmp_path, form, loss):
        high = [torch.rand(1, 3, 16, 16)]
        if loss == "taught":
            loss, high = "psnr", 2 * high
        run = train.Run(recipe(**form, loss=loss, taught=0.9, bf16=True), tmp_path, CPU)
        run.fused.assemble = apply_filters  # in PyTorch, as there
        with Operations() as done:
            run._gradients(torch.rand(1, 3, 8, 8), *high)
        assert len(done.names) > 400
        assert not {name for name in done.names if name.split(".")[1] in self.WAITS_FOR_VALUES}

    def gradients(self, monkeypatch, graph):
        weight = torch.nn.Parameter(torch.ones(2))
        gradients = Gradients(lambda a, b: ((a * weight - b) ** 2).sum(), [weight], recorded=True)
        cuda = {"Stream": MagicMock(), "current_stream": MagicMock(), "stream": MagicMock()}
        for name, value in (cuda | {"CUDAGraph": MagicMock(), "graph": graph}).items():
            monkeypatch.setattr(torch.cuda, name, value)
        return gradients, weight

    def test_a_graph_gets_each_batch(self, monkeypatch):
        gradients, weight = self.gradients(monkeypatch, MagicMock())
        for number in (1.0, 2.0, 3.0):
            batch = torch.full((2,), number), torch.zeros(2)
            gradients(*batch)
            gradients._graph.replay.assert_called()
            # What was recorded would now be done with the memory that it was recorded with.
            loss = gradients._computed(*gradients._batch)
            assert float(loss) == 2 * number**2
            assert weight.grad.tolist() == [2 * number**2] * 2

    def test_without_a_graph_it_goes_on(self, monkeypatch, caplog):
        refused = MagicMock(side_effect=RuntimeError("operation not permitted\nwhile capturing"))
        gradients, weight = self.gradients(monkeypatch, refused)
        for number in (1.0, 2.0):
            loss = gradients(torch.full((2,), number), torch.zeros(2))
            assert float(loss) == 2 * number**2
            assert weight.grad.tolist() == [2 * number**2] * 2
        assert caplog.text.count("no CUDA graph (operation not permitted)") == 1


class Operations(TorchDispatchMode):
    """The names of all operations."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.names.append(str(function))
        return function(*arguments, **(options or {}))


def test_other_scales_start_from_a_sibling(tmp_path):
    from srcli.checkpoints.shipped import find_weights

    sibling = find_weights(get_model("lapar-c"), 2, "upscale")
    run = train.Run(recipe(scale=4), tmp_path, CPU)
    run.start_from(sibling.path)
    body = load_file(sibling.path)["w_conv.body.0.reduction.weight_v"]
    assert torch.equal(run.net.state_dict()["w_conv.body.0.reduction.weight_v"], body)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize(("small", "large"), [("c", "b"), ("b", "a"), ("c", "a")])
def test_a_larger_network_starts_as_its_smaller_sibling(tmp_path, small, large, scale):
    torch.manual_seed(3)
    sibling = get_model(f"lapar-{small}").build(scale)
    save_file(sibling.state_dict(), tmp_path / "small.safetensors")
    task = "denoise" if scale == 1 else "upscale"
    wanted = recipe(model=f"lapar-{large}", scale=scale, task=task)
    run = train.Run(wanted, tmp_path, CPU)
    run.start_from(tmp_path / "small.safetensors")
    picture = torch.rand(1, 3, 13, 11)
    with torch.no_grad():
        torch.testing.assert_close(run.net(picture), sibling(picture), atol=1e-5, rtol=0)
    low, high = ((torch.rand(1, 3, 13 * s, 11 * s) * 255).byte() for s in (1, scale))
    run.update(low, high)
    run.update(low, high)
    channels = sibling.state_dict()["w_conv.head.0.bias"].shape[0]
    old_from_new = run.net.state_dict()["w_conv.body.0.b0.body.0.weight_v"][:channels, channels:]
    assert old_from_new.abs().max() > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_starts_as_what_it_is_given(tmp_path, data, variant):
    from srcli.checkpoints.shipped import find_weights

    file = find_weights(get_model("lapar-c"), 2, "upscale").path
    published = get_model("lapar-c").build(2)
    published.load_state_dict(load_file(file))
    run = train.Run(recipe(variant=variant, learning_rate=1e-3), tmp_path, CPU)
    run.start_from(file)
    picture = torch.rand(1, 3, 9, 10)
    expected = published.fuse()(picture)
    torch.testing.assert_close(run.net.fuse()(picture), expected, atol=1e-5, rtol=0)
    pictures = train.Pictures(data, 2)
    for step in range(3):
        run.update(*pictures.batch(run.recipe, step))
    # Every number has moved, and the fused network computes what is trained.
    before = train._variant(published, run.recipe).state_dict()
    for name, parameter in run.net.named_parameters():
        assert not parameter.requires_grad or not torch.equal(parameter, before[name]), name
    run.save()
    again = train.Run(run.recipe, tmp_path, CPU)
    again.restore()
    torch.testing.assert_close(again.net.fuse()(picture), run.net.fuse()(picture))


@pytest.mark.parametrize("bf16", [False, True])
def test_conditioned_filters_are_saved_as_published_ones(tmp_path, data, bf16):
    wanted = recipe(variant="conditioned", bf16=bf16, average=0, learning_rate=1e-2)
    run = run_for(wanted, tmp_path, data, 3)
    published = get_model("lapar-c").build(2)
    published.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    picture = torch.rand(1, 3, 9, 10)
    trained = torch.func.functional_call(run.fused, run._weights(), (picture,))
    torch.testing.assert_close(published(picture), trained, atol=2e-5, rtol=0)
    again = train.Run(wanted, tmp_path, CPU)
    again.start_from(tmp_path / "weights.safetensors")
    for name, parameter in run.net.named_parameters():
        if parameter.requires_grad:
            given = again.net.get_parameter(name)
            torch.testing.assert_close(given, parameter, atol=2e-5, rtol=2e-5, msg=name)


def test_conditioned_filters_sharpen_nearly_as_easily_as_they_brighten(tmp_path, photograph):
    net = train.Run(recipe(variant="conditioned", scale=4), tmp_path, CPU).net
    low = torch.tensor(reduce(photograph, 4)).permute(2, 0, 1)[None].float() / 255
    picture = net.fuse().enlarge(low)
    brightening = torch.tensor([2.0] * 12 + [1])
    sharpening = torch.tensor([0.0] * 7 + [-1] + [0] * 3 + [-1, 4])

    def change(assemble, direction):
        taps = (direction / direction.norm()).view(1, 13, 1, 1).expand(-1, -1, *picture.shape[2:])
        return float(assemble(picture, taps, 13).square().mean().sqrt())

    plainly, conditioned = (
        change(assemble, brightening) / change(assemble, sharpening)
        for assemble in (apply_filters, net.conditioned(apply_filters))
    )
    assert plainly > 100
    assert conditioned < 20


def test_bfloat16_sees_nearly_the_same_loss(tmp_path, data):
    pictures = train.Pictures(data, 2)
    losses = []
    for bf16 in (False, True):
        run = train.Run(recipe(bf16=bf16), tmp_path, CPU)
        losses.append(float(run.update(*pictures.batch(run.recipe, 0))))
        assert all(p.dtype == torch.float32 for p in run.net.parameters())
    assert losses[0] != losses[1]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_in_bfloat16_pictures_keep_all_their_digits(tmp_path):
    """Only the network's taps are short; filtering with them is what it is in use."""
    run = train.Run(recipe(bf16=True), tmp_path, CPU)
    picture = torch.rand(1, 3, 8, 9)
    expected = run.net.fuse().enlarge(picture)
    taps = torch.rand(1, 13, 16, 18)
    with torch.autocast("cpu", torch.bfloat16):
        found = run.fused.enlarge(picture)
        filtered = run.fused.assemble(found, taps, 13)
    assert torch.equal(found, expected)
    torch.testing.assert_close(filtered, apply_filters(expected, taps, 13))


@pytest.mark.parametrize(("model", "last"), [("lapar-c", "taps"), ("awsrn-sd", "tail")])
def test_in_bfloat16_the_last_biases_keep_all_their_digits(tmp_path, model, last):
    """Rounded, they would put every pixel off by the same, which the network then makes up for."""
    convolution = getattr(train.Run(recipe(model=model, bf16=True), tmp_path, CPU).fused, last)
    convolution.weight.zero_()
    convolution.bias.uniform_(0.9, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = convolution(torch.rand(1, convolution.weight.shape[1], 4, 5))
    assert torch.equal(found, convolution.bias.view(1, -1, 1, 1).expand_as(found))


def test_in_bfloat16_awsrn_adds_to_a_picture_with_all_its_digits(tmp_path):
    run = train.Run(recipe(model="awsrn-sd", bf16=True), tmp_path, CPU)
    picture = torch.rand(1, 3, 8, 9)
    with torch.autocast("cpu", torch.bfloat16):
        found = run.fused.skip(picture)
    assert torch.equal(found, run.net.fuse().skip(picture))


def test_weights_that_fit_nowhere_are_refused(tmp_path):
    save_file({"other": torch.zeros(3)}, tmp_path / "other.safetensors")
    run = train.Run(recipe(), tmp_path, CPU)
    with pytest.raises(SystemExit, match="no tensor in it fits lapar-c"):
        run.start_from(tmp_path / "other.safetensors")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"model": "hpinet-s"}, "hpinet-s: this recipe trains LAPAR and AWSRN only"),
        (
            {"model": "awsrn-sd", "variant": "conditioned"},
            "--variant conditioned: only LAPAR models have it",
        ),
    ],
)
def test_what_it_cannot_train_is_refused(tmp_path, changes, problem):
    with pytest.raises(SystemExit, match=problem):
        train.Run(recipe(**changes), tmp_path, CPU)


def test_rate_rises_and_falls():
    wanted = recipe(learning_rate=1.0, warmup=0.1)
    rates = [wanted.rate(progress / 100) for progress in range(101)]
    assert rates[0] == 0
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_the_command_leaves_weights_and_a_log(tmp_path, data):
    command = [
        sys.executable,
        "-m",
        "srcli.weights.training.train",
        "lapar-c",
        "-s",
        "2",
        "--steps",
        "2",
    ]
    options = ["--data", data, "--out", tmp_path / "run", "--batch", "1", "--patch", "8"]
    done = subprocess.run([*command, *map(str, options)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"checkpoint.pt", "weights.safetensors", "log.csv"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_is_saved_and_goes_on(tmp_path, data, number):
    uninterrupted = run_for(recipe(), tmp_path / "whole", data, 6)
    pictures = train.Pictures(data, 2)

    def until_the_fourth():
        for step in range(4):
            if step == 3:
                signal.raise_signal(number)
            yield pictures.batch(recipe(), step)

    run = run_for(recipe(), tmp_path / "parted", data, 0)
    before = signal.getsignal(number)
    with pytest.raises(SystemExit) as left:
        train.train(run, until_the_fourth(), None, every=9)
    assert left.value.code == 128 + number
    assert signal.getsignal(number) == before
    resumed = run_for(recipe(), tmp_path / "parted", data, 6)
    for name, value in uninterrupted.net.state_dict().items():
        assert torch.equal(resumed.net.state_dict()[name], value), name


def test_logs_are_drawn(tmp_path):
    plot = importlib.import_module("srcli.weights.training.plot")
    run = tmp_path / "run"
    run.mkdir()
    with pytest.raises(SystemExit, match="is no log"):
        plot.draw([run], tmp_path / "psnr.png")
    rows = ["step,minutes,rate,loss,psnr", "10,0.5,1e-3,0.1,36.5", "20,1.0,5e-4,0.1,36.75"]
    (run / "log.csv").write_text("\n".join(rows))
    assert plot.read_log(run) == ([10, 20], [36.5, 36.75])
    plot.draw([run], tmp_path / "psnr.png")
    with Image.open(tmp_path / "psnr.png") as drawn:
        assert drawn.width > 500
