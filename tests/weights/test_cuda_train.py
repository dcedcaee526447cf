"""Training on a device, by the same code on the CPU at tiny sizes."""

from __future__ import annotations

import importlib
import math
import tarfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.training_data import CPU, NoReads, step_of, write_pictures

from srcli.loading.model import load
from srcli.models.registry import MODELS as SPECS
from srcli.models.registry import get_model
from srcli.weights.training.any_scale import LEVELS, AnyScaleObjective
from srcli.weights.training.blind import small_kernel
from srcli.weights.training.damage import applied, gaussian_rows
from srcli.weights.training.draws import Draws
from srcli.weights.training.objectives import objective
from srcli.weights.training.orthogonal import is_matrix, orthogonalised
from srcli.weights.training.packed import read
from srcli.weights.training.patches import Store
from srcli.weights.training.settings import FAMILIES, family, recipe
from srcli.weights.training.starts import begin_from, siblings, start
from srcli.weights.training.stepping import WARM_UP, Stepper

cuda_train = importlib.import_module("srcli.weights.training.cuda_train")
tokens = importlib.import_module("srcli.weights.training.tokens")
SMALL = {"batch": 2, "patch": 24, "bf16": False}
# The smallest of each family, at a scale; `asdn` has one network for all.
MODELS = [
    ("lapar-c", 3),
    ("awsrn-sd", 2),
    ("hpinet-s", 3),
    ("asdn-base", 2),
    ("fsdn-base", 2),
    ("dcls-iso", 2),
]
IDS = [name for name, _ in MODELS]


def tiny(name):
    """One patch, for what takes several steps; HPINet's blocks want larger ones."""
    return {"batch": 1, "patch": 24 if family(name) == "hpinet" else 16}


@pytest.fixture(scope="module")
def data(tmp_path_factory, photograph):
    return write_pictures(tmp_path_factory.mktemp("data"), photograph)


@pytest.fixture(scope="module")
def store(data):
    return Store(read(data, 1), CPU, shrink=(1.0,))


def stepper(name, scale, store, device=CPU, *, recorded=False, **changes):
    torch.manual_seed(0)
    net = get_model(name).build(scale)
    start(net)
    net.to(device)
    wanted = recipe(name, scale, **(SMALL | changes))
    aim = objective(net, wanted, store, device)
    return net, Stepper(net, aim, wanted, recorded=recorded)


@pytest.mark.parametrize("damage", ["loss", "gradient"])
def test_a_batch_that_makes_no_number_adds_nothing(store, damage):
    """DCLS divides by next to nothing now and then; a step back would meet the same batch again."""
    net, training = stepper("awsrn-sd", 2, store)
    aim, calls = training._objective, iter([False, True, False])
    given = []

    def now_and_then(draws, kind):
        loss = aim(draws, kind)
        given.append(float(loss.detach()))
        if not next(calls):
            return loss
        # The root of zero has a value, and no gradient.
        return loss * math.nan if damage == "loss" else loss + (0 * loss).sqrt()

    now_and_then.order = aim.order
    training._objective = now_and_then
    training.advance(1e-3)
    training.mean_loss()
    norm = training._norm.clone()
    training.advance(1e-3)
    assert math.isnan(training.mean_loss())
    assert torch.equal(training._norm, norm)
    training.advance(1e-3)
    assert training.mean_loss() == pytest.approx(given[2])
    assert all(torch.isfinite(value).all() for value in net.state_dict().values())


def test_every_family_of_the_registry_is_in_the_table():
    assert {family(spec.name) for spec in SPECS} == set(FAMILIES)


