"""What a release holds: `srcli-lite`, `srcli`, `srcli-dcls`, derived from one `pyproject.toml`."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from srcli.health import installed

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MANIFEST = tomllib.loads((ROOT / "weights" / "manifest.toml").read_text())
HEAVY = set(PROJECT["tool"]["distributions"]["full"])


@pytest.fixture(scope="module")
def distributions():
    """The script, as a module."""
    pytest.importorskip("tomli_w", reason="needs srcli[release]")
    place = ROOT / "packaging" / "distributions.py"
    spec = importlib.util.spec_from_file_location("distributions", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def names(requirements):
    return {Requirement(text).name for text in requirements}


def test_the_heavy_packages_are_required_by_a_clone():
    assert names(PROJECT["project"]["dependencies"]) > HEAVY


def test_the_doctor_knows_what_the_small_install_lacks():
    assert set(installed.PURPOSES) == HEAVY - {"onnxruntime-gpu"}


@pytest.mark.environments
def test_both_together_require_what_a_clone_does(distributions):
    small = distributions.small(PROJECT)["project"]
    full = distributions.full(PROJECT)["project"]
    assert (small["name"], full["name"]) == ("srcli-lite", "srcli")
    assert f"srcli-lite=={small['version']}" in full["dependencies"]
    assert not names(small["dependencies"]) & HEAVY
    both = {*small["dependencies"], *full["dependencies"]} - {f"srcli-lite=={small['version']}"}
    assert both == set(PROJECT["project"]["dependencies"])


@pytest.mark.environments
def test_both_have_every_extra_and_one_has_the_command(distributions):
    small = distributions.small(PROJECT)["project"]
    full = distributions.full(PROJECT)["project"]
    extras = PROJECT["project"]["optional-dependencies"]
    assert small["optional-dependencies"] == extras
    assert full["optional-dependencies"] == {**extras, "dcls": [f"srcli-dcls=={full['version']}"]}
    assert small["scripts"] == PROJECT["project"]["scripts"]
    assert "scripts" not in full


def test_the_readmes_lines_name_what_is_built():
    """In a table, each with the extras that it has."""
    readme = (ROOT / "README.md").read_text()
    lines = re.findall(r"\| `pip install ([a-z-]+)(?:\[([a-z,]+)\])?` \|", readme)
    assert [name for name, _ in lines] == ["srcli", "srcli", "srcli-lite", "srcli"]
    extras = {*PROJECT["project"]["optional-dependencies"], "dcls"}
    assert {extra for _, text in lines for extra in text.split(",") if extra} <= extras


@pytest.mark.environments
def test_a_release_needs_what_it_compiles(tmp_path):
    """With SRCLI_REQUIRE_NATIVE=1 a compiler that fails stops the build; otherwise it does not."""
    for required in ("0", "1"):
        target = tmp_path / required
        environment = {**os.environ, "CC": "false", "SRCLI_REQUIRE_NATIVE": required}
        command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(target)]
        command += ["--build-temp", str(tmp_path / "temp")]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert (done.returncode == 0) == (required == "0"), done.stderr
        assert not list(target.rglob("_*.*"))


# What was built.

MAX_BYTES = 90_000_000  # of weights; package registries take files of up to 100 MB

PAGES = (
    *(f"{page}.{kind}" for page in ("compare", "serve") for kind in ("html", "css", "js")),
    "base.css",
    "head.html",
    "index.html",
    "report.html",
    "viewer.css",
    "viewer.js",
)
"""Files of the pages for browsers."""


def built(pattern):
    version = PROJECT["project"]["version"]
    found = sorted((ROOT / "dist").glob(pattern.format(version)))
    assert len(found) == 1, f"dist/ must hold one {pattern.format(version)}: `make environments`"
    return found[0]


def contents(wheel):
    """The files of a wheel, without its metadata; and that."""
    with zipfile.ZipFile(wheel) as archive:
        files = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        return files, Parser().parsestr(archive.read(metadata).decode())


def modules():
    """The Python files that are installed."""
    for package in PROJECT["tool"]["setuptools"]["packages"]:
        folder = ROOT / package.removeprefix("srcli.")
        if package not in ("srcli.export", "srcli.weights"):
            folder = ROOT.joinpath(*package.split("."))
        yield from (f"{package.replace('.', '/')}/{file.name}" for file in folder.glob("*.py"))


def weights_of(distribution):
    """The files of weights that it should hold."""
    for name, row in MANIFEST.items():
        if row.get("distribution", "srcli-lite") == distribution:
            yield f"srcli/weights/{name}.safetensors"
            if "prepared_sha256" in row:
                yield f"srcli/weights/prepared/{name}.safetensors"


@pytest.mark.environments
def test_contents_of_the_small_wheel():
    files, metadata = contents(built("srcli_lite-{}-cp311-abi3-*.whl"))
    compiled = {name for name in files if name.endswith((".so", ".pyd"))}
    assert {name.partition(".")[0] for name in compiled} == {
        "srcli/backends/filters/_filters",
        "srcli/backends/native/_network",
    }
    data = {
        "srcli/py.typed",
        "srcli/backends/cuda/tunings.json",
        "srcli/export/sample.png",
        "srcli/weights/SOURCES.tsv",
        "srcli/weights/manifest.toml",
        *(f"srcli/pages/assets/{name}" for name in PAGES),
    }
    assert files - compiled == {*modules(), *weights_of("srcli-lite"), *data}
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]


@pytest.mark.environments
@pytest.mark.parametrize("name", ["srcli", "srcli-dcls"])
def test_contents_of_the_other_wheels(name):
    """No file of one is in another wheel."""
    wheel = built(f"{name.replace('-', '_')}-{{}}-py3-none-any.whl")
    assert wheel.stat().st_size < MAX_BYTES
    files, metadata = contents(wheel)
    assert files == {*weights_of(name)}
    assert not files & contents(built("srcli_lite-{}-cp311-abi3-*.whl"))[0]
    assert metadata.get_all("License-File") == ["LICENSE"]


def test_weights_are_in_a_distribution_that_is_built():
    assert {row.get("distribution", "srcli") for row in MANIFEST.values()} == {
        "srcli",
        "srcli-dcls",
    }


def test_the_weights_that_come_with_srcli_are_few_megabytes():
    """DCLS is apart."""
    names = (name for kind in ("srcli-lite", "srcli") for name in weights_of(kind))
    sizes = [(ROOT / name.removeprefix("srcli/")).stat().st_size for name in names]
    assert sum(sizes) < MAX_BYTES


@pytest.mark.environments
def test_contents_of_the_sources():
    """What compiles is there, and neither tests nor unfinished weights are."""
    with tarfile.open(built("srcli_lite-{}.tar.gz")) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "setup.py", "weights/manifest.toml"} <= files
    assert {f"srcli/backends/{name}" for name in HEADERS} <= files
    assert not [name for name in files if name.startswith(("tests", "benchmarks"))]
    assert not [name for name in files if "unfinished" in name or name.endswith(".onnx")]


HEADERS = ("filters/_filter_block.h", "native/_network_kernels.h")
