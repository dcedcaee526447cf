"""The command line: commands that are loaded when needed, and the handler of all errors."""

from __future__ import annotations

import errno
import importlib
import io
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

import click

from srcli import __version__
from srcli.errors import MissingPartError, OutputError, SrcliError, UsageError, first_line

INTERRUPTED = 130
_KILLED = tuple(
    128 + getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)

# Where each command lives, so that `srcli --help` loads none of the heavy libraries. A string,
# because `export` builds on this package and is never imported by it.
COMMANDS: Mapping[str, str] = {
    "upscale": "srcli.commands.upscale:upscale",
    "denoise": "srcli.commands.denoise:denoise",
    "deblock": "srcli.commands.deblock:deblock",
    "compare": "srcli.commands.compare:compare",
    "serve": "srcli.commands.serve:serve",
    "video": "srcli.commands.video:video",
    "batch": "srcli.commands.batch:batch",
    "ray": "srcli.commands.ray:ray_group",
    "models": "srcli.commands.models:models",
    "pick": "srcli.commands.pick:pick",
    "eval": "srcli.commands.eval:evaluate",
    "export": "srcli.export.cli:export",
    "weights": "srcli.commands.weights:weights",
    "filters": "srcli.commands.filters:filters",
    "attribute": "srcli.commands.attribute:attribute",
    "bench": "srcli.commands.bench:bench",
    "doctor": "srcli.commands.doctor:doctor",
}


# Packages that some commands need, and those of them that an extra of srcli brings.
PACKAGES = (
    "av",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "openvino",
    "prometheus_client",
    "ray",
    "starlette",
    "tensorrt",
    "torch",
    "uvicorn",
)
EXTRAS: Mapping[str, str] = {
    "av": "video",
    "matplotlib": "plot",
    "openvino": "openvino",
    "prometheus_client": "serve",
    "ray": "ray",
    "starlette": "serve",
    "tensorrt": "tensorrt",
    "uvicorn": "serve",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; raise if the reader of stdout has gone, where click would stay silent."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGoneError from error


class ReaderGoneError(Exception):
    """Standard output is read no longer (`| head`)."""


@click.group(
    cls=LazyGroup,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": lambda token: token.replace("_", "-"),
    },
)
@click.version_option(__version__, prog_name="srcli")
def cli() -> None:
    """Small, fast, exact image restoration: super-resolution, denoising, JPEG deblocking."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    for name in ("SIGTERM", "SIGHUP"):  # the latter when a terminal is closed
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # by nohup
            signal.signal(number, _terminate)
    try:
        _fill_missing_streams()
        _print_any_name()
        code = run(arguments)
    except SystemExit as leave:  # a polite kill
        code = leave.code if isinstance(leave.code, int) else 1
    except KeyboardInterrupt:  # before the command line was read, or while an error was shown
        code = INTERRUPTED
    if code in (INTERRUPTED, *_KILLED):
        _leave_at_once(code)
    sys.exit(code)


def _fill_missing_streams() -> None:
    """Replace the streams that a shell has closed (`2>&-`) by the null device.

    Otherwise the next file that is opened gets its number, and what a library writes there, such as
    a warning, lands in a picture. Python's own `sys.stderr` stays None, so nothing is written.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)


def _leave_at_once(code: int) -> None:
    """End an interrupted process without waiting for threads that are still computing."""
    from srcli.system.files import discard_unfinished

    discard_unfinished()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def _print_any_name() -> None:
    """Let stdout print any name: bytes that are no text as they are, other letters as codes."""
    stream = sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        unicode = stream.encoding.lower() in ("utf-8", "utf8")
        stream.reconfigure(errors="surrogateescape" if unicode else "backslashreplace")


def _terminate(number: int, frame: object) -> None:
    """Clean up at SIGTERM as at Ctrl-C; by default temporary files would stay."""
    sys.exit(128 + number)


def missing_part(error: ImportError) -> MissingPartError | None:
    """Return the error for users if a package that a command needs cannot be loaded."""
    name = (error.name or "").partition(".")[0]
    if name not in PACKAGES:
        return None
    from srcli.system.installation import pip_install

    problem = f"this command needs {name}, which cannot be loaded ({first_line(error)})"
    command = pip_install(EXTRAS[name]) if name in EXTRAS else f"pip install {name}"
    return MissingPartError(problem, f"Run `{command}`.")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the one place where errors become a message and an exit code.

    Errors that are not meant for users keep their traceback: they are bugs.
    """
    from srcli import console

    console.begin()
    try:
        outcome = cli.main(
            args=None if arguments is None else list(arguments),
            prog_name="srcli",
            standalone_mode=False,
        )
    except SrcliError as error:
        console.error(str(error))
        return error.exit_code
    except ImportError as error:
        if (missing := missing_part(error)) is None:
            raise
        console.error(str(missing))
        return missing.exit_code
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.Abort:
        console.note("interrupted")
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except KeyboardInterrupt:
        console.note("interrupted")
        return INTERRUPTED
    except (ReaderGoneError, BrokenPipeError):
        console.give_up_stdout()  # that is the reader's right; Python would complain at exit
        return 0
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            console.error(f"{error.filename}: the name is too long. Give a shorter one.")
            return UsageError.exit_code
        if error.errno == errno.ENOSPC and error.filename is None:
            console.error("standard output: cannot be written (no space left on the device).")
            console.give_up_stdout()  # Python would try again at exit
            return OutputError.exit_code
        raise
    return outcome if isinstance(outcome, int) else 0
