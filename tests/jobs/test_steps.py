"""Which networks a picture goes through: chosen by its file, by an option, or by both."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

import srcli as api
from srcli.checkpoints.shipped import photo_limits, shipped_weights
from srcli.errors import UsageError, WeightsError
from srcli.images import read
from srcli.images.picture import Metadata
from srcli.jobs import steps
from srcli.jobs.steps import Rules, Step, rules_for, steps_before
from srcli.loading.restorer import open_restorer
from srcli.models.registry import get_model

LIMIT = photo_limits(get_model("lapar-c"))[2]
PHOTO, CLEAN = "weights for photographs", "weights for clean pictures"


@pytest.fixture
def mixed(tmp_path, photograph):
    """Files of one picture, by the kind of weights that should enlarge each by 2."""
    picture = Image.fromarray(photograph[:40, :56])
    folder = tmp_path / "mixed"
    folder.mkdir()
    picture.save(folder / "a.png")
    picture.save(folder / "b.jpg", quality=40)
    picture.save(folder / "c.jpg", quality=LIMIT)
    picture.save(folder / "d.jpg", quality=LIMIT + 1)
    picture.save(folder / "e.webp", lossless=True)
    picture.save(folder / "f.webp", quality=80)
    picture.save(folder / "g.tif", compression="jpeg", quality=60)
    picture.save(folder / "h.tif")
    picture.save(folder / "i.avif", quality=70)
    return folder


PHOTOGRAPHS = {"b.jpg", "c.jpg", "f.webp", "g.tif", "i.avif"}


def labels(rows):
    return {row["input"].rpartition("/")[2]: row["steps"] for row in rows}


class TestRules:
    rules = Rules(photo={2: 90})
    png = Metadata(format="png")

    @pytest.mark.parametrize(
        ("metadata", "kind"),
        [
            (Metadata(), "clean"),
            (Metadata(lossless=False), "photo"),
            (Metadata(lossless=False, quality=90), "photo"),
            (Metadata(lossless=False, quality=91), "clean"),
        ],
    )
    def test_auto_goes_by_the_file(self, metadata, kind):
        assert self.rules.steps([2], metadata) == (Step(scale=2, kind=kind),)
        assert bool(self.rules.notes("x", [2], metadata, ())) != metadata.lossless

    @pytest.mark.parametrize("kind", ["clean", "photo"])
    def test_an_option_goes_before_the_file(self, kind):
        rules = Rules(input=kind, photo={2: 90})
        for metadata in (Metadata(), Metadata(lossless=False, quality=10)):
            assert rules.steps([2], metadata) == (Step(scale=2, kind=kind),)
            assert rules.notes("x", [2], metadata, ()) == []

    def test_scales_without_such_weights(self):
        bad = Metadata(lossless=False, quality=10)
        assert self.rules.steps([3], bad) == (Step(scale=3),)
        assert self.rules.steps([4, 2], bad) == (Step(scale=4), Step(scale=2))
        assert self.rules.steps([2, 2], bad) == (Step(scale=2, kind="photo"),) * 2
        assert self.rules.notes("x", [3], bad, ()) == []  # of weights of one's own
        assert self.rules.scales((2, 3, 4)) == (2, 3, 4)
        assert Rules(input="photo", photo={2: 90}).scales((2, 3, 4)) == (2,)

    def test_pixels_are_looked_at_where_the_file_does_not_tell(self):
        def otherwise(rules=self.rules, about=self.png, has_alpha=False, bits=8, scale=2):
            return rules.steps_if_jpeg([scale], about, has_alpha=has_alpha, bits=bits)

        assert otherwise() == (Step(scale=2, kind="photo"),)
        for no_choice in (
            otherwise(has_alpha=True),
            otherwise(bits=16),
            otherwise(scale=3),
            otherwise(about=Metadata()),
            otherwise(about=Metadata(format="jpeg", lossless=False, quality=95)),
            otherwise(rules=Rules(input="clean", photo={2: 90})),
            otherwise(rules=Rules()),
        ):
            assert no_choice == ()

    def test_every_file_of_weights_for_photographs_has_its_limit(self):
        for weights in shipped_weights():
            if weights.kind == "photo":
                assert 80 < weights.better_up_to_jpeg <= 100, weights.path.name


def test_a_mixed_folder(srcli, mixed, monkeypatch):
    """Two networks are open at a time, each opened once; each picture is what it is alone."""
    opened = []

    def counted(model, *arguments, **options):
        opened.append(model.label)
        return open_restorer(model, *arguments, **options)

    monkeypatch.setattr("srcli.loading.restorer.open_restorer", counted)
    code, out, err = srcli("upscale", mixed, "-s", 2, "--json")
    assert code == 0, err
    assert sorted(opened) == ["lapar-c x2", "lapar-c x2 (photo)"]
    result = json.loads(out)
    assert set(result["weights_sha256"]) == {"x2", "x2 photo"}
    found = labels(result["files"])
    assert {name for name, steps in found.items() if steps == ["x2 photo"]} == PHOTOGRAPHS
    assert {name for name, steps in found.items() if steps == ["x2"]} == found.keys() - PHOTOGRAPHS
    for name in ("a.png", "b.jpg", "h.tif"):
        kind = "photo" if name in PHOTOGRAPHS else "clean"
        alone = mixed / f"alone-{name}"
        srcli("upscale", mixed / name, "-s", 2, "--input", kind, "-o", alone)
        assert alone.read_bytes() == (mixed.with_name("mixed_x2") / name).read_bytes()


@pytest.fixture
def decoded(tmp_path, photograph):
    """PNG files of a reduced photograph; one of them was a JPEG file before."""
    small = Image.fromarray(photograph).resize((104, 96), Image.Resampling.LANCZOS)
    small.save(tmp_path / "was.jpg", quality=60)
    folder = tmp_path / "decoded"
    folder.mkdir()
    with Image.open(tmp_path / "was.jpg") as jpeg:
        jpeg.load()
        for name in ("b.png", "d.png"):
            jpeg.save(folder / name)
        jpeg.convert("RGBA").save(folder / "e.png")
    small.save(folder / "a.png")
    small.save(folder / "c.png")
    return folder


@pytest.mark.parametrize("more", [(), ("--batch", 9), ("--memory", "40M")])
def test_pixels_tell_that_they_were_jpeg(srcli, decoded, more, monkeypatch):
    if "--memory" in more:  # pictures are read, restored and written in strips
        monkeypatch.setattr("srcli.jobs.groups.IN_MEMORY", 1000)
    code, out, err = srcli("upscale", decoded, "-s", 2, "--json", *more)
    assert code == 0, err
    result = json.loads(out)
    found = labels(result["files"])
    assert {name for name, steps in found.items() if steps == ["x2 photo"]} == {"b.png", "d.png"}
    assert set(result["weights_sha256"]) == {"x2", "x2 photo"}
    assert f"b.png (was in JPEG of quality 60): {PHOTO}" in err
    for name, kind in (("a.png", "clean"), ("b.png", "photo"), ("e.png", "clean")):
        alone = decoded.parent / f"{kind}-{name}"
        srcli("upscale", decoded / name, "-s", 2, "--input", kind, "-o", alone)
        assert (
            read(alone).color.tobytes()
            == read(decoded.parent / "decoded_x2" / name).color.tobytes()
        )
    _, out, _ = srcli("upscale", decoded, "-s", 2, "--json", "--resume", *more)
    assert {row["status"] for row in json.loads(out)["files"]} == {"skipped"}


def test_networks_that_are_not_needed_are_not_opened(srcli, decoded):
    _, out, err = srcli("upscale", decoded / "a.png", decoded / "c.png", "-s", 2, "--json")
    assert set(json.loads(out)["weights_sha256"]) == {"x2"}
    assert "photo" not in err


def test_what_was_chosen_is_said(srcli, mixed):
    _, _, err = srcli("upscale", mixed / "b.jpg", "-s", 2)
    assert f"b.jpg (JPEG of quality 40): {PHOTO}" in err
    assert "lapar-c x2 (photo) with" in err
    assert (
        f"d.jpg (JPEG of quality {LIMIT + 1}): {CLEAN}"
        in srcli("upscale", mixed / "d.jpg", "-s", 2, "--dry-run")[2]
    )
    assert f"f.webp (WEBP with loss): {PHOTO}" in srcli("upscale", mixed / "f.webp", "-s", 2)[2]
    assert "weights for" not in srcli("upscale", mixed / "a.png", "-s", 2)[2]


@pytest.mark.parametrize(
    ("more", "where"),
    [
        (("-s", 3), "lapar-c has none for photographs at x3; --input photo takes those at x2, x4"),
        (("-s", 2.5), "lapar-c has none for photographs at x3; --input photo takes"),
        (("-s", 2, "-m", "awsrn-sd"), "awsrn-sd has none for photographs"),
    ],
)
def test_where_there_are_no_such_weights_it_is_said(srcli, mixed, monkeypatch, more, where):
    def lacking(spec):
        return {scale: limit for scale, limit in photo_limits(spec).items() if scale != 3}

    monkeypatch.setattr(steps, "photo_limits", lacking)
    code, out, err = srcli("upscale", mixed / "b.jpg", mixed / "f.webp", *more, "--json")
    assert code == 0, err
    for row in json.loads(out)["files"]:
        assert not any("photo" in step for step in row["steps"])
        assert [note for note in row["notes"] if f"{CLEAN}, as {where}" in note]
    assert f"b.jpg (JPEG of quality 40): {CLEAN}, as {where}" in err
    for name, option in (("a.png", "auto"), ("d.jpg", "auto"), ("b.jpg", "clean")):
        words = ("--input", option, "--dry-run", "--overwrite")
        assert "photographs" not in srcli("upscale", mixed / name, *more, *words)[2], name


def test_resuming_knows_which_weights_made_a_picture(srcli, mixed):
    def statuses(*more):
        rows = json.loads(srcli("upscale", mixed, "-s", 2, "--json", *more)[1])["files"]
        return {row["input"].rpartition("/")[2]: row["status"] for row in rows}

    assert set(statuses().values()) == {"done"}
    assert set(statuses("--resume").values()) == {"skipped"}
    again = statuses("--resume", "--input", "clean")
    done = {name for name, status in again.items() if status == "done"}
    assert done >= PHOTOGRAPHS  # and those whose pixels were looked at
    assert again["d.jpg"] == "skipped"


def test_pictures_that_go_together_have_the_same_steps(srcli, mixed):
    code, out, err = srcli("upscale", mixed, "-s", 2, "--batch", 9, "--json")
    assert code == 0, err
    found = labels(json.loads(out)["files"])
    assert {name for name, steps in found.items() if steps == ["x2 photo"]} == PHOTOGRAPHS


def test_photographs_by_larger_factors_take_several_passes(srcli, mixed):
    _, out, err = srcli("upscale", mixed / "a.png", "-s", 8, "--input", "photo", "--json")
    assert json.loads(out)["files"][0]["steps"] == ["x4 photo", "x2 photo"]
    assert "enlarged by 4, then by 2" in err


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_models_without_weights_for_photographs(srcli, mixed, more):
    """The error says which models and scales have them."""
    options = ("-s", 2, "-m", "awsrn-sd", "--input", "photo")
    code, _, err = srcli("upscale", mixed / "a.png", *options, *more)
    assert code == 3
    assert "awsrn-sd to upscale photographs" in err
    for weights in shipped_weights():
        assert weights.kind != "photo" or f"{weights.model} x{weights.scale}" in err
    with pytest.raises(WeightsError, match="lapar-c x2"):
        api.load("awsrn-sd", 2, input="photo")


def test_eval_needs_the_scale_itself(srcli, mixed):
    code, _, err = srcli("eval", "-m", "lapar-b", "-s", 3, "--input", "photo", mixed)
    assert code == 3
    assert "photographs by 3" in err
    assert "lapar-c x2" in err


def test_weights_of_ones_own_are_of_one_kind(srcli, mixed):
    own = next(w.path for w in shipped_weights() if (w.model, w.scale) == ("lapar-c", 2))
    options = ("-s", 2, "--weights", own, "--json")
    for kind in ("auto", "photo"):
        _, out, _ = srcli("upscale", mixed / "b.jpg", *options, "--input", kind, "--overwrite")
        assert json.loads(out)["files"][0]["steps"] == ["x2"]


def test_traces_from_python(decoded, tmp_path):
    was, never = read(decoded / "b.png"), read(decoded / "a.png")
    with api.load("lapar-c", 2) as auto, api.load("lapar-c", 2, input="photo") as photo:
        np.testing.assert_array_equal(auto.picture(was).color, photo(was.color))
        assert (auto.picture(never).color != photo(never.color)).any()
        assert (auto(was.color) != photo(was.color)).any()  # an array is taken to be clean
        made = read(auto.file(decoded / "b.png", tmp_path / "made.png"))
        np.testing.assert_array_equal(made.color, photo(was.color))


def test_from_python(mixed, tmp_path):
    pixels = read(mixed / "b.jpg")
    with (
        api.load("lapar-c", 2) as auto,
        api.load("lapar-c", 2, input="photo") as photo,
        api.load("lapar-c", 2, input="clean") as clean,
    ):
        np.testing.assert_array_equal(auto(pixels.color), clean(pixels.color))
        np.testing.assert_array_equal(auto.picture(pixels).color, photo(pixels.color))
        assert (photo(pixels.color) != clean(pixels.color)).any()
        made = [
            network.file(mixed / "b.jpg", tmp_path / f"{name}.png").read_bytes()
            for name, network in (("auto", auto), ("photo", photo), ("clean", clean))
        ]
    assert made[0] == made[1] != made[2]
    with api.load("lapar-c", 4, input="photo") as network:
        assert network(pixels.color).shape == (160, 224, 3)


class TestBefore:
    def test_the_model_itself_where_it_has_weights(self):
        assert [s.model for s in steps_before("lapar-a", ["denoise"])] == ["lapar-a"]
        assert [s.model for s in steps_before("lapar-a", ["deblock"])] == ["lapar-a"]
        assert [s.model for s in steps_before("lapar-b", ["deblock"])] == ["lapar-c"]
        assert [s.model for s in steps_before("awsrn-sd", ["denoise"])] == ["lapar-c"]

    def test_what_happened_last_is_undone_first(self):
        steps = steps_before("lapar-c", ["denoise", "deblock"])
        assert [step.label for step in steps] == ["lapar-c deblock", "lapar-c denoise"]

    def test_restoring_goes_before_enlarging_only(self):
        with pytest.raises(UsageError, match="before enlarging"):
            rules_for(
                get_model("lapar-c"), "denoise", "auto", own_weights=False, before=["deblock"]
            )


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (["--deblock"], ["lapar-c deblock", "x2 photo"]),
        (["--denoise", "--deblock"], ["lapar-c deblock", "lapar-c denoise", "x2 photo"]),
        (["--denoise", "-m", "lapar-a"], ["lapar-a denoise", "x2 photo"]),
        (["--deblock", "-m", "awsrn-sd"], ["lapar-c deblock", "x2"]),
    ],
)
def test_chains(srcli, mixed, options, steps):
    code, out, err = srcli("upscale", mixed / "b.jpg", "-s", 2, "--json", *options)
    assert code == 0, err
    result = json.loads(out)
    assert result["files"][0]["steps"] == steps
    assert set(result["weights_sha256"]) == set(steps)
    for step in steps[:-1]:
        assert f"{step} with " in err


def test_a_chain_is_one_command_after_the_other_in_16_bits(srcli, mixed, tmp_path):
    """Nothing is rounded to 8 bits in between."""
    pixels = read(mixed / "b.jpg").color
    wide = (pixels.astype(np.uint16) * 257).astype(np.uint16)
    between = api.restore(wide, "deblock")
    expected = api.upscale(between, "lapar-c", 2, input="photo")
    srcli("upscale", mixed / "b.jpg", "-s", 2, "--deblock", "-o", tmp_path / "x.png")
    found = read(tmp_path / "x.png").color.astype(int)
    assert np.abs(found - np.rint(expected / 257)).max() == 0
    with api.load("lapar-c", 2, input="photo", deblock=True) as network:
        np.testing.assert_array_equal(network(pixels), found)


def test_a_chain_keeps_transparency(srcli, decoded):
    code, _, err = srcli("upscale", decoded / "e.png", "-s", 2, "--deblock", "--denoise")
    assert code == 0, err
    made = read(decoded / "e_x2.png")
    assert made.alpha is not None
    assert made.alpha.min() == 255


def test_a_chain_in_strips(srcli, mixed, monkeypatch, tmp_path):
    options = ("-s", 2, "--deblock", "--tile", 16)
    srcli("upscale", mixed / "b.jpg", *options, "-o", tmp_path / "whole.png")
    monkeypatch.setattr("srcli.jobs.groups.IN_MEMORY", 1000)
    code, _, err = srcli("upscale", mixed / "b.jpg", *options, "-o", tmp_path / "strips.png")
    assert code == 0, err
    assert (tmp_path / "whole.png").read_bytes() == (tmp_path / "strips.png").read_bytes()


def save_twice(file):
    """Write an ONNX file that doubles each pixel."""
    node = helper.make_node(
        "Resize", ["x", "", "scales"], ["y"], mode="nearest",
        coordinate_transformation_mode="asymmetric", nearest_mode="floor",
    )  # fmt: skip
    sides = ["n", 3, "h", "w"], ["n", 3, "2h", "2w"]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in zip("xy", sides, strict=True)
    ]
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")
    graph = helper.make_graph([node], "twice", values[:1], values[1:], [scales])
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), file)


def test_a_chain_before_another_network(srcli, mixed, tmp_path):
    save_twice(tmp_path / "twice.onnx")
    options = ("--model-file", tmp_path / "twice.onnx", "--deblock", "--json")
    code, out, err = srcli("upscale", mixed / "b.jpg", *options)
    assert code == 0, err
    assert json.loads(out)["files"][0]["steps"] == ["lapar-c deblock", "x2"]
    with api.load(model_file=tmp_path / "twice.onnx", denoise=True) as opened:
        assert opened(read(mixed / "b.jpg").color).shape == (80, 112, 3)


def test_weights_of_ones_own_are_not_for_what_goes_before(srcli, mixed):
    own = next(w.path for w in shipped_weights() if (w.model, w.scale) == ("lapar-c", 2))
    _, out, _ = srcli("upscale", mixed / "b.jpg", "-s", 2, "--weights", own, "--deblock", "--json")
    assert json.loads(out)["files"][0]["steps"] == ["lapar-c deblock", "x2"]


def test_every_step_is_checked(srcli, mixed):
    code, out, err = srcli("upscale", mixed / "b.jpg", "-s", 2, "--check", "--denoise", "--json")
    assert code == 0, err
    said = {row["comparison"].partition(":")[0] for row in json.loads(out)}
    assert said == {"lapar-c denoise", "lapar-c x2 (photo)"}
