"""Show help in sections, at the width of the terminal."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Protocol, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., object])
NARROWEST, WIDEST = 60, 120
NAMES = 30  # letters for the names of options: the texts of all sections begin below each other
OTHER = "Other"
_ATTRIBUTE = "srcli_section"


class Decorator(Protocol):
    """A decorator that adds options to a command."""

    def __call__(self, command: Command, /) -> Command:
        """Return the command, on which its options are noted."""
        ...


def section(title: str, *options: Decorator) -> Decorator:
    """Join options into one decorator, and show them under a title in the help."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            before = len(_parameters(command))
            command = option(command)
            for parameter in _parameters(command)[before:]:
                if not hasattr(parameter, _ATTRIBUTE):
                    setattr(parameter, _ATTRIBUTE, title)
        return command

    return decorate


def _parameters(command: object) -> list[click.Parameter]:
    """Return what click has noted of a function's parameters so far."""
    found: list[click.Parameter] = getattr(command, "__click_params__", [])
    return found


class Sectioned(click.Command):
    """A base class of commands and groups whose options stand under titles."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: object,
    ) -> click.Context:
        """Return a context whose help is as wide as is easy to read; click calls this."""
        extra.setdefault("max_content_width", help_width())
        return super().make_context(info_name, args, parent, **extra)

    def write_sections(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a list of options for each section, in the order in which they appear."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                title = getattr(parameter, _ATTRIBUTE, OTHER)
                sections.setdefault(title, []).append(record)
        if OTHER in sections:
            sections[OTHER] = sections.pop(OTHER)  # the last
        width = max(len(name) for records in sections.values() for name, _ in records)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name.ljust(min(width, NAMES)), text) for name, text in records]
                )


class SectionedCommand(Sectioned):
    """A command whose options stand under titles."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options; click calls this."""
        self.write_sections(ctx, formatter)


class SectionedGroup(Sectioned, click.Group):
    """A group whose own options stand under titles, its commands below them."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options and commands; click calls this."""
        self.write_sections(ctx, formatter)
        self.format_commands(ctx, formatter)


def help_width() -> int:
    """Return the width of help: that of the terminal, within what is easy to read."""
    return max(NARROWEST, min(WIDEST, shutil.get_terminal_size().columns - 2))