class TestSteps:
    @pytest.mark.parametrize(("name", "scale"), MODELS, ids=IDS)
    def test_the_loss_falls_on_a_fixed_batch(self, store, name, scale):
        _, own = stepper(name, scale, store, **tiny(name))
        losses = []
        for _ in range(4):
            own.step = 0  # the same numbers are drawn again
            own._count.zero_()
            own.advance(1e-5)
            losses.append(own.mean_loss())
        assert all(math.isfinite(loss) for loss in losses)
        assert losses[-1] < losses[0]

    @pytest.mark.parametrize(("name", "scale"), MODELS, ids=IDS)
    def test_nothing_is_read_by_the_host(self, store, name, scale):
        _, own = stepper(name, scale, store, **tiny(name))
        with NoReads():
            for kind in set(own._objective.order):
                own._compute(kind)

    @pytest.mark.parametrize(("name", "scale"), MODELS, ids=IDS)
    def test_all_of_a_step_is_on_one_device(self, monkeypatch, photograph, name, scale):
        """On one that has shapes and no values: no constant lies elsewhere, and none is read."""
        plain = torch.autocast
        monkeypatch.setattr(torch, "autocast", lambda *_, **__: plain("cpu", enabled=False))
        nowhere = torch.device("meta")
        net = get_model(name).build(scale)
        fused = net.fuse()
        monkeypatch.setattr(net, "fuse", lambda: fused, raising=False)  # asks for values, once
        net.to(nowhere)
        wanted = recipe(name, scale, **SMALL)
        aim = objective(net, wanted, Store([photograph], nowhere), nowhere)
        own = Stepper(net, aim, wanted, recorded=False)
        for kind in set(aim.order):
            own._compute(kind)
        assert all(average.is_meta for average in own._state["average"].values())

    def test_reads_would_be_noticed(self):
        with NoReads(), pytest.raises(AssertionError, match="_local_scalar_dense"):
            torch.ones(1).item()

    @pytest.mark.parametrize(("name", "scale"), MODELS, ids=IDS)
    def test_bfloat16_stays_near_float32(self, store, name, scale):
        """Whatever is rounded, the loss of one batch is about the same, and so is the gradient."""
        found = []
        for bf16 in (False, True):
            net, own = stepper(name, scale, store, bf16=bf16, **tiny(name))
            loss = own._objective(Draws(0, step_of(0)), 0)
            loss.backward()
            gradients = [p.grad.flatten() for p in net.parameters() if p.grad is not None]
            found.append((float(loss.detach()), torch.cat(gradients)))
        (exact, gradient), (rough, other) = found
        assert abs(rough - exact) < 0.02 * abs(exact)
        assert float(torch.cosine_similarity(gradient, other, dim=0)) > 0.9

    def test_a_state_is_gone_on_from(self, store):
        _, whole = stepper("awsrn-sd", 2, store)
        for _ in range(6):
            whole.advance(1e-3)
        _, first = stepper("awsrn-sd", 2, store)
        for _ in range(3):
            first.advance(1e-3)
        _, second = stepper("awsrn-sd", 2, store)
        second.restore(first.state(CPU))
        for _ in range(3):
            second.advance(1e-3)
        for name, value in whole.averaged().items():
            assert torch.equal(value, second.averaged()[name]), name

    def test_a_gradient_far_above_those_before_is_held_back(self, store):
        _, own = stepper("awsrn-sd", 2, store)
        own.advance(1e-4)
        usual = float(own._norm)
        gradients = [torch.full((10,), 100 * usual)]
        own._clip(gradients)
        assert float(gradients[0].norm()) == pytest.approx(2 * usual, rel=1e-4)


class TestMuon:
    def test_all_directions_are_moved_alike(self):
        generator = torch.Generator().manual_seed(0)
        shapes = [(8, 40), (40, 8), (8, 4, 3, 3), (8, 40)]
        means = [torch.randn(shape, generator=generator) for shape in shapes]
        means[0][0] *= 100  # one direction of large gradients
        for mean, step in zip(means, orthogonalised(means), strict=True):
            assert step.shape == mean.shape
            values = torch.linalg.svdvals(step.flatten(1)) / (
                0.2 * max(step.flatten(1).shape) ** 0.5
            )
            assert 0.5 < float(values.min()) < float(values.max()) < 1.3
            assert float((step * mean).sum()) > 0
            assert float(step.square().mean().sqrt()) == pytest.approx(0.2, rel=0.25)

    def test_each_place_of_a_kernel_keeps_its_own(self):
        mean = torch.zeros(4, 4, 3, 3)
        for channel in range(4):
            mean[channel, channel, channel % 3, 1] = 1.0 + channel
        (step,) = orthogonalised([mean])
        assert torch.equal(step != 0, mean != 0)

    def test_what_has_one_output_or_none_is_adam_s(self):
        assert is_matrix(torch.zeros(2, 3, 1, 1))
        assert not any(
            is_matrix(torch.zeros(shape)) for shape in [(3,), (1, 5), (5, 1, 1, 1), (99, 4)]
        )


