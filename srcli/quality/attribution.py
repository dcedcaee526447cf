"""Local attribution maps: the contribution of each input pixel to a window of the output.

Source: Gu and Dong, "Interpreting Super-Resolution Networks with Local Attribution Maps",
CVPR 2021.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from srcli.errors import MemoryExhaustedError, SrcliError, UsageError
from srcli.models.spec import Geometry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from srcli.loading.model import LoadedModel

Progress = Callable[[int, int], None]
Score = Callable[["Tensor"], "Tensor"]
"""A function from a picture, 3 x h x w, to one number; differentiable."""

SHARE = 0.95  # of the contribution that lies in the contribution area
BLUR_REACH = 4  # standard deviations of a Gaussian that are computed
SOBEL = ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1))
SOBEL_REACH = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A square of the output, in output pixels from the top left."""

    x: int
    y: int
    size: int


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle of the input: pixels [top, bottom) x [left, right)."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Slices of the rows and columns of the box."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def grown(self, by: int, height: int, width: int) -> Box:
        """Return the box with so many pixels more to each side, cut off at the picture's border."""
        return Box(
            max(0, self.top - by),
            min(height, self.bottom + by),
            max(0, self.left - by),
            min(width, self.right + by),
        )

    def within(self, other: Box) -> Box:
        """Return the box in the coordinates of another box that contains it."""
        return Box(
            self.top - other.top,
            self.bottom - other.top,
            self.left - other.left,
            self.right - other.left,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribution:
    """Contributions of the input pixels to the edges within a window of the output."""

    map: NDArray[np.float64]
    """h x w: the contribution of each input pixel, its three colours together. What contributes
    above 0 makes the window's edges stronger, what is below makes them weaker."""

    change: float
    """Growth of the score of edges from the blurred picture to the picture. The sum of the map
    approaches it as the number of steps grows; the difference is the error of the integral."""

    @property
    def diffusion_index(self) -> float:
        """Evenness of the contributions, 0 to 100; see the function `diffusion_index`."""
        return diffusion_index(self.map)

    @property
    def area(self) -> NDArray[np.bool_]:
        """h x w: the fewest pixels that hold 95% of all contributions, signs aside."""
        return contribution_area(self.map)


def attribute(
    model: LoadedModel,
    picture: NDArray[np.float32],
    window: Window,
    *,
    sigma: float,
    steps: int,
    memory: int,
    progress: Progress = lambda done, total: None,
) -> Attribution:
    """Compute the local attribution map of a model on a picture.

    Where the model's receptive field ends, nothing beyond it is computed, for it cannot contribute.
    Models that look at the whole picture are given the whole picture.

    Args:
        model: With its weights.
        picture: h x w x 3 in [0, 1].
        window: Of the output.
        sigma: Of the blur that the path begins with, in input pixels.
        steps: Points on the path at which the gradient is taken.
        memory: Bytes that the network may keep for one gradient.
        progress: Called with the number of steps done.

    Raises:
        UsageError: The window is not in the output, or the scale is between the model's own.
        MemoryExhaustedError: One gradient needs more memory than that.
        SrcliError: The network gave values that are not finite.
    """
    import torch

    height, width, _ = picture.shape
    check_window(window, model, height, width)
    scale = int(model.scale)
    cut = seen_by(window, model.geometry, scale, height, width)
    around = cut.grown(math.ceil(BLUR_REACH * sigma), height, width)
    source = torch.from_numpy(picture[around.slices].transpose(2, 0, 1).astype(np.float32))
    inside = (slice(None), *cut.within(around).slices)
    path = (blurred[inside] for blurred in blur_path(source, sigma, steps))
    moved = Window(x=window.x - cut.left * scale, y=window.y - cut.top * scale, size=window.size)
    # The fused network computes the same function, HPINet's a hundred times faster.
    network = model.network().requires_grad_(requires_grad=False)
    score = _score(network, moved, model.geometry, memory)
    part, change = integrated_gradients(score, path, steps, progress)
    if not (part.isfinite().all() and math.isfinite(change)):
        raise SrcliError("the network gave values that are not finite", "Check its weights.")
    contributions = np.zeros((height, width))
    contributions[cut.slices] = part.sum(dim=0).numpy()
    return Attribution(map=contributions, change=change)


def restored_part(
    model: LoadedModel, picture: NDArray[np.float32], part: Box
) -> NDArray[np.float32]:
    """Restore a part of a picture as it comes out of the whole.

    Args:
        model: With its weights, at one of its own scales.
        picture: h x w x 3 in [0, 1].
        part: Of the picture.

    Returns:
        s*rows x s*columns x 3, clamped to [0, 1].
    """
    import torch

    height, width, _ = picture.shape
    whole = model.geometry.tiling == "approximate"
    seen = part.grown(max(height, width) if whole else model.geometry.margin, height, width)
    batch = torch.from_numpy(picture[seen.slices].transpose(2, 0, 1)[None].astype(np.float32))
    with torch.inference_mode():
        restored = model.network()(_padded(batch, model.geometry))[0].clamp(0, 1)
    s, inner = int(model.scale), part.within(seen)
    rows, columns = slice(inner.top * s, inner.bottom * s), slice(inner.left * s, inner.right * s)
    return np.asarray(restored[:, rows, columns].permute(1, 2, 0).numpy())


def check_window(window: Window, model: LoadedModel, height: int, width: int) -> None:
    """Raise `UsageError` unless the window lies in the output for an input of this size."""
    if model.grid != model.scale:
        offered = ", ".join(str(scale) for scale in model.spec.scales)
        raise UsageError(f"{model.label} is made by resampling", f"Choose one of -s {offered}.")
    rows, columns = height * int(model.scale), width * int(model.scale)
    fits = min(window.x, window.y) >= 0 and window.size > 0
    if not (fits and window.x + window.size <= columns and window.y + window.size <= rows):
        raise UsageError(
            f"a window of {window.size} pixels at {window.x},{window.y} is not within the output "
            f"of {columns} x {rows}",
            "Choose another --window X,Y,SIZE.",
        )


def seen_by(window: Window, geometry: Geometry, scale: int, height: int, width: int) -> Box:
    """Return the part of a height x width input that the window and its edges can depend on."""
    whole = Box(0, height, 0, width)
    if geometry.tiling == "approximate":
        return whole
    first = [(start - SOBEL_REACH) // scale for start in (window.y, window.x)]
    last = [(start + window.size - 1 + SOBEL_REACH) // scale + 1 for start in (window.y, window.x)]
    return Box(first[0], last[0], first[1], last[1]).grown(geometry.margin, height, width)


def blur_path(picture: Tensor, sigma: float, steps: int) -> Iterator[Tensor]:
    """Yield `steps` + 1 pictures, 3 x h x w: the picture blurred by Gaussians of `sigma` down to 0.

    Borders are repeated. Source: the paper's progressive blurring path.
    """
    reach = math.ceil(BLUR_REACH * sigma)
    for index in range(steps):
        yield _blurred(picture, sigma * (1 - index / steps), reach)
    yield picture


def integrated_gradients(
    score: Score, path: Iterator[Tensor], steps: int, progress: Progress = lambda done, total: None
) -> tuple[Tensor, float]:
    """Integrate the gradient of a score along a path of pictures: each number's contribution.

    Each step takes the gradient in its middle: the error falls with the square of their number.

    Args:
        score: Of a picture 3 x h x w.
        path: `steps` + 1 pictures.
        steps: Their number, for `progress`.
        progress: Called with the number of steps done.

    Returns:
        3 x h x w in float64, and by how much the score grows from the first picture to the last.

    Source: Sundararajan, Taly and Yan, "Axiomatic Attribution for Deep Networks", ICML 2017.
    """
    import torch

    first = before = next(path)
    total = torch.zeros(before.shape, dtype=torch.float64)
    for done, after in enumerate(path, start=1):
        middle = ((before + after) / 2).requires_grad_()
        (slope,) = torch.autograd.grad(score(middle), middle)
        total += slope.double() * (after - before).double()
        before = after
        progress(done, steps)
    with torch.no_grad():
        return total, float(score(before)) - float(score(first))


def edges(output: Tensor, window: Window) -> Tensor:
    """Sum the magnitudes of the Sobel gradient over a window and the colours: one number.

    Args:
        output: n x c x H x W; repeated at its borders.
        window: Of it.

    Returns:
        In output values for a distance of one pixel; differentiable, also where it is flat.
    """
    import torch
    from torch.nn import functional as F

    reach = 2 * SOBEL_REACH
    padded = F.pad(output, [SOBEL_REACH] * 4, mode="replicate")
    part = padded[
        :, :, window.y : window.y + window.size + reach, window.x : window.x + window.size + reach
    ]
    across = torch.tensor(SOBEL, dtype=output.dtype) / 8  # 1 for a ramp of 1 a pixel
    kernels = torch.stack([across, across.T]).unsqueeze(1)  # 2 1 3 3
    slopes = F.conv2d(part.flatten(0, 1).unsqueeze(1), kernels)  # nc 2 size size
    magnitudes: Tensor = torch.linalg.vector_norm(slopes, dim=1)
    return magnitudes.sum()


def diffusion_index(contributions: NDArray[np.floating]) -> float:
    """Return (1 - G) * 100, where G is the Gini coefficient of the contributions' magnitudes.

    100 where all pixels contribute the same, 100/n where one of n does everything, 0 where none
    contributes. Pixels that contribute nothing count: compare pictures of one size only.

    Source: the paper's diffusion index.
    """
    values = np.sort(np.abs(contributions), axis=None).astype(np.float64)
    total, count = values.sum(), values.size
    if total == 0:
        return 0.0
    ranks = np.arange(1, count + 1)
    gini = 2 * (ranks * values).sum() / (count * total) - (count + 1) / count
    return float(100 * (1 - gini))


def contribution_area(
    contributions: NDArray[np.floating], share: float = SHARE
) -> NDArray[np.bool_]:
    """Mark the fewest pixels, h x w, whose absolute values sum to `share` of the whole."""
    values = np.abs(contributions).ravel()
    order = np.argsort(-values, kind="stable")
    summed = np.cumsum(values[order])
    count = int(np.searchsorted(summed, share * summed[-1])) + 1 if summed[-1] > 0 else 0
    area = np.zeros(values.size, bool)
    area[order[:count]] = True
    return area.reshape(contributions.shape)


def _score(network: nn.Module, window: Window, geometry: Geometry, memory: int) -> Score:
    """Return the function that scores a picture by the edges in the window of its output."""
    from torch.autograd.graph import saved_tensors_hooks

    def score(picture: Tensor) -> Tensor:
        with saved_tensors_hooks(_Budget(memory), lambda kept: kept):
            return edges(network(_padded(picture.unsqueeze(0), geometry)), window)

    return score


class _Budget:
    """A limit on the memory that autograd keeps of one run; it stops the run beyond it."""

    def __init__(self, limit: int) -> None:
        self.limit, self.kept = limit, 0
        self.seen: set[int] = set()

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.seen:  # several views of one are kept once
            self.seen.add(storage.data_ptr())
            self.kept += storage.nbytes()
        if self.kept > self.limit:
            raise MemoryExhaustedError(
                f"the gradient of this model takes more than {self.limit >> 20} MiB here",
                "Crop the picture around what is of interest, choose a smaller --window or model, "
                "or give more --memory.",
            )
        return tensor


def _padded(batch: Tensor, geometry: Geometry) -> Tensor:
    """Pad to a size that the network accepts, by repeating the border below and to the right."""
    from torch.nn import functional as F

    down, right = (geometry.accepted(side) - side for side in batch.shape[2:])
    return F.pad(batch, [0, right, 0, down], mode="replicate") if down or right else batch


def _blurred(picture: Tensor, sigma: float, reach: int) -> Tensor:
    import torch
    from torch.nn import functional as F

    taps = torch.exp(-(torch.arange(-reach, reach + 1).double() ** 2) / (2 * sigma**2))
    taps = (taps / taps.sum()).to(picture.dtype)
    planes = F.pad(picture.unsqueeze(1), [reach] * 4, mode="replicate")
    return F.conv2d(F.conv2d(planes, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1)).squeeze(1)
