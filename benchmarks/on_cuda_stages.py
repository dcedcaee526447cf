"""Run stages of a measurement, each with a limit, so that a cut-off loses none that was finished.

Used by `on_cuda.py`. Needs nothing but Python: what is missing is what a stage says.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import lzma
import os
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CARRIED = ROOT / ".carry"
HOME = Path(os.environ.get("SRCLI_ON_CUDA", Path(tempfile.gettempdir()) / "srcli-on-cuda"))
WORK = HOME / "results"
"""Everything in this folder, but not in folders of it, is packed."""

SITE = HOME / "site"
"""The tree as an installed package, and the carried ones."""

PARTS = HOME / "parts"
"""What was carried, in this call or in one before."""

OUT = Path(os.environ.get("OUT", Path(tempfile.gettempdir()) / "srcli-on-cuda-out"))
EVERY = 20.0  # seconds from one packing to the next while a stage runs
LEAST = 6.0  # seconds; with less left no stage begins
GRACE = 4.0  # seconds that a stage has to write what it knows, once told to end
LINES, WIDTH = 5, 130  # of what a stage that failed said at last
SHOWN = 24  # lines of one stage's result in the table at the end
PARENT_DEATH = 1  # PR_SET_PDEATHSIG of Linux
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Stage:
    """A command, and how long it may take."""

    name: str
    limit: float
    """Seconds."""

    command: list[str]
    json: bool = False
    """Whether its stdout is JSON; its stderr then goes to a file of its own."""


class Run:
    """Stages one after the other.

    Args:
        seconds: For all of them.
        resume: Leave out what ended well in a run before.
    """

    def __init__(self, seconds: float, *, resume: bool) -> None:
        self._end = time.monotonic() + seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._stages: list[Stage] = []
        for folder in (WORK, OUT, PARTS):
            folder.mkdir(parents=True, exist_ok=True)
        unpack_earlier()
        self._table: dict[str, dict[str, Any]] = read_json(WORK / "stages.json") or {}
        self._before = dict(self._table) if resume else {}
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._interrupted)

    @property
    def left(self) -> float:
        """Seconds."""
        return self._end - time.monotonic()

    def tell(self, text: str) -> None:
        """Say something at once."""
        print(text, flush=True)

    def stage(self, stage: Stage) -> None:
        """Run a stage, unless there is no time for it or it ended well before."""
        self._stages.append(stage)
        if self._before.get(stage.name, {}).get("code") == 0:
            self.tell(f"{stage.name:20} ended well before")
            return
        if self.left < LEAST:
            self._table.setdefault(stage.name, {"code": "no time", "seconds": 0.0})
            return
        began = time.monotonic()
        self._note(stage, "cut off", 0.0)  # what holds if this process is killed meanwhile
        code = self._wait(stage)
        self._note(stage, code, time.monotonic() - began)
        self.tell(f"{stage.name:20} {code!s:8} {time.monotonic() - began:6.1f} s")

    def end(self) -> int:
        """Print the table of all stages; return the exit code."""
        self._pack()
        self.tell("\n" + "\n".join(self._lines()))
        return int(any(self._table[stage.name]["code"] != 0 for stage in self._stages))

    def _wait(self, stage: Stage) -> int | str:
        """Run a stage to its end or its limit; return its exit code, or why it has none."""
        limit = min(stage.limit, self.left - GRACE)
        out, err = output(stage), error_output(stage)
        with out.open("wb") as stdout, err.open("ab" if err == out else "wb") as stderr:
            try:
                self._process = subprocess.Popen(
                    stage.command,
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    env=environment(),
                    cwd=HOME,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
            except OSError:
                err.write_text(f"{stage.command[0]} is not installed here.\n")
                return "missing"
            end = time.monotonic() + limit
            while (left := end - time.monotonic()) > 0:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    return self._process.wait(min(EVERY, left))
                self._keep()
            self._stop()
            return "cut off"

    def _stop(self) -> None:
        """End the stage that runs, with all that it has started."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(OSError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(GRACE - 1)

    def _interrupted(self, number: int, frame: object) -> None:
        """End the stage, pack, say what there is, and go."""
        signal.signal(number, signal.SIG_IGN)
        self._stop()
        self.end()
        sys.stdout.flush()
        os._exit(128 + number)

    def _note(self, stage: Stage, code: int | str, seconds: float) -> None:
        self._table[stage.name] = {"code": code, "seconds": round(seconds, 1)}
        self._keep()

    def _keep(self) -> None:
        """Pack everything; a full disk or the like must not end the run."""
        try:
            self._pack()
        except OSError as error:
            self.tell(f"cannot keep the results: {error}")

    def _pack(self) -> None:
        write_json(WORK / "stages.json", self._table)
        (WORK / "table.txt").write_text("\n".join(self._lines()) + "\n", "utf-8")
        partial = OUT / ".results.tgz"
        with tarfile.open(partial, "w:gz", compresslevel=4) as archive:
            for file in sorted(WORK.iterdir()):
                if file.is_file():
                    archive.add(file, file.name)
        with partial.open("rb") as packed:
            os.fsync(packed.fileno())
        partial.replace(OUT / "results.tgz")

    def _lines(self) -> Iterator[str]:
        """Return each stage with its exit code, seconds, and what matters of its result."""
        for stage in self._stages:
            entry = self._table.get(stage.name)
            if entry is None:
                continue
            yield f"{stage.name:20} {entry['code']!s:8} {entry['seconds']:6.1f} s"
            if entry["code"] not in (0, "no time"):
                yield from (f"    ! {line[:WIDTH]}" for line in last_words(stage))
            yield from (f"    {line[:WIDTH]}" for line in list(summary(stage))[:SHOWN])