class TestStarts:
    @pytest.mark.parametrize(
        ("name", "scale"), [m for m in MODELS if m[0] != "lapar-c"] + [("dcls-iso", 4)]
    )
    def test_networks_begin_as_plain_enlargement(self, photograph, name, scale):
        torch.manual_seed(0)
        net = get_model(name).build(scale).eval()
        start(net)
        x = torch.from_numpy(photograph[40:88, 40:88].copy()).permute(2, 0, 1)[None] / 255
        size = [48 * scale] * 2
        plain = torch.nn.functional.interpolate(x, size=size, mode="bilinear")
        with torch.no_grad():
            difference = (net(x) - plain)[:, :, 8:-8, 8:-8].square().mean().sqrt()
        assert float(difference) < 0.03  # noise is added, and bicubic differs

    def test_dcls_guesses_a_round_kernel_first(self):
        net = get_model("dcls-iso").build(4)
        start(net)
        with torch.no_grad():
            kernel = net.estimate_kernel(torch.rand(1, 3, 24, 24))[0, 0]
        assert float(kernel.min()) > -0.03
        assert tuple(divmod(int(kernel.argmax()), 21)) == (10, 10)

    def test_what_fits_is_taken_from_another_scale(self, tmp_path):
        four, two = (get_model("hpinet-s").build(scale) for scale in (4, 2))
        save_file(four.state_dict(), tmp_path / "x.safetensors")
        assert 0 < begin_from(two, tmp_path / "x.safetensors") < len(two.state_dict())
        assert torch.equal(two.first_conv.weight, four.first_conv.weight)


@pytest.mark.parametrize("scale", [2, 4])
def test_dcls_is_trained_as_what_it_is(store, scale):
    torch.manual_seed(0)
    net = get_model("dcls-iso").build(scale)
    aim = objective(net, recipe("dcls-iso", scale, **SMALL), store, CPU)
    low = torch.rand(2, 3, 24, 24)
    net.clamped = False
    with torch.no_grad():
        restored, kernel = aim._restored(low)
        torch.testing.assert_close(kernel, net.estimate_kernel(low), atol=1e-4, rtol=1e-3)
        torch.testing.assert_close(restored, net.restore(low, kernel), atol=1e-3, rtol=1e-3)


def test_hpinet_is_trained_as_what_it_is(store):
    torch.manual_seed(0)
    net = get_model("hpinet-s").build(2)
    aim = objective(net, recipe("hpinet-s", 2, **SMALL | {"patch": 33}), store, CPU)
    low = torch.rand(2, 3, 33, 33)
    with torch.no_grad():
        torch.testing.assert_close(aim._form(low), net(low), atol=1e-4, rtol=0)


@pytest.mark.parametrize("length", [24, 25, 47, 48])
@pytest.mark.parametrize("side", [12, 20, 24])
def test_gradients_of_cutting_and_merging_are_those_of_gathers(length, side):
    axis = tokens._axis(length, side, torch.zeros(1))
    x = torch.rand(2, length, 5, 3, requires_grad=True)
    again = x.detach().requires_grad_()
    cut, plain = tokens._cut(x, axis, 1), again.index_select(1, axis.grid.cut)
    weights = torch.rand_like(cut)
    (cut * weights).sum().backward()
    (plain * weights).sum().backward()
    torch.testing.assert_close(x.grad, again.grad)
    y = torch.rand_like(cut, requires_grad=True)
    again = y.detach().requires_grad_()
    merged = tokens._merged(y, axis, 1)
    plain = tokens._sum(again, axis.grid.lines, axis.grid.shares, 1)
    weights = torch.rand_like(merged)
    (merged * weights).sum().backward()
    (plain * weights).sum().backward()
    torch.testing.assert_close(y.grad, again.grad)


