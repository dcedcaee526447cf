"""Blurs to measure with: sets of papers, kernels from files, and what DCLS makes of a known one."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from srcli.commands.kernels import save_kernel
from srcli.errors import InputError, UsageError
from srcli.models.dcls.reduction import reduced
from srcli.models.layers import gaussian_kernel
from srcli.pipeline.kernels import read_kernel
from srcli.quality.blurs import anisotropic, blurs, seen
from srcli.quality.degradations import blur, gaussian


def widths_of(kernel):
    """Standard deviations along the two axes, the greater first."""
    places = np.indices(kernel.shape).reshape(2, -1) - len(kernel) // 2
    return np.sqrt(np.linalg.eigvalsh(places * kernel.ravel() @ places.T))[::-1]


def test_gaussians_are_those_of_the_dictionary():
    ours = gaussian((3.0, 1.2), np.radians(30), side=21)
    np.testing.assert_allclose(ours, gaussian_kernel(21, 3.0, 1.2, 30).numpy(), atol=1e-7)


@pytest.mark.parametrize(("scale", "least", "most"), [(2, 0.8, 1.6), (3, 1.35, 2.4), (4, 1.8, 3.2)])
def test_eight_round_gaussians(scale, least, most):
    """Widths as in DCLS's table 1, evenly spaced."""
    found = blurs("gaussian8", scale)
    assert len(found) == 8
    kernels = [kernel(0) for kernel in found.values()]
    assert all(kernel.shape == (21, 21) for kernel in kernels)
    wide = [widths_of(kernel.astype(float)) for kernel in kernels]
    expected = np.linspace(least, most, 8)
    np.testing.assert_allclose([w[0] for w in wide], expected, rtol=0.02)
    np.testing.assert_allclose([w[1] for w in wide], expected, rtol=0.02)
    assert next(iter(found)) == f"sigma {least:.2f}"


@pytest.mark.parametrize(("scale", "side"), [(2, 11), (4, 31)])
def test_kernels_of_any_shape(scale, side):
    """As those of DIV2KRK: each picture has its own, the same at every run."""
    (blur_of,) = blurs("anisotropic", scale, seed=3).values()
    kernels = [blur_of(number) for number in range(40)]
    for number, kernel in enumerate(kernels):
        assert kernel.shape == (side, side)
        assert kernel.sum() == pytest.approx(1, abs=1e-6)
        assert kernel.min() >= 0
        np.testing.assert_array_equal(kernel, blur_of(number))
    wide = np.array([widths_of(kernel.astype(float)) for kernel in kernels])
    assert wide.max() < 5.3
    assert np.median(wide[:, 0] / wide[:, 1]) > 1.2  # not round
    other = blurs("anisotropic", scale, seed=4)[""](0)
    assert (other != kernels[0]).any()
    smooth = anisotropic(scale, np.random.default_rng([3, 0]))
    np.testing.assert_array_equal(smooth, kernels[0])


def test_sets_are_for_whole_scales():
    with pytest.raises(UsageError, match="x2, x3 and x4"):
        blurs("gaussian8", 5)


def test_the_upper_left_pixel_is_kept(photograph):
    low = seen(photograph[:24, :32], gaussian(1.5, side=21), 4)
    assert low.shape == (6, 8, 3)
    np.testing.assert_allclose(low, blur(photograph[:24, :32], gaussian(1.5, side=21))[::4, ::4])


