"""Build what a release consists of: sdists and wheels of `srcli-lite` and of `srcli`.

    python packaging/distributions.py dist  # needs `pip install -e .[release]`

With --portable, the wheel of `srcli-lite` is left out: each system and processor has its own.

`srcli-lite` holds the code, the compiled modules and the weights, and requires only what LAPAR and
AWSRN take on a CPU. `srcli` requires it in the same version, and the packages that are listed as
`full` in `pyproject.toml`; of files it has only the weights that are `full_only` in the manifest.
So no file is in both: each can be installed, updated and removed beside the other. All of this is
derived from the repository's own `pyproject.toml`, which describes what a clone installs.
"""

from __future__ import annotations

import argparse
import copy
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import tomli_w
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
FULL, SMALL = "srcli", "srcli-lite"
BUILT = (
    *("srcli", "export", "weights", "setup.py", "MANIFEST.in", "LICENSE", "README.md"),
    "pyproject.toml",
)
Project = dict[str, Any]


def main() -> None:
    """Build both distributions into a folder."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--portable", action="store_true", help="build no wheel of srcli-lite")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        small_options = ["--sdist"] if arguments.portable else []
        build(small_tree(Path(folder) / SMALL), arguments.out, small_options)
        build(full_tree(Path(folder) / FULL), arguments.out, [])


def build(tree: Path, out: Path, options: list[str]) -> None:
    """Build the sdist of a tree, and from that the wheel, as those do who get the sdist."""
    command = [sys.executable, "-m", "build", "--outdir", str(out.resolve()), *options, str(tree)]
    subprocess.run(command, check=True, cwd=tree)


def small_tree(folder: Path) -> Path:
    """Make the sources of `srcli-lite`: the repository's, less what only `srcli` brings."""
    folder.mkdir(parents=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "unfinished", *full_weights())
    for name in BUILT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    (folder / "pyproject.toml").write_text(tomli_w.dumps(small(project())), "utf-8")
    return folder


def full_tree(folder: Path) -> Path:
    """Make the sources of `srcli`: its requirements, and large weights."""
    weights = folder / "weights"
    weights.mkdir(parents=True)
    for name in ("LICENSE", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    for name in full_weights():
        shutil.copy(ROOT / "weights" / name, weights / name)
    (folder / "pyproject.toml").write_text(tomli_w.dumps(full(project())), "utf-8")
    return folder


def project() -> Project:
    """Return the repository's `pyproject.toml`."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def full_weights() -> list[str]:
    """Return the names of the weights that `srcli-lite` comes without."""
    manifest = tomllib.loads((ROOT / "weights" / "manifest.toml").read_text("utf-8"))
    return [f"{name}.safetensors" for name, row in manifest.items() if row.get("full_only")]


def small(whole: Project) -> Project:
    """Return the `pyproject.toml` of `srcli-lite`."""
    made = copy.deepcopy(whole)
    table = made["project"]
    table["name"] = SMALL
    heavy = whole["tool"]["distributions"]["full"]
    table["dependencies"] = [text for text in table["dependencies"] if name_of(text) not in heavy]
    made["tool"] = {name: made["tool"][name] for name in ("setuptools", "distutils")}
    return made


def full(whole: Project) -> Project:
    """Return the `pyproject.toml` of `srcli`, as a release has it."""
    table = copy.deepcopy(whole["project"])
    heavy = whole["tool"]["distributions"]["full"]
    table["dependencies"] = [
        f"{SMALL}=={table['version']}",
        *(text for text in table["dependencies"] if name_of(text) in heavy),
    ]
    del table["scripts"]  # the other's
    setuptools = {
        "packages": ["srcli.weights"],
        "package-dir": {"srcli.weights": "weights"},
        "package-data": {"srcli.weights": ["*.safetensors"]},
    }
    return {
        "build-system": whole["build-system"],
        "project": table,
        "tool": {"setuptools": setuptools},
    }


def name_of(requirement: str) -> str:
    """Return the name of the package that a requirement is about."""
    return Requirement(requirement).name


if __name__ == "__main__":
    main()