def test_the_small_kernel_is_about_the_large_one_reduced(store):
    """Equation 7 on smooth pictures, where subsampling loses nothing: a Gaussian of a quarter."""
    noise = torch.from_numpy(np.random.default_rng(0).normal(128, 40, (4, 3, 340, 340)))
    line = torch.arange(31) - 15
    smooth = torch.exp(-0.5 * (line / 4.0) ** 2).float()
    smooth = (smooth / smooth.sum())[None, None]
    clean = noise.float().flatten(0, 1)[:, None]
    for kernel in (smooth[..., None], smooth[:, :, None]):
        clean = torch.nn.functional.conv2d(clean, kernel)
    clean = clean[:, 0].unflatten(0, (4, 3))
    rows = gaussian_rows(torch.full((4,), 3.2), 64, 4, 10, 21)
    seen = applied(rows, clean[:, :, :276, :276])
    kernel = small_kernel(clean[:, :, 10:266:4, 10:266:4], seen, 21)
    expected = gaussian_rows(torch.tensor([0.8]), 1, 1, 10, 21)[0, 0]
    expected = expected[:, None] * expected
    assert float((kernel[:, 0] - expected).abs().sum((1, 2)).max()) < 0.5
    assert torch.all(kernel.flatten(1).argmax(1) == 220)  # the centre
    torch.testing.assert_close(kernel.sum((1, 2, 3)), torch.ones(4))


def test_levels_of_a_batch_are_what_single_heads_compute(store):
    _, own = stepper("asdn-base", 2, store)
    aim = own._objective
    assert isinstance(aim, AnyScaleObjective)
    enlarged = torch.rand(3, 3, 24, 24)
    level = torch.tensor([0, 4, LEVELS])
    with torch.no_grad():
        together = aim.one_pass(enlarged, level)
        for index, single in enumerate(level.tolist()):
            alone = aim.one_pass(enlarged[index : index + 1], single)
            torch.testing.assert_close(together[index], alone[0], atol=1e-5, rtol=0)