class TestFiles:
    kernel = gaussian((2.0, 1.0), 0.5, side=15)

    def test_numbers_come_back(self, tmp_path):
        np.save(tmp_path / "k.npy", 7 * self.kernel)
        np.testing.assert_allclose(read_kernel(tmp_path / "k.npy"), self.kernel, rtol=1e-5)
        np.save(tmp_path / "four.npy", self.kernel[None, None])
        np.testing.assert_allclose(read_kernel(tmp_path / "four.npy"), self.kernel, rtol=1e-5)

    def test_a_picture_of_it(self, tmp_path):
        grey = np.rint(255 * self.kernel / self.kernel.max()).astype(np.uint8)
        Image.fromarray(grey).save(tmp_path / "k.png")
        found = read_kernel(tmp_path / "k.png")
        np.testing.assert_allclose(found, grey / grey.sum(), atol=1e-6)
        assert np.abs(found - self.kernel).sum() < 0.03

    def test_as_it_is_saved(self, tmp_path):
        """`--save-kernel` draws each number as a square."""
        save_kernel(self.kernel, tmp_path / "k.png")
        drawn, numbers = read_kernel(tmp_path / "k.png"), read_kernel(tmp_path / "k.npy")
        assert drawn.shape == numbers.shape == (15, 15)
        assert np.abs(drawn - numbers).sum() < 0.03
        np.testing.assert_allclose(numbers, self.kernel, atol=1e-7)

    @pytest.mark.parametrize(("outer", "inner"), [(9, 9), (21, 7), (15, 5), (255, 51)])
    def test_a_box_is_no_drawing_of_a_smaller_kernel(self, tmp_path, outer, inner):
        box = np.zeros((outer, outer), np.uint8)
        edge = (outer - inner) // 2
        box[edge : edge + inner, edge : edge + inner] = 255
        Image.fromarray(box).save(tmp_path / "k.png")
        np.testing.assert_allclose(read_kernel(tmp_path / "k.png"), box / box.sum(), rtol=1e-6)

    @pytest.mark.parametrize("factor", [1e308, 1e-280])
    def test_numbers_of_any_size(self, tmp_path, factor):
        largest = self.kernel.astype(float) / self.kernel.max()
        np.save(tmp_path / "k.npy", factor * largest)
        np.testing.assert_allclose(read_kernel(tmp_path / "k.npy"), self.kernel, rtol=1e-5)

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (np.ones((4, 4)), "a pixel in its middle"),
            (np.ones((3, 5)), "as many rows as columns"),
            (np.ones((1, 3)), "not 3 x 1"),
            (np.zeros((3, 3)), "not all of them zero"),
            (-np.eye(3), "none below zero"),
            (np.full((3, 3), np.nan), "holds weights"),
            (np.ones((301, 301)), "too many"),
            (np.ones(9), "no square of numbers"),
            (np.array([["a"] * 3] * 3), "no square of numbers"),
        ],
    )
    def test_what_is_no_kernel(self, tmp_path, content, words):
        np.save(tmp_path / "k.npy", content)
        with pytest.raises(InputError, match=words) as error:
            read_kernel(tmp_path / "k.npy")
        assert str(tmp_path / "k.npy") in str(error.value)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (1, 1, 1, 1)])
    def test_one_pixel_is_a_kernel_that_blurs_nothing(self, tmp_path, shape):
        np.save(tmp_path / "k.npy", np.full(shape, 3.0))
        np.testing.assert_array_equal(read_kernel(tmp_path / "k.npy"), [[1.0]])

    def test_text_is_not_a_wrong_path(self, tmp_path):
        (tmp_path / "k.npy").write_text("1 2 1")
        with pytest.raises(InputError, match=r"no array of numbers.*by numpy"):
            read_kernel(tmp_path / "k.npy")

    def test_what_cannot_be_read(self, tmp_path):
        (tmp_path / "k.npy").write_text("no numbers")
        np.save(tmp_path / "code.npy", np.array([print], object), allow_pickle=True)
        (tmp_path / "k.txt").write_text("1 2 1")
        for name in ("k.npy", "code.npy", "k.txt", "away.npy", "away.png"):
            with pytest.raises(InputError, match=name.replace(".", r"\.")):
                read_kernel(tmp_path / name)


class TestReduction:
    """The blur at input resolution that a blur of the large picture amounts to."""

    def test_no_blur_is_no_blur(self):
        point = np.zeros((21, 21), np.float32)
        point[10, 10] = 1
        small = reduced(point, 4, 21)
        assert small[10, 10] > 0.99

    @pytest.mark.parametrize("scale", [2, 3, 4])
    def test_it_is_narrower_by_the_scale(self, scale):
        kernel = gaussian((2.5 * scale, 1.5 * scale), 0.6, side=20 * scale + 1)
        small = reduced(kernel, scale, 21)
        assert small.shape == (21, 21)
        assert small.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(widths_of(small.astype(float)), [2.5, 1.5], rtol=0.1)

    @pytest.mark.parametrize(("scale", "sigma"), [(2, (3.0, 1.2)), (4, (3.0, 1.2)), (2, 0.8)])
    def test_it_does_to_the_small_picture_what_the_blur_did(self, photograph, scale, sigma):
        kernel = gaussian(sigma, 0.8, side=21)
        clear = photograph[::scale, ::scale].astype(np.float32)
        wanted = seen(photograph, kernel, scale)
        inside = (slice(6, -6), slice(6, -6))

        def error(small):
            return float(np.abs(blur(clear, small) - wanted)[inside].mean())

        assert error(reduced(kernel, scale, 21)) < 0.6 * error(np.ones((1, 1), np.float32))

    def test_it_is_turned_as_the_kernel_is(self):
        kernel = gaussian((4.0, 1.0), 0.5, side=31)
        kernel[:, :10] = 0  # not its own half-turn
        small = reduced(kernel / kernel.sum(), 2, 15)
        turned = reduced(kernel[::-1, ::-1] / kernel.sum(), 2, 15)
        np.testing.assert_allclose(turned, small[::-1, ::-1], atol=1e-6)
