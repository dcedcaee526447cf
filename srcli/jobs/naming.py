"""Name outputs: beside the input, in a tree of their own, or by a template."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from srcli.errors import UsageError
from srcli.images import FORMATS, format_of, has_picture_suffix, named_for_writing
from srcli.jobs.finding import STDIO, Found, as_path
from srcli.models.spec import Task

FIELDS = ("stem", "ext", "name", "dir", "model", "scale", "task")
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """Rules for the names of outputs."""

    output: str | None
    """A file, a folder (it exists, or ends in a slash), `-`, a template, or None for beside the
    input."""

    suffix: str
    """End of output names, before the suffix of the format: `_x4`."""

    format: str | None = None
    """The name of a format; None keeps that of the input."""

    facts: Mapping[str, str] | None = None
    """Values of `{model}`, `{scale}` and `{task}`."""

    folders: int = 1
    """Number of inputs that the user named."""

    alone: bool = True
    """True if there is one picture only."""

    def target(self, found: Found) -> tuple[Path, Path]:
        """Return the folder that outputs of this input's kind lie in or below, and the output.

        Raises:
            UsageError: One name was given for several pictures, or it says no format.
        """
        if self.output is not None and is_template(self.output):
            return self._by_template(found)
        if found.folder is not None:
            root = self._tree_root(found.folder)
            return root, self.with_format(root / found.source.relative_to(found.folder))
        if self.output == STDIO or (self.output is None and str(found.source) == STDIO):
            self._check_alone("standard output takes one picture", "Give a folder with -o.")
            return Path(STDIO), Path(STDIO)
        output = None if self.output is None else without_template(self.output)
        if output is not None and not is_folder(output):
            return self._one_file(output)
        folder = found.source.parent if output is None else Path(output)
        return folder, self.with_format(folder / self._named(found.source))

    def _one_file(self, output: str) -> tuple[Path, Path]:
        self._check_alone(
            f"{output}: names one file, and there are several pictures",
            "End it with a slash for a folder, or give a template such as "
            f"'{{stem}}{self.suffix}{{ext}}'.",
        )
        check_suffix(output, self.format)  # before any work
        return as_path(output).parent, as_path(output)

    def _check_alone(self, problem: str, remedy: str) -> None:
        if not self.alone:
            raise UsageError(problem, remedy)

    def _named(self, source: Path) -> str:
        stem = "stdin" if str(source) == STDIO else source.stem
        return f"{stem}{self.suffix}{source.suffix}"

    def _by_template(self, found: Found) -> tuple[Path, Path]:
        """Fill a template. Without a slash it is the name of a file where the output would lie."""
        plain = Naming(
            output=None, suffix=self.suffix, format=self.format, folders=self.folders, alone=True
        )
        root, usual = plain.target(found)
        if str(found.source) == STDIO:
            root, usual = Path(), Path("stdin.png")
        source = found.source if str(found.source) != STDIO else Path("stdin.png")
        folder = source.parent if found.folder is None else source.parent.relative_to(found.folder)
        ext = usual.suffix if has_picture_suffix(usual) else ".png"
        values = {
            **{"stem": source.stem, "ext": ext, "name": source.name, "dir": str(folder)},
            **(self.facts or {}),
        }
        assert self.output is not None, "a template was given"
        filled = _filled(self.output, values)
        check_suffix(filled, self.format)
        if "/" not in self.output and os.sep not in self.output:
            return root, usual.with_name(Path(filled).name)
        fixed = self.output.partition("{")[0]
        return Path(fixed.rpartition("/")[0] or ("/" if fixed.startswith("/") else ".")), Path(
            filled
        )

    def _tree_root(self, folder: Path) -> Path:
        """Return the root of a folder's outputs: `IN_x4` beside it, or in the folder of -o."""
        if self.output is None:
            named = folder if folder.name not in ("", "..") else folder.resolve()
            return named.with_name(f"{named.name}{self.suffix}")
        if self.output == STDIO:
            raise UsageError("standard output takes one picture", "Give a folder with -o.")
        output = Path(without_template(self.output))
        if self.folders == 1:
            return output
        return output / folder.resolve().name

    def with_format(self, target: Path) -> Path:
        """Give a name the suffix of the format that is asked for; else keep the input's format."""
        if self.format is not None and target.suffix.lower() not in FORMATS[self.format].suffixes:
            return target.with_name(f"{target.stem}{FORMATS[self.format].suffixes[0]}")
        return Path(named_for_writing(target))


def usual_suffix(task: Task, label: str) -> str:
    """Return the default end of output names: `_x4`, `_denoised`, `_deblocked`."""
    return {"denoise": "_denoised", "deblock": "_deblocked"}.get(task, f"_{label}")


def is_template(output: str) -> bool:
    """Tell whether an output has fields such as `{stem}`."""
    return any(found[1] is not None for found in _FIELD.finditer(output))


def without_template(output: str) -> str:
    """Return a name without fields, with doubled braces made single."""
    return output if os.path.lexists(output) else _filled(output, {})


def is_folder(output: str) -> bool:
    """Tell whether an output is a folder: it exists, or ends in a slash."""
    return output.endswith(("/", os.sep)) or os.path.isdir(output)


def check_forgotten_option(inputs: Sequence[str], output: str | None) -> None:
    """Raise if the last input seems to be meant as the output: `in.png out.png`.

    Raises:
        UsageError: It is called like a picture and is not there, and all others are there.
    """
    *others, last = inputs
    seems = others and output is None and has_picture_suffix(last) and not re.search(r"[*?[]", last)
    if not seems or os.path.lexists(last):
        return
    if all(text == STDIO or os.path.lexists(text) for text in others):
        raise UsageError(f"{last}: there is no such file", f"Did you mean -o {last}?")


def _filled(template: str, values: Mapping[str, str]) -> str:
    def fill(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]  # a doubled brace
        if match[1] not in values:
            known = " ".join(f"{{{name}}}" for name in FIELDS)
            raise UsageError(
                f"{template}: there is no {match[0]}",
                f"Use {known}; double a brace that is meant as it stands.",
            )
        return values[match[1]]

    return _FIELD.sub(fill, template)


def check_suffix(output: str, wanted: str | None) -> None:
    """Raise `UsageError` if the name states no format, or another one than is wanted."""
    fmt = format_of(wanted or output)
    if wanted is not None and has_picture_suffix(output) and format_of(output) is not fmt:
        raise UsageError(
            f"{output}: this name is that of another format than --format {wanted}",
            "Change it, or leave out --format.",
        )
