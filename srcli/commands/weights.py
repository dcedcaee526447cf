"""`srcli weights`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

import click

from srcli.commands import options
from srcli.errors import UsageError
from srcli.models.registry import DEFAULT_SCALE

if TYPE_CHECKING:
    from srcli.models.spec import ModelSpec, Publication

DECLINED = 1
MEGA = 1e6


@click.group()
def weights() -> None:
    """Work with files of weights."""


@weights.command()
@options.as_json
@click.pass_context
def verify(context: click.Context, as_json: bool) -> None:
    """Check that the weights that ship with srcli are whole.

    Each file is compared with its checksum in the manifest; exits with 1 if one differs or is
    missing.
    """
    from srcli import console
    from srcli.checkpoints.shipped import flaws
    from srcli.system.installation import reinstall

    found = {name: said or "ok" for name, said in flaws().items()}
    damaged = any(state != "ok" for state in found.values())
    if as_json:
        console.print_json({"files": found, "ok": not damaged})
    else:
        for name, state in found.items():
            console.result(f"{name}  {state}")
    if damaged:
        console.error(reinstall())
        context.exit(1)


@weights.command()
@click.argument("file", type=options.FILE)
@click.option(
    "-m",
    "--model",
    shell_complete=options.complete_models,
    help="Model of the checkpoint, if several models have these tensors.",
)
@click.option("-s", "--scale", type=int, help="Scale of the checkpoint, likewise.")
@click.option(
    "-o",
    "--output",
    type=options.FILE,
    metavar="OUT.safetensors",
    help="[default: beside the input]",
)
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
def convert(
    file: Path, model: str | None, scale: int | None, output: Path | None, overwrite: bool
) -> None:
    """Write a published checkpoint as safetensors.

    Its tensors show which model and scale it is. The header of the new file names the
    checkpoint and its checksum. A checkpoint that holds anything but tensors is refused.

    \b
    Example:
        srcli weights convert HPINet-S-x4.pth
        srcli upscale photo.png -m hpinet-s -s 4 --weights HPINet-S-x4.safetensors
    """
    from srcli import console
    from srcli.checkpoints.identify import convert as write
    from srcli.models.registry import get_model

    target = output or file.with_suffix(".safetensors")
    if target.suffix.lower() != ".safetensors":
        raise UsageError(f"{target}: must end in .safetensors", "Rename it.")
    options.check_file(target, overwrite)
    name = get_model(model).name if model else None
    found = write(file, target, model=name, scale=scale, replace=overwrite)
    console.result(f"{target}  {found.spec.name} x{found.scale}")


@weights.command()
@click.argument("name", shell_complete=options.complete_fetchable)
@click.option(
    "-s", "--scale", type=int, default=DEFAULT_SCALE, show_default=True, help="Enlargement."
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask; you have read the licence.")
def fetch(name: str, scale: int, yes: bool) -> None:
    """Download the weights that a model's authors publish.

    They are checked against the published checksum, converted to safetensors, and kept in the cache
    (SRCLI_CACHE); every command finds them there by itself. srcli does not own them: their licence
    is shown first. A download that was interrupted goes on where it stopped.

    Some authors publish where only a browser gets the file; the command then names the page.

    \b
    Example:
        srcli weights fetch hpinet-s -s 4
        srcli upscale photo.png -m hpinet-s -s 4
    """
    from srcli import console
    from srcli.checkpoints.fetching import fetch as download
    from srcli.checkpoints.fetching import find_publication
    from srcli.checkpoints.shipped import fetched_weights
    from srcli.models.registry import check_scale, get_model

    spec = get_model(name)
    check_scale(spec, scale)
    publication = find_publication(spec, scale)
    here = fetched_weights(spec, scale)
    if here is None:
        _show_terms(spec, scale, publication)
        _ask_leave(yes)
        with console.progress() as bar:
            path = download(spec, scale, bar.start(f"{spec.name} x{scale}"))
    else:
        path = here.path
    console.result(f"{path}  {spec.name} x{scale}")
    console.note(f"now: srcli upscale photo.png -m {spec.name} -s {scale}")


@weights.command("list")
@options.as_json
def listing(as_json: bool) -> None:
    """List the weights that models' authors publish, and whether they are here."""
    from srcli import console
    from srcli.models.registry import MODELS

    rows = [
        _publication_facts(spec, scale, publication)
        for spec in MODELS
        for scale, publication in spec.publications.items()
    ]
    if as_json:
        console.print_json(rows)
        return
    console.table(
        ("model", "scale", "get it", "here", "licence", "published at"),
        [
            (
                row["model"],
                f"x{row['scale']}",
                "fetch" if row["address"] else "by hand",
                "shipped: our own" if row["shipped"] else "fetched" if row["path"] else "no",
                row["licence"] or "none stated",
                row["page"],
            )
            for row in rows
        ],
    )


class _Row(TypedDict):
    """Weights that a model's authors publish, for people and for JSON."""

    model: str
    scale: int
    page: str
    file: str | None
    address: str | None
    sha256: str | None
    bytes: int | None
    licence: str | None
    path: str | None
    shipped: bool


def _publication_facts(spec: ModelSpec, scale: int, publication: Publication) -> _Row:
    from srcli.checkpoints.shipped import fetched_weights, find_weights

    fetched = fetched_weights(spec, scale)
    return {
        "model": spec.name,
        "scale": scale,
        "page": publication.page,
        "file": publication.file,
        "address": publication.address,
        "sha256": publication.sha256,
        "bytes": publication.size,
        "licence": publication.licence,
        "path": str(fetched.path) if fetched else None,
        "shipped": fetched is None and find_weights(spec, scale, "upscale") is not None,
    }


def _show_terms(spec: ModelSpec, scale: int, publication: Publication) -> None:
    from srcli import console

    size = f", {publication.size / MEGA:.1f} MB" if publication.size else ""
    console.note(
        f"{spec.title} x{scale}: {publication.file}{size}, published at {publication.page}"
    )
    if publication.sha256 is None:
        console.note(
            "its checksum is not known; names and shapes of its tensors are checked instead"
        )
    console.note(
        f"licence: {publication.licence}"
        if publication.licence
        else "licence: none is stated. Without one you may not be allowed to use or pass on the "
        "weights; ask their authors."
    )


def _ask_leave(yes: bool) -> None:
    from srcli import console

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(
            "there is no terminal to ask for consent", "Read the licence above and give --yes."
        )
    if not click.confirm("Download it?", err=True):
        console.note("nothing was downloaded")
        raise click.exceptions.Exit(DECLINED)
