"""The options of `upscale`, `denoise` and `deblock`, checked together."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from srcli import console
from srcli.errors import UsageError
from srcli.models.registry import DEFAULT_MODEL, get_model
from srcli.models.spec import InputChoice, ModelSpec, Task
from srcli.system import stores

if TYPE_CHECKING:
    from srcli.backends.base import Precision
    from srcli.images import SaveOptions
    from srcli.jobs.shards import Shard
    from srcli.loading.foreign import ForeignModel
    from srcli.loading.restorer import RunOptions

NETWORK_FILES = (".onnx", ".pth", ".pt", ".ckpt", ".safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreRequest:
    """The options of a restoring command, as parsed."""

    inputs: tuple[str, ...]
    named: tuple[str, ...] = ()
    """Inputs that were named by -i."""

    output: str | None
    suffix: str | None = None
    model: str
    alias: str | None = None
    """The model as -n names it."""

    model_was_named: bool = False
    """True if -m was given."""

    model_file: Path | None
    weights: Path | None
    backend: str
    precision: Precision
    tta: bool
    threads: int | None
    tile: int | None
    memory: int | None
    gpu: str | None = None
    recursive: bool
    batch: int
    page: int | None = None
    overwrite: bool
    skip_existing: bool
    resume: bool
    dry_run: bool
    check: bool
    format: str | None
    quality: int | None
    lossless: bool
    subsampling: Literal["keep", "444", "420"]
    background: tuple[int, int, int] | None
    strip: bool
    preserve: bool = False
    max_pixels: int
    as_json: bool
    events: str | None = None
    prune_below: float | None = None
    files_from: str | None = None
    relative_to: str | None = None
    shard: Shard | None = None
    retry_failed: bool = False
    save_kernel: Path | None = None
    kernel: Path | None = None
    input: InputChoice = "auto"
    denoise: bool = False
    deblock: bool = False

    @property
    def spec(self) -> ModelSpec:
        """Facts about the model that is meant."""
        return get_model(self.model) if self.model_file is None else foreign(self.model_file).spec

    @property
    def all_inputs(self) -> tuple[str, ...]:
        """Inputs, whichever way they were named."""
        return (*self.named, *self.inputs)

    @property
    def for_programs(self) -> bool:
        """True if standard output is for programs."""
        return self.as_json or self.events is not None

    @property
    def before(self) -> tuple[Task, ...]:
        """Tasks to do before enlarging."""
        from srcli.jobs.steps import wanted_before

        return wanted_before(deblock=self.deblock, denoise=self.denoise)

    @property
    def is_listed(self) -> bool:
        """True if the inputs are worked through as a list: one is given, or a store is named."""
        named = (*self.all_inputs, *([self.output] if self.output else []))
        return self.files_from is not None or any(map(stores.is_url, named))

    @property
    def journal(self) -> str:
        """Name of the journal that this process writes."""
        return "main" if self.shard is None else self.shard.journal

    def run_options(self) -> RunOptions:
        """Return the options for running the network."""
        from srcli.loading.restorer import RunOptions

        return RunOptions(
            backend=self.backend,
            precision=self.precision,
            tta=self.tta,
            threads=self.threads,
            tile=self.tile,
            memory=self.memory,
        )

    def save_options(self) -> SaveOptions:
        """Return the options for writing outputs."""
        from srcli.images import SaveOptions

        return SaveOptions(
            format=self.format,
            quality=self.quality,
            lossless=self.lossless,
            subsampling=self.subsampling,
            background=self.background,
            strip=self.strip,
        )


def settled(request: RestoreRequest) -> RestoreRequest:
    """Resolve aliases among options, and refuse options that contradict each other.

    Raises:
        UsageError: There is no input, or options exclude each other.
    """
    _check_inputs(request)
    if request.retry_failed:
        request = replace(request, resume=True)
    if request.as_json and request.events is not None:
        raise UsageError("--json and --events would share standard output", "Choose one.")
    if request.for_programs and sys.stdout is None:
        option = "--json" if request.as_json else "--events"
        raise UsageError(f"standard output: is closed, and {option} needs it", "Redirect it.")
    if any(mark in (request.suffix or "") for mark in ("/", os.sep)):
        raise UsageError(
            f"--suffix {request.suffix}: is a part of a file's name, and may hold no slash",
            "Name a folder with -o.",
        )
    if request.alias is not None:
        request = _with_alias(request, request.alias)
    if request.model_file is None and _is_file(request.model):
        request = replace(request, model=DEFAULT_MODEL, model_file=Path(request.model))
        return _checked(request, by_model=True)
    return _checked(request, by_model=False)


def _check_inputs(request: RestoreRequest) -> None:
    """Raise `UsageError` unless the inputs are named in one way."""
    if request.files_from is None and not request.all_inputs:
        raise UsageError("no input was named", "Give files, folders, patterns, or - for a pipe.")
    if request.files_from is not None and request.all_inputs:
        raise UsageError(
            f"{request.all_inputs[0]}: inputs are named by --files-from too",
            "Name all of them in one way.",
        )
    from srcli.jobs.finding import STDIO

    if request.is_listed and STDIO in request.all_inputs:
        raise UsageError("standard input cannot be read beside URLs", "Save it in a file first.")
    if not request.is_listed and request.relative_to is not None:
        raise UsageError("--relative-to is for --files-from and for URLs", "Leave it out.")
    for option, is_given in (
        ("--batch", request.batch > 1),
        ("--check", request.check),
        ("--save-kernel", request.save_kernel is not None),
    ):
        if request.is_listed and is_given:
            raise UsageError(
                f"{option} does not go with --files-from or URLs", f"Leave out {option}."
            )


def _is_file(model: str) -> bool:
    return model.lower().endswith(NETWORK_FILES)


def _with_alias(request: RestoreRequest, name: str) -> RestoreRequest:
    if name.lstrip("-").isdigit():
        raise UsageError(
            f"-n {name}: names the model here; in other programs it is a noise level",
            "Leave it out: `srcli denoise` finds the level by itself.",
        )
    if request.model_was_named:
        raise UsageError("-n and -m both name the model", "Give one of them.")
    return replace(request, model=name)


def _checked(request: RestoreRequest, *, by_model: bool) -> RestoreRequest:
    """Refuse options of our own models beside another network."""
    if request.model_file is None:
        return request
    own = {
        "--model": request.model_was_named and not by_model,
        "--weights": request.weights is not None,
        "--input": request.input != "auto",
        "--prune-branches": request.prune_below is not None,
    }
    for option in (name for name, is_given in own.items() if is_given):
        raise UsageError(
            f"{option} is for srcli's own models, and {request.model_file} is a network with "
            "weights of its own",
            f"Leave out {option} or --model-file.",
        )
    return request


@cache
def foreign(file: Path) -> ForeignModel:
    """Open a network that is not ours, and run it to find out its scale."""
    from srcli.loading.foreign import load_foreign

    return load_foreign(file, note=console.note)
