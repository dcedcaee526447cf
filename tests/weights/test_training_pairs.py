"""Training pictures on a device, and what is made of them there, at tiny sizes."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from support.training_data import CPU, NoReads, step_of, write_pictures

from srcli.pipeline.resample import reduce, resize
from srcli.quality.degradations import blur, compress, gaussian, reduced
from srcli.weights.training.damage import (
    applied,
    enlargement,
    gaussian_rows,
    reduction,
    resizing,
    rounded,
)
from srcli.weights.training.draws import Draws
from srcli.weights.training.jpeg import KINDS, Jpeg
from srcli.weights.training.packed import pack, read
from srcli.weights.training.patches import Store
from srcli.weights.training.photo import FILTERS, Blocked, Noisy, Photographed, _filter, blurred
from srcli.weights.training.settings import recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory, photograph):
    return write_pictures(tmp_path_factory.mktemp("data"), photograph)


@pytest.fixture(scope="module")
def store(data):
    return Store(read(data, 1), CPU, shrink=(1.0,))


class TestDraws:
    def test_they_depend_on_seed_step_and_place_only(self):
        first = Draws(3, step_of(7)).uniform(5)
        assert torch.equal(first, Draws(3, step_of(7)).uniform(5))
        again = Draws(3, step_of(7))
        again.uniform(2)
        others = (Draws(4, step_of(7)), Draws(3, step_of(8)), again)
        assert all(not torch.equal(first, other.uniform(5)) for other in others)

    def test_they_are_spread_evenly_and_independent(self):
        drawn = torch.stack([Draws(0, step_of(step)).uniform(64) for step in range(512)])
        assert 0 <= float(drawn.min()) < 1e-3
        assert 1 - 1e-3 < float(drawn.max()) < 1
        counts = torch.histc(drawn, 16, 0, 1) / drawn.numel() * 16
        assert float((counts - 1).abs().max()) < 0.1
        for pair in ((drawn[1:], drawn[:-1]), (drawn[:, 1:], drawn[:, :-1])):
            both = torch.stack([part.flatten() for part in pair])
            assert abs(float(torch.corrcoef(both)[0, 1])) < 0.03

    def test_normal_ones(self):
        drawn = Draws(1, step_of(2)).normal(20_000)
        assert abs(float(drawn.mean())) < 0.03
        assert abs(float(drawn.std()) - 1) < 0.02
        assert abs(float((drawn.abs() < 1).float().mean()) - 0.683) < 0.02

    def test_choices_follow_their_shares(self):
        chosen = Draws(1, step_of(2)).chosen(torch.tensor([1.0, 0.0, 3.0]), 20_000)
        counts = torch.bincount(chosen, minlength=3) / len(chosen)
        torch.testing.assert_close(counts, torch.tensor([0.25, 0, 0.75]), atol=0.02, rtol=0)


class TestPacked:
    def test_parts_hold_all_pictures_and_none_is_too_large(self, tmp_path, photograph):
        folder, out = tmp_path / "pictures", tmp_path / "parts"
        (folder / "inner").mkdir(parents=True)
        for index in range(7):
            turned = np.rot90(photograph, index % 4)[: 100 + index]
            Image.fromarray(turned).save(folder / "inner" / f"{index}.png")
        maximum = 130_000
        parts = pack(folder, out, maximum)
        assert len(parts) > 2
        assert all(part.stat().st_size <= maximum for part in parts)
        whole = read(folder, 1)
        for ours, theirs in zip(whole, read(out, 1), strict=True):
            assert np.array_equal(ours, theirs)
        parts[0].unlink()
        assert 0 < len(read(out, 1)) < len(whole)

    def test_processes_decode_what_is_decoded_here(self, data):
        for ours, theirs in zip(read(data, 1), read(data, 2), strict=True):
            assert np.array_equal(ours, theirs)

    def test_what_is_missing_or_damaged_is_named(self, tmp_path, data):
        with pytest.raises(SystemExit, match="no lossless pictures"):
            read(tmp_path, 1)
        part = pack(data, tmp_path, 1 << 20)[0]
        part.write_bytes(part.read_bytes()[:1000])
        with pytest.raises(SystemExit, match=r"pictures-0\.tar"):
            read(tmp_path, 1)
        with tarfile.open(part, "w") as archive:
            broken = tmp_path / "x"
            broken.write_bytes(b"no picture")
            archive.add(broken, "x.png")
        with pytest.raises(SystemExit, match=r"x\.png: cannot be decoded"):
            read(tmp_path, 1)


class TestPatches:
    def test_they_are_windows_of_the_pictures_turned_and_mirrored(self, store):
        found = set()
        for step in range(12):
            for patch in store.patches(Draws(0, step_of(step)), 3, 16, grid=8).byte():
                found.add(self._place(store, patch))
        assert len({turned for _, turned in found}) == 8
        assert len({picture for (picture, _, _), _ in found}) == 2

    def _place(self, store, patch):
        for index, picture in enumerate(store.pictures):
            for turned in range(8):
                planes = picture.permute(2, 0, 1)
                wanted = torch.rot90(patch, turned % 4, (1, 2))
                wanted = wanted.flip(2) if turned > 3 else wanted
                windows = planes.unfold(1, 16, 8).unfold(2, 16, 8)
                same = (windows == wanted[:, None, None]).all(dim=(0, 3, 4)).nonzero()
                if len(same):
                    return (index, *same[0].tolist()), turned
        raise AssertionError("the patch is nowhere")

    def test_beyond_the_border_pictures_are_mirrored(self, photograph):
        small = Store([photograph[:32, :32]], CPU, shrink=(1.0,))
        patch = small.patches(Draws(0, step_of(0)), 1, 32, around=5)[0]
        inner = patch[:, 5:-5, 5:-5]
        padded = np.pad(inner.numpy(), ((0, 0), (5, 5), (5, 5)), mode="symmetric")
        assert np.array_equal(patch.numpy(), padded)

    def test_more_tries_find_more_detail(self, store):
        def detail(tries):
            patches = [store.patches(Draws(0, step_of(s)), 8, 16, tries=tries) for s in range(8)]
            return float(torch.cat(patches).diff(dim=3).abs().mean())

        assert detail(4) > 1.2 * detail(1)

    def test_reduced_versions_are_those_of_the_library(self, photograph):
        store = Store([photograph], CPU, shrink=(1.0, 2 / 3))
        expected = resize(photograph.astype(np.float32), 107, 107).clip(0, 255)
        assert np.abs(store.pictures[1].numpy() - expected).max() <= 0.501

    def test_pictures_that_are_too_small_are_left_out(self, photograph, store):
        both = Store([photograph, photograph[:100, :100]], CPU, shrink=(1.0,))
        with torch.no_grad():
            both.pixels[160 * 160 :] = 7
        patches = both.patches(Draws(0, step_of(0)), 32, 120)
        assert not bool((patches == 7).flatten(1).all(1).any())
        with pytest.raises(SystemExit, match="too small for patches of 163"):
            store.patches(Draws(0, step_of(0)), 1, 160, grid=4)


class TestDamage:
    @pytest.mark.parametrize("scale", [2, 3, 4])
    def test_reduction_is_the_library_s(self, photograph, scale):
        side = 24
        window = photograph[: 160 // scale * scale, : 160 // scale * scale]
        expected = reduce(window, scale)[5 : 5 + side, 4 : 4 + side].astype(np.float32)
        around = 3 * scale
        top, left = 5 * scale - around, 4 * scale - around
        length = side * scale + 2 * around
        cut = torch.from_numpy(window[top : top + length, left : left + length].copy())
        rows = reduction(side, scale, around)
        found = rounded(applied(rows, cut.permute(2, 0, 1)[None].float()))
        difference = np.abs(found[0].permute(1, 2, 0).numpy() - expected)
        assert difference.max() <= 1  # where sums differ in their last digit
        assert (difference > 0).mean() < 1e-3

    def test_fractional_scales_agree_with_a_resized_picture(self, photograph):
        """By 1.6, 160 samples become 100: the same places as in the whole picture."""
        expected = resize(photograph.astype(np.float64), 100, 100)
        line = torch.from_numpy(photograph.copy()).permute(2, 0, 1)[None].float()
        found = applied(reduction(100, 1.6, 0), line)[0].permute(1, 2, 0).numpy()
        assert np.abs(found - expected)[4:-4, 4:-4].max() < 1e-3

    def test_resizing_is_the_library_s_to_the_border(self, photograph):
        planes = torch.from_numpy(photograph.copy()).permute(2, 0, 1).float()
        found = resizing(160, 107) @ planes @ resizing(160, 53).mT
        expected = resize(photograph.astype(np.float32), 107, 53)
        assert np.abs(found.permute(1, 2, 0).numpy() - expected).max() < 1e-3

    @pytest.mark.parametrize("scale", [1.5, 2.0])
    def test_enlargement_is_pytorch_s(self, scale):
        x = torch.rand(1, 3, 20, 20)
        size = int(20 * scale)
        expected = torch.nn.functional.interpolate(x, size=(size, size), mode="bicubic")
        found = applied(enlargement(size, scale, 20), x)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)

    def test_blur_is_that_of_a_square_kernel(self):
        x = torch.rand(2, 3, 52, 52)
        widths = torch.tensor([0.9, 3.7])
        found = applied(gaussian_rows(widths, 8, 4, 10, 21), x)
        line = torch.arange(21) - 10
        for picture, width, result in zip(x, widths, found, strict=True):
            kernel = torch.exp(-0.5 * (line / width) ** 2)
            kernel = (kernel[:, None] * kernel)[None, None]
            wanted = torch.nn.functional.conv2d(picture[:, None], kernel / kernel.sum(), stride=4)
            torch.testing.assert_close(result, wanted[:, 0], atol=1e-5, rtol=0)


class TestPhoto:
    """What is damaged on a device, against the libraries that it stands for."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("quality", [10, 50, 75, 92, 100])
    def test_jpeg_is_the_library_s(self, photograph, quality, kind):
        """But for coefficients that lie between two steps of the table."""
        expected = compress(photograph, quality, kind).astype(np.float32)
        x = torch.from_numpy(photograph.copy()).permute(2, 0, 1)[None].float()
        which = torch.tensor([KINDS.index(kind)])
        found = Jpeg(CPU)(x, torch.tensor([float(quality)]), which)[0].permute(1, 2, 0).numpy()
        difference = np.abs(found - expected)
        assert difference.mean() < 0.5
        assert (difference <= 2).mean() > 0.97

    @pytest.mark.parametrize("name", FILTERS)
    @pytest.mark.parametrize("scale", [2, 4])
    def test_reductions_are_the_library_s(self, photograph, name, scale):
        expected = reduced(photograph.astype(np.float32), scale, name)
        inner = slice(5, -5)
        x = torch.from_numpy(photograph.copy()).permute(2, 0, 1)[None].float()
        rows = _filter(name, 160 // scale - 6, scale, 3 * scale)
        found = rounded(applied(rows, x))[0].permute(1, 2, 0).numpy()
        difference = np.abs(found - expected[3:-3, 3:-3])[inner, inner]
        assert difference.max() <= 1
        assert (difference > 0).mean() < 0.002

    def test_blur_is_the_library_s(self, photograph):
        kernels = torch.zeros(1, 11, 11)
        kernels[0, 1:-1, 1:-1] = torch.from_numpy(gaussian((1.3, 0.6), 0.4))[:9, :9]
        x = torch.from_numpy(photograph.copy()).permute(2, 0, 1)[None].float()
        found = blurred(x, kernels)[0].permute(1, 2, 0).numpy()
        expected = blur(photograph, kernels[0].numpy())[5:-5, 5:-5]
        assert np.abs(found - expected).max() < 1e-3

    @pytest.mark.parametrize("scale", [2, 3])
    def test_a_photo_is_about_the_reduced_original(self, store, scale):
        make = Photographed(recipe("lapar-c", scale, kind="photo", batch=8, patch=16), CPU)
        errors = []
        for step in range(6):
            low, high = make(Draws(0, step_of(step)), store)
            assert low.shape == (8, 3, 16, 16)
            assert high.shape == (8, 3, 16 * scale, 16 * scale)
            plain = torch.nn.functional.avg_pool2d(high, scale)
            errors += (low - plain).square().mean((1, 2, 3)).sqrt().tolist()
        assert np.median(errors) < 12
        assert min(errors) < 4 < max(errors)

    def test_blocks_begin_anywhere(self, store):
        make = Blocked(recipe("lapar-c", 1, "deblock", batch=8, patch=24), CPU)
        places = set()
        for step in range(4):
            low, high = make(Draws(0, step_of(step)), store)
            edges = (low - high).diff(dim=3).abs().mean((0, 1, 2))
            places.add(int(edges[:8].argmax()))
            assert 0 < float((low - high).abs().mean()) < 10
        assert len(places) > 1

    def test_noise_is_of_all_strengths(self, store):
        make = Noisy(recipe("lapar-c", 1, "denoise", batch=32, patch=32))
        low, high = make(Draws(0, step_of(0)), store)
        sigmas = (low - high).std((1, 2, 3))
        assert float(sigmas.min()) < 8
        assert 40 < float(sigmas.max()) < 58

    def test_nothing_is_read_by_the_host(self, store):
        with NoReads():
            for made in (
                Photographed(recipe("lapar-c", 2, kind="photo", batch=2, patch=16), CPU),
                Blocked(recipe("lapar-c", 1, "deblock", batch=2, patch=16), CPU),
                Noisy(recipe("lapar-c", 1, "denoise", batch=2, patch=16)),
            ):
                made(Draws(0, torch.zeros((), dtype=torch.int64)), store)
