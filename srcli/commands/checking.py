"""`--check`: compare tiles with the whole picture, and backends with each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from srcli import console
from srcli.errors import FAILED, InputError, SrcliError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from srcli.commands.request import RestoreRequest
    from srcli.jobs.job import Job
    from srcli.jobs.steps import Step
    from srcli.loading.foreign import ForeignModel
    from srcli.loading.model import LoadedModel

AGAINST_WHOLE, TOO_LARGE = "against the whole", "too large"
LARGEST = 512  # pixels of a side that is checked; the middle of larger pictures


def check_jobs(
    jobs: Sequence[Job],
    request: RestoreRequest,
    load: Callable[[Step], LoadedModel | ForeignModel],
) -> int:
    """Compare tiled with untiled results, and backends with each other, on each input."""
    rows, failed = [], False
    for job in jobs:
        try:
            if job.error is not None or job.size is None:
                raise job.error or InputError(
                    f"{job.name}: its size is not known", "Check the file."
                )
            middle = _middle(job)
        except SrcliError as error:
            console.error(str(error))
            failed = True
            continue
        for model in map(load, job.steps):
            for what, difference in _differences(middle, request, model):
                verdict = _verdict(what, difference, model)
                failed = failed or verdict == TOO_LARGE
                said = what if len(job.steps) == 1 else f"{model.label}: {what}"
                rows.append((job.name, said, f"{difference:.1e}", verdict))
    if request.as_json:
        keys = ("input", "comparison", "difference", "verdict")
        console.print_json([dict(zip(keys, row, strict=True)) for row in rows])
    elif rows:
        console.table(("picture", "comparison", "largest difference (of 1)", ""), rows)
    return FAILED if failed else 0


def _verdict(what: str, difference: float, model: LoadedModel | ForeignModel) -> str:
    if difference <= model.spec.tolerance:
        return "ok"
    # A network that looks at the whole picture is expected to give something else in tiles.
    expected = what.endswith(AGAINST_WHOLE) and model.geometry.tiling == "approximate"
    return "approximate" if expected else TOO_LARGE


def _differences(
    batch: NDArray[np.float32], request: RestoreRequest, model: LoadedModel | ForeignModel
) -> Iterator[tuple[str, float]]:
    import numpy as np

    from srcli.backends import BACKENDS
    from srcli.errors import DeclinedError
    from srcli.loading.restorer import open_restorer

    tile = request.tile or max(8, min(batch.shape[2:]) // 3)
    reference: tuple[str, NDArray[np.float32]] | None = None
    chosen = [
        b
        for b in BACKENDS
        if request.backend in ("auto", b.name)
        and not (b.unavailable() or b.declines(model.spec, request.precision))
    ]
    for backend in chosen:
        running = replace(request.run_options(), backend=backend.name, tta=False)
        results: list[NDArray[np.float32]] = []
        try:
            for side in (max(batch.shape[2:]), tile):
                with open_restorer(model, replace(running, tile=side), scale=model.grid) as opened:
                    results.append(opened.restore(batch))
        except DeclinedError:
            if request.backend != "auto":
                raise
            continue
        untiled, tiled = results
        label = f"{backend.name}: tiles of {tile} {AGAINST_WHOLE}"
        yield label, float(np.abs(tiled - untiled).max())
        if reference is None:
            reference = backend.name, untiled
        else:
            first, expected = reference
            yield f"{backend.name} against {first}", float(np.abs(untiled - expected).max())


def _middle(job: Job) -> NDArray[np.float32]:
    """Return the middle of the picture as 1 x 3 x h x w in [0, 1]."""
    import numpy as np

    from srcli.images import read, to_float

    color = to_float(read(job.data, name=job.name, page=job.page).color)
    top, left = (max(0, (side - LARGEST) // 2) for side in color.shape[:2])
    crop = color[top : top + LARGEST, left : left + LARGEST]
    planes = np.broadcast_to(crop, (*crop.shape[:2], 3)).transpose(2, 0, 1)
    return np.ascontiguousarray(planes[None])
