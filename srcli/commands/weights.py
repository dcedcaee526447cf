"""`srcli weights`."""

from __future__ import annotations

from pathlib import Path

import click

from srcli.errors import OutputExistsError, UsageError


@click.group()
def weights() -> None:
    """Work with files of weights."""


@weights.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("-m", "--model", help="Which model it is, where the tensors do not tell.")
@click.option("-s", "--scale", type=int, help="The same for the scale.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="OUT.safetensors",
    help="[default: beside the input]",
)
@click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")
def convert(
    file: Path, model: str | None, scale: int | None, output: Path | None, overwrite: bool
) -> None:
    """Write a published checkpoint as safetensors.

    Which model and scale it is, is found by its tensors. The header of the new file names the
    checkpoint and its checksum. A checkpoint that holds anything but tensors is refused.

    \b
    Example:
        srcli weights convert HPINet-S-x4.pth
        srcli upscale photo.png -m hpinet-s -s 4 --weights HPINet-S-x4.safetensors
    """
    from srcli import console
    from srcli.artifacts import convert as write
    from srcli.registry import get_model

    target = output or file.with_suffix(".safetensors")
    if target.suffix.lower() != ".safetensors":
        raise UsageError(f"{target}: must end in .safetensors. Rename it.")
    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target}: exists already. Give -o, or --overwrite to replace it.")
    found = write(file, target, model=get_model(model).name if model else None, scale=scale)
    console.result(f"{target}  {found.spec.name} x{found.scale}")