class TestQueue:
    def run(self, data, out, plan, *words):
        common = ["--data", data, "--out", out, "--device", "cpu", "--processes", 1]
        words = ["--plan", plan, *common, *words]
        with pytest.raises(SystemExit) as ended:
            cuda_train.main([str(word) for word in words])
        return ended.value.code

    @pytest.mark.parametrize(("name", "scale"), MODELS, ids=IDS)
    def test_what_is_saved_restores_a_picture(self, tmp_path, data, name, scale, photograph):
        assert self.run(data, tmp_path, f"{name}:x{scale}:60", "--dry", "--steps", 1) == 0
        (folder,) = tmp_path.iterdir()
        model = load(name, scale, weights=folder / "weights.safetensors")
        x = torch.from_numpy(photograph[:40, :40].copy()).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            restored = model.network()(x)
        assert restored.shape == (1, 3, 40 * scale, 40 * scale)
        assert torch.isfinite(restored).all()

    def test_resuming_gives_the_same_weights(self, tmp_path, data):
        words = ("--batch", 2, "--patch", 24)
        plan = "awsrn-sd:x2:60"
        assert self.run(data, tmp_path / "whole", plan, *words, "--steps", 6) == 0
        torch.manual_seed(5)
        session = cuda_train.Session(
            Store(read(data, 1), CPU), tmp_path / "halves", CPU, False, 6, changes=SMALL
        )
        half = cuda_train.Training(cuda_train.plan(plan)[0], session)
        for _ in range(3):
            half.stepper.advance(half._rate())
        half.save()
        half._finish_writing()
        assert self.run(data, tmp_path / "halves", plan, *words, "--steps", 6) == 0
        whole, halves = (
            load_file(tmp_path / part / "awsrn-sd-x2" / "weights.safetensors")
            for part in ("whole", "halves")
        )
        for name, value in whole.items():
            assert torch.equal(value, halves[name]), name

    def test_a_device_that_is_lost_is_taken_anew_for_the_rest(self, tmp_path, data, monkeypatch):
        def lost(training, began):
            raise RuntimeError("an illegal memory access was encountered")

        begun = []
        monkeypatch.setattr(cuda_train.Training, "run", lost)
        monkeypatch.setattr(cuda_train, "_works", lambda device: False)
        monkeypatch.setattr(cuda_train.os, "execv", lambda file, words: begun.append(words))
        assert self.run(data, tmp_path, "awsrn-s:x2:9,awsrn-sd:x2:9,asdn-base:any:5", "--dry") == 1
        (first, second, *_) = begun
        assert first[-2:] == ["--plan", "awsrn-sd:x2:9,asdn-base:any:5"]
        assert second[-1] == "asdn-base:any:5"
        assert cuda_train._arguments(first[3:]).plan == cuda_train.plan(first[-1])

    def test_one_that_fails_leaves_its_place_to_the_next(self, tmp_path, data, monkeypatch):
        broken = cuda_train.Training._begin

        def begin(training):
            if training.item.model == "awsrn-s":
                raise RuntimeError("out of something")
            broken(training)

        monkeypatch.setattr(cuda_train.Training, "_begin", begin)
        assert self.run(data, tmp_path, "awsrn-s:x2:9,awsrn-sd:x2:9", "--dry") == 1
        assert not (tmp_path / "awsrn-s-x2" / "weights.safetensors").exists()
        assert (tmp_path / "awsrn-sd-x2" / "weights.safetensors").exists()

    def test_no_number_goes_back_to_the_last_good_state_at_half_the_rate(self, tmp_path, data):
        session = cuda_train.Session(
            Store(read(data, 1), CPU), tmp_path, CPU, False, 9, changes=SMALL
        )
        training = cuda_train.Training(cuda_train.plan("awsrn-sd:x2:60")[0], session)
        training.stepper.advance(1e-3)
        training.save()
        good = training.stepper.averaged()
        with torch.no_grad():
            next(training.net.parameters()).fill_(math.nan)
        training.stepper.advance(1e-3)
        training._report(1, 1.0)
        assert training.factor == 0.5
        assert training.stepper.step == 1
        for name, value in training.stepper.averaged().items():
            assert torch.equal(value, good[name])
        training.stepper.advance(1e-3)
        assert math.isfinite(training.stepper.mean_loss())

    def test_a_plan_is_read_and_written(self):
        text = "asdn-base:any:150,dcls-iso:x4:90.5,lapar-a@photo:x2:40,lapar-c@deblock:x1:9"
        items = cuda_train.plan(text)
        assert ",".join(map(str, items)) == text
        names = ["asdn-base", "dcls-iso-x4", "lapar-a-photo-x2", "lapar-c-deblock"]
        assert [item.name for item in items] == names

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("awsrn-sd", "is not like hpinet-s:x4:90"),
            ("awsrn-xs:x4:3", "no model is called 'awsrn-xs'"),
            ("hpinet-s@denoise:x1:3", "hpinet-s cannot denoise"),
            ("awsrn-sd:x8:3", "has the scales x2, x3, x4"),
            ("awsrn-sd:any:3", "has the scales x2, x3, x4"),
        ],
    )
    def test_a_plan_that_cannot_be_read_is_explained(self, text, told):
        with pytest.raises(SystemExit, match=told):
            cuda_train.plan(text)

    def test_the_rate_follows_the_clock_to_zero(self, tmp_path, data):
        session = cuda_train.Session(
            Store(read(data, 1), CPU), tmp_path, CPU, False, None, changes=SMALL
        )
        training = cuda_train.Training(cuda_train.plan("awsrn-sd:x2:100")[0], session)
        training.stepper.step = 1000
        rates = []
        for seconds in (10, 50, 98, 98.6):
            training.seconds = seconds
            rates.append(training._rate())
        assert rates[0] > rates[1] > rates[2] > rates[3] == pytest.approx(0, abs=1e-9)

    @pytest.mark.parametrize(("purpose", "scale"), [("photo", 2), ("denoise", 1), ("deblock", 1)])
    def test_the_queue_trains_for_it(self, tmp_path, data, purpose, scale):
        words = ["--plan", f"lapar-c@{purpose}:x{scale}:9", "--data", data, "--out", tmp_path]
        with pytest.raises(SystemExit) as ended:
            cuda_train.main([str(w) for w in [*words, "--device", "cpu", "--dry"]])
        assert ended.value.code == 0
        name = f"lapar-c-{purpose}" + ("-x2" if scale == 2 else "")
        assert (tmp_path / name / "weights.safetensors").exists()


