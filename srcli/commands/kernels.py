"""Write the blur kernel that a blind network estimates, as a picture and as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.commands import options
from srcli.errors import UsageError
from srcli.models.spec import ModelSpec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from srcli.commands.request import RestoreRequest
    from srcli.jobs.job import Job

SHOWN = 420  # least side of the picture, in pixels


def check_kernel_file(file: Path, spec: ModelSpec, jobs: Sequence[Job], *, overwrite: bool) -> None:
    """Refuse, before any work, a file that the kernel cannot be saved in.

    Raises:
        UsageError: The model sees no kernel, there are several inputs, or the file is no PNG.
        OutputExistsError: One of the two files is there already.
    """
    if not spec.blind:
        raise UsageError(f"{spec.name} estimates no blur", "Choose -m dcls-iso or -m dcls-aniso.")
    if len(jobs) != 1:
        raise UsageError("--save-kernel names one file", "Give one input.")
    if file.suffix.lower() != ".png":
        raise UsageError(
            f"{file}: the kernel is written as PNG", "Choose a name that ends in .png."
        )
    for target in (file, file.with_suffix(".npy")):
        if target.resolve() in (jobs[0].target.resolve(), jobs[0].source.resolve()):
            raise UsageError(f"{target}: is the input or the output", "Choose another name.")
        options.check_file(target, overwrite, "another --save-kernel")


def check_known_kernel(request: RestoreRequest, jobs: Sequence[Job], backend: str) -> None:
    """Refuse, before any work, a known blur that the model cannot use.

    Raises:
        UsageError: The model takes none, the backend neither, or there are several passes.
    """
    if not request.spec.blind:
        raise UsageError(
            f"{request.spec.name} takes no blur kernel", "Choose -m dcls-iso or -m dcls-aniso."
        )
    if backend != "torch":
        problem = f"{backend} cannot be told the blur of a picture"
        raise UsageError(problem, "Choose --backend torch, or leave out --kernel.")
    if request.check:
        raise UsageError("--check compares what networks estimate", "Leave out --kernel.")
    if any(job.size is not None and len(job.size.passes) > 1 for job in jobs):
        raise UsageError(
            "--kernel is the blur of the picture, and the second pass enlarges another one",
            f"Choose a scale of at most {max(request.spec.scales)}.",
        )


def save_kernel(kernel: NDArray[np.float32], file: Path, *, replace: bool = False) -> None:
    """Write K x K numbers to `file` as a picture, and beside it as `.npy`."""
    import numpy as np

    from srcli.images import Picture, write
    from srcli.system.files import atomic_path

    write(Picture(color=kernel_picture(kernel)[:, :, None]), file, replace=replace)
    with (
        atomic_path(file.with_suffix(".npy"), replace=replace) as partial,
        partial.open("wb") as stream,
    ):
        np.save(stream, kernel)


def kernel_picture(kernel: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draw K x K numbers as grey squares: 0 and less is black, the greatest is white."""
    import numpy as np

    minimum = min(0.0, float(kernel.min()))
    extent = float(kernel.max()) - minimum
    grey = (kernel - minimum) / (extent or 1.0)
    square = -(-SHOWN // len(kernel))
    pixels: NDArray[np.uint8] = np.rint(255 * grey).astype(np.uint8)
    return pixels.repeat(square, axis=0).repeat(square, axis=1)