def output(stage: Stage) -> Path:
    """Return the file of what a stage prints."""
    return WORK / f"{stage.name}.{'json' if stage.json else 'txt'}"


def error_output(stage: Stage) -> Path:
    """Return the file of its stderr."""
    return WORK / f"{stage.name}.err" if stage.json else output(stage)


def last_words(stage: Stage) -> list[str]:
    """Return the last lines of what a stage said, and before them the tests that failed."""
    lines = spoken(error_output(stage))
    failed = [line for line in lines[:-LINES] if line.startswith(("FAILED ", "ERROR "))]
    return [*failed[-SHOWN:], *lines[-LINES:]]


def spoken(path: Path) -> list[str]:
    """Return the lines of a file that are not empty."""
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        return []
    return [line for line in text.splitlines() if line.strip()]


def summary(stage: Stage) -> Iterator[str]:
    """Return the lines of a stage's result that are worth printing."""
    if stage.name == "tests":
        yield from spoken(output(stage))[-1:]
    found = read_json(output(stage)) if stage.json else None
    if found is None:
        return
    yield from found.get("lines", ())
    for row in found.get("rows", ()):
        if isinstance(row, dict) and "graph" in row:
            yield bench_line(row)


def bench_line(row: dict[str, Any]) -> str:
    """Return a row of `srcli bench` as a line."""
    backend = row["backend"] + (" graph" if row.get("cuda_graph") else "")
    what = f"{row['model']} {row['graph']} {row['precision']} {backend} {row['scope']}"
    if row.get("failure"):
        return f"{what}: failed, {row['failure']}"
    burst = f", burst {row['burst_ms']:.3f}" if row.get("burst_ms") else ""
    return f"{what}: {row['median_ms']:.3f} ms{burst}, {row['verdict']}, {row['error']:.1e}"


def install(tell: Tell) -> None:
    """Put the tree in place as a package, with what is carried in `.carry/`.

    Compiled modules (`*.so`) go into it, wheels (`*.whl`) beside it. All of it is kept in `PARTS`,
    for this call and later ones on the same machine. The tree itself could not be used: its
    packages `export` and `weights` are installed under other names.
    """
    shutil.rmtree(SITE, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "srcli", SITE / "srcli", ignore=ignored)
    for part in ("export", "weights"):
        shutil.copytree(ROOT / part, SITE / "srcli" / part, ignore=ignored)
    for carried in sorted(CARRIED.glob("*")):
        if carried.is_dir():
            shutil.copytree(carried, PARTS / carried.name, dirs_exist_ok=True)
        else:
            shutil.copy(carried, PARTS)
    for part in sorted(PARTS.glob("*")):
        try:
            _put(part)
        except (OSError, zipfile.BadZipFile) as error:
            tell(f"{part.name}: left out ({error})")
    try:
        _assemble_rtx()
    except (OSError, EOFError, lzma.LZMAError, tarfile.TarError) as error:
        tell(f"TensorRT-RTX cannot be put together ({error})")
    _compile()


