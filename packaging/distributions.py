"""Build what a release consists of: sdists and wheels of `srcli-lite`, `srcli` and `srcli-dcls`.

    python packaging/distributions.py dist  # needs `pip install -e .[release]`

With --portable, the wheel of `srcli-lite` is left out: each system and processor has its own.

`srcli-lite` holds the code, the compiled modules and most weights, and requires only what LAPAR and
AWSRN take on a CPU. `srcli` requires it in the same version, and the packages that are listed as
`full` in `pyproject.toml`; of files it has only weights. `srcli-dcls` has nothing but weights too:
`pip install 'srcli[dcls]'` brings it. The manifest says which weights are whose. So no file is in
two of them: each can be installed, updated and removed beside the others. All of this is derived
from the repository's own `pyproject.toml`, which describes what a clone installs.
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
        for name, made in ((FULL, full(project())), *parts(project()).items()):
            build(weights_tree(Path(folder) / name, name, made), arguments.out, [])


def build(tree: Path, out: Path, options: list[str]) -> None:
    """Build the sdist of a tree, and from that the wheel, as those do who get the sdist."""
    command = [sys.executable, "-m", "build", "--outdir", str(out.resolve()), *options, str(tree)]
    subprocess.run(command, check=True, cwd=tree)


def small_tree(folder: Path) -> Path:
    """Make the sources of `srcli-lite`: the repository's, less the weights of the others."""
    folder.mkdir(parents=True)
    others = [name for names in weights_elsewhere().values() for name in names]
    ignored = shutil.ignore_patterns("__pycache__", "*.so", "*.pyd", "unfinished", *others)
    for name in BUILT:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)
    (folder / "pyproject.toml").write_text(tomli_w.dumps(small(project())), "utf-8")
    return folder


def weights_tree(folder: Path, name: str, made: Project) -> Path:
    """Make the sources of a distribution without code: its requirements, and its weights."""
    (folder / "weights" / "prepared").mkdir(parents=True)
    for file in ("LICENSE", "README.md"):
        shutil.copy(ROOT / file, folder / file)
    for weights in weights_elsewhere()[name]:
        for place in (Path("weights"), Path("weights", "prepared")):
            if (ROOT / place / weights).exists():
                shutil.copy(ROOT / place / weights, folder / place / weights)
    (folder / "pyproject.toml").write_text(tomli_w.dumps(made), "utf-8")
    return folder


def project() -> Project:
    """Return the repository's `pyproject.toml`."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def weights_elsewhere() -> dict[str, list[str]]:
    """Return the names of the weights that `srcli-lite` comes without, by distribution."""
    manifest = tomllib.loads((ROOT / "weights" / "manifest.toml").read_text("utf-8"))
    found: dict[str, list[str]] = {}
    for name, row in manifest.items():
        if "distribution" in row:
            found.setdefault(row["distribution"], []).append(f"{name}.safetensors")
    return found


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
    for name in parts(whole):
        extra = name.removeprefix(f"{FULL}-")
        table["optional-dependencies"][extra] = [f"{name}=={table['version']}"]
    return weights_only(whole, table)


def parts(whole: Project) -> dict[str, Project]:
    """Return the `pyproject.toml` of each distribution that has weights alone, by its name."""
    made = {}
    for name in weights_elsewhere():
        if name != FULL:
            table = copy.deepcopy(whole["project"])
            table |= {"name": name, "dependencies": [f"{FULL}=={table['version']}"]}
            table["description"] = f"Weights of srcli that are too large for {FULL} itself"
            del table["scripts"], table["optional-dependencies"]
            made[name] = weights_only(whole, table)
    return made


def weights_only(whole: Project, table: Project) -> Project:
    """Return the `pyproject.toml` of a distribution whose files are weights."""
    setuptools = {
        "packages": ["srcli.weights"],
        "package-dir": {"srcli.weights": "weights"},
        "package-data": {"srcli.weights": ["*.safetensors", "prepared/*.safetensors"]},
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