def test_what_is_brought_is_whole_and_halved_where_large(tmp_path, monkeypatch):
    from srcli.weights.training import bring

    monkeypatch.setattr(bring, "LARGE", 100_000)
    for name, size in (("small", 100), ("large", 50_000)):
        (tmp_path / "runs" / name).mkdir(parents=True)
        save_file({"x": torch.rand(size)}, tmp_path / "runs" / name / "weights.safetensors")
    target = tmp_path / "target"
    bring.bring(tmp_path / "runs", target, maximum=10_000)
    pieces = bring.bring(tmp_path / "runs", target, maximum=50_000)
    assert sorted(target.iterdir()) == sorted(pieces)
    assert all(piece.stat().st_size <= 50_000 for piece in pieces)
    joined = tmp_path / "joined.tar"
    joined.write_bytes(b"".join(piece.read_bytes() for piece in pieces))
    with tarfile.open(joined) as archive:
        archive.extractall(tmp_path / "back", filter="data")
    for name, kind in (("small", torch.float32), ("large", torch.float16)):
        file = tmp_path / "back" / name / "weights.safetensors"
        original = load_file(tmp_path / "runs" / name / "weights.safetensors")["x"]
        assert torch.equal(load_file(file)["x"], original.to(kind))


def test_the_nearest_weights_are_begun_with(tmp_path):
    for name in ("lapar-c-x2", "lapar-c-x4", "lapar-c-photo-x2"):
        (tmp_path / f"{name}.safetensors").touch()
    (tmp_path / "lapar-c-x4").mkdir()
    (tmp_path / "lapar-c-x4" / "weights.safetensors").touch()

    def found(purpose, scale):
        files = siblings("lapar-c", purpose, scale, [tmp_path])
        return [str(file.relative_to(tmp_path)) for file in files]

    four = ["lapar-c-x4/weights.safetensors", "lapar-c-x4.safetensors"]
    assert found("photo", 2) == ["lapar-c-photo-x2.safetensors", "lapar-c-x2.safetensors", *four]
    assert found("clean", 4) == [*four, "lapar-c-x2.safetensors"]
    assert found("deblock", 1) == ["lapar-c-x2.safetensors", *four]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnCuda:
    GPU = torch.device("cuda")

    @pytest.fixture(scope="class")
    def pictures(self, data):
        return Store(read(data, 1), self.GPU, shrink=(1.0,))

    @pytest.mark.parametrize(("name", "scale"), MODELS, ids=IDS)
    def test_recorded_steps_are_what_others_are(self, pictures, name, scale):
        """To within what the order of additions changes, which steps enlarge."""
        losses = []
        for recorded in (False, True):
            _, own = stepper(name, scale, pictures, self.GPU, recorded=recorded, bf16=True)
            order = own._objective.order
            for _ in range((WARM_UP + 1) * len(order)):
                own.advance(1e-5)
            own.mean_loss()
            assert set(own._graphs) == (set(order) if recorded else set())
            for _ in order:
                own.advance(1e-5)
            losses.append(own.mean_loss())
        assert losses[0] == pytest.approx(losses[1], rel=0.02)

    def test_a_gpu_cuts_what_a_processor_cuts(self, pictures, store):
        here, there = (
            s.patches(Draws(3, torch.tensor(5, device=s.pixels.device)), 4, 24, around=3, tries=2)
            for s in (store, pictures)
        )
        assert torch.equal(here, there.cpu())

    def test_a_processor_goes_on_where_a_gpu_ended(self, pictures, store):
        _, first = stepper("hpinet-s", 2, pictures, self.GPU, recorded=True)
        for _ in range(6):
            first.advance(1e-4)
        _, second = stepper("hpinet-s", 2, store)
        second.restore(first.state(CPU))
        second.advance(1e-4)
        assert second.step == 7
        assert math.isfinite(second.mean_loss())