def _put(part: Path) -> None:
    if part.suffix == ".so":
        shutil.copy(part, home_of(part.name.split(".")[0]))
    elif part.suffix == ".whl":
        with zipfile.ZipFile(part) as wheel:
            wheel.extractall(SITE)


def home_of(module: str) -> Path:
    """Return the folder of the installed tree where a compiled module's source lies.

    Raises:
        OSError: There is no such source.
    """
    for source in (SITE / "srcli").rglob(f"{module}.c"):
        return source.parent
    raise OSError(f"there is no source {module}.c")


def _assemble_rtx() -> None:
    """Unpack the libraries of TensorRT-RTX from `rtx.00`, `rtx.01` ...: tar, xz, cut into parts."""
    parts = sorted(PARTS.glob("rtx.*"))
    name = "tensorrt_rtx_libs"
    if parts and not (PARTS / name).exists():
        packed = io.BytesIO(b"".join(part.read_bytes() for part in parts))
        partial = PARTS / "rtx-partial"
        shutil.rmtree(partial, ignore_errors=True)
        with tarfile.open(fileobj=packed, mode="r:xz") as archive:
            archive.extractall(partial, filter="data")
        (partial / name).rename(PARTS / name)
    if (PARTS / name).exists():
        (SITE / name).symlink_to(PARTS / name)


def _compile() -> None:
    """Let this machine's compiler make the modules in C, beside all else; they can be done without.

    Made elsewhere they may not load here. What is made replaces what was carried.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    headers = Path(sysconfig.get_paths()["include"])
    if compiler is None or not (headers / "Python.h").exists():
        return
    for source in sorted((SITE / "srcli" / "backends").rglob("*.c")):
        module = source.with_suffix(".abi3.so")
        partial = module.with_suffix(".partial")
        command = [compiler, "-O3", "-shared", "-fPIC", f"-I{headers}", str(source), "-o"]
        words = shlex.join([*command, str(partial)])
        move = shlex.join(["mv", str(partial), str(module)])
        with (WORK / f"compile{source.stem}.txt").open("wb") as told:
            subprocess.Popen(
                ["sh", "-c", f"{words} && {move}"],
                stdin=subprocess.DEVNULL,
                stdout=told,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )


def environment() -> dict[str, str]:
    """Return the environment of a stage."""
    earlier = os.environ.get("LD_LIBRARY_PATH", "")
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(
            path for path in (str(SITE), os.environ.get("PYTHONPATH", "")) if path
        ),
        "PYTHONSAFEPATH": "1",  # the tree's own package lacks two parts
        "PYTHONUNBUFFERED": "1",
        "SRCLI_CACHE": str(HOME / "cache"),
        "TRITON_CACHE_DIR": str(HOME / "triton"),
        "LD_LIBRARY_PATH": ":".join(path for path in (*_libraries(), earlier) if path),
    }


def _libraries() -> list[str]:
    """Return the folders of CUDA's libraries that PyTorch's package brings."""
    torch = find_spec("torch")
    if torch is None or torch.origin is None:
        return []
    nvidia = Path(torch.origin).parents[1] / "nvidia"
    return [str(folder) for folder in sorted(nvidia.glob("*/lib"))]


def die_with_parent() -> None:
    """Let a child process be killed when this process is, whatever kills it; Linux only."""
    if LIBC is not None:
        LIBC.prctl(PARENT_DEATH, signal.SIGKILL)


def unpack_earlier() -> None:
    """Take up what an earlier run packed, where its folder is gone."""
    packed = OUT / "results.tgz"
    if packed.exists() and not (WORK / "stages.json").exists():
        with contextlib.suppress(tarfile.TarError, OSError), tarfile.open(packed) as archive:
            archive.extractall(WORK, filter="data")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what a file holds; None if that is no whole JSON object."""
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_json(path: Path, content: object) -> None:
    """Write a file that is whole at any moment."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1), "utf-8")
    partial.replace(path)
