"""`srcli serve`."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import click

from srcli.commands import options
from srcli.commands.sections import SectionedCommand, section
from srcli.errors import InputError, UsageError

if TYPE_CHECKING:
    from srcli.backends.base import Precision
    from srcli.serving.settings import Tell

TOKEN = "SRCLI_TOKEN"
LEAST_TOKEN = 16  # letters


@click.command(cls=SectionedCommand)
@section(
    "Address",
    click.option(
        "--host",
        default="127.0.0.1",
        show_default=True,
        metavar="ADDRESS",
        help="Listen at this address. By default only this machine can reach it; 0.0.0.0 is all of "
        "its addresses. Any but this machine's own needs a token.",
    ),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=8000,
        show_default=True,
        metavar="N",
        help="Port; 0 for one that is free.",
    ),
    click.option(
        "--allow-host",
        "names",
        multiple=True,
        metavar="NAME",
        help="A name that clients may call the service by, such as that of a proxy. May be "
        "repeated.",
    ),
    click.option(
        "--token-file",
        type=options.FILE,
        metavar="FILE",
        help=f"Ask clients for the token in this file, or in {TOKEN}.  [default: none at this "
        "machine's own address; elsewhere one is made, and printed]",
    ),
)
@section(
    "Models",
    click.option(
        "-m",
        "--model",
        "models",
        multiple=True,
        metavar="NAME",
        shell_complete=options.complete_models,
        help="Offer this model; the first is the default. May be repeated.  [default: all LAPAR "
        "and AWSRN whose weights are here, lapar-c first]",
    ),
)
@section(
    "Limits",
    click.option(
        "--lanes",
        type=click.IntRange(1, 64),
        metavar="N",
        help="Pictures to restore at a time.  [default: one for each core, at most 4]",
    ),
    click.option(
        "--queue",
        type=click.IntRange(0, 10_000),
        default=16,
        show_default=True,
        metavar="N",
        help="Pictures that may wait; more are answered by 503 and Retry-After.",
    ),
    click.option(
        "--max-bytes",
        type=options.memory_size,
        default="64M",
        show_default=True,
        metavar="SIZE",
        help="Refuse larger files.",
    ),
    click.option(
        "--max-pixels",
        type=click.IntRange(min=1),
        default=64_000_000,
        show_default=True,
        metavar="N",
        help="Refuse larger pictures, as inputs and as outputs.",
    ),
    click.option(
        "--seconds",
        type=options.Range(min=0.1),
        default=120.0,
        show_default=True,
        metavar="S",
        help="Give up a picture that is not restored by then, waiting included.",
    ),
    click.option(
        "--transfer-seconds",
        type=options.Range(min=0.1),
        default=30.0,
        show_default=True,
        metavar="S",
        help="Give up a client that takes longer to send its picture, or to take a part of the "
        "answer.",
    ),
    click.option(
        "--grace",
        type=options.Range(min=1),
        default=60.0,
        show_default=True,
        metavar="S",
        help="Time for what was begun, when the service is told to stop.",
    ),
)
@section(
    "Running",
    *options.RUNNING,
)
@section(
    "Messages",
    click.option(
        "--log-json", is_flag=True, help="Write the journal to stderr as JSON, one object a line."
    ),
    options.quiet,
    options.verbose,
)
def serve(
    host: str,
    port: int,
    names: tuple[str, ...],
    token_file: Path | None,
    models: tuple[str, ...],
    lanes: int | None,
    queue: int,
    max_bytes: int,
    max_pixels: int,
    seconds: float,
    transfer_seconds: float,
    grace: float,
    backend: str,
    precision: Precision,
    tta: bool,
    threads: int | None,
    gpu: str | None,
    tile: int | None,
    memory: int | None,
    log_json: bool,
) -> int:
    """Offer a page for a browser, and HTTP for programs.

    Open the address that is printed: drop pictures, choose, compare, download. Programs send a
    file's bytes to /v1/upscale, /v1/denoise or /v1/deblock and get those of the result, the same as
    the commands write. /openapi.json describes it; /metrics is for Prometheus.

    Pictures stay in memory and are forgotten when they are answered. After SIGTERM or Ctrl-C what
    was begun is finished first.

    \b
    Examples:
        srcli serve
        srcli serve --port 9000 --lanes 2 --queue 32 --log-json
        curl --data-binary @photo.png 'http://127.0.0.1:8000/v1/upscale?scale=2' -o large.png
    """
    from srcli.loading.restorer import RunOptions
    from srcli.pipeline.budget import MAX_CONCURRENCY
    from srcli.serving.server import run
    from srcli.serving.settings import Settings
    from srcli.system.machine import usable_cores

    settings = Settings(
        host=host,
        port=port,
        names=names,
        token=_token(host, token_file),
        models=_offered(models),
        options=RunOptions(
            backend=backend,
            precision=precision,
            tta=tta,
            threads=threads,
            tile=tile,
            memory=memory,
        ),
        lanes=lanes or min(threads or usable_cores(), MAX_CONCURRENCY),
        queue=queue,
        max_bytes=max_bytes,
        max_pixels=max_pixels,
        seconds=seconds,
        transfer_seconds=transfer_seconds,
        grace=grace,
    )
    return run(settings, _tell(log_json))


def _offered(models: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of the models to offer, the default first.

    Raises:
        UnknownModelError: There is no such model.
    """
    from srcli.checkpoints.shipped import shipped_weights
    from srcli.models.registry import DEFAULT_MODEL, MODELS, get_model

    if models:
        return tuple(dict.fromkeys(get_model(name).name for name in models))
    here = {weights.model for weights in shipped_weights()}
    names = [spec.name for spec in MODELS if spec.compiled and spec.name in here]
    return tuple(sorted(names, key=lambda name: name != DEFAULT_MODEL))


def _token(host: str, file: Path | None) -> str | None:
    """Return the token that clients must send; None where only this machine can reach the service.

    Raises:
        InputError: The file cannot be read.
        UsageError: The token is too short, or no text, or nobody would get to know it.
    """
    from srcli import console
    from srcli.serving.settings import is_local

    if file is not None:
        try:
            return _checked(file.read_text("utf-8").strip(), str(file))
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: cannot be read as text", "Check the file.") from error
    if TOKEN in os.environ:
        return _checked(os.environ[TOKEN].strip(), TOKEN)
    if is_local(host):
        return None
    if console.is_quiet():
        raise UsageError(
            f"--quiet hides the token that is made for {host}", f"Give --token-file or {TOKEN}."
        )
    return secrets.token_urlsafe(24)


def _checked(token: str, place: str) -> str:
    if len(token) < LEAST_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"{place}: a token has at least {LEAST_TOKEN} letters and digits, without spaces",
            "Make one with `openssl rand -hex 16`.",
        )
    return token


def _tell(log_json: bool) -> Tell:
    from srcli import console
    from srcli.serving.settings import Tell

    if log_json:
        return Tell(
            line=lambda line: console.note(json.dumps({"message": line})),
            record=lambda record: console.note(json.dumps(record)),
        )
    return Tell(line=console.note, record=_note_request)


def _note_request(record: dict[str, object]) -> None:
    """Write a line about a request; those of the page's own files are details."""
    from srcli import console

    line = f"{record['method']} {record['path']} {record['status']} {record['seconds']} s"
    for name in ("model", "scale", "output", "problem", "fault"):
        if record.get(name) not in (None, ""):
            line += f"  {name} {record[name]}"
    (console.note if str(record["path"]).startswith("/v1/") else console.detail)(line)
