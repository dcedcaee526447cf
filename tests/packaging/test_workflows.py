"""The workflows of GitHub: what they build and test is what `pyproject.toml` promises."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PREFIX = "Programming Language :: Python :: "


def workflow(name):
    return yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())


def steps(file):
    return [
        step for job in yaml.safe_load(file.read_text())["jobs"].values() for step in job["steps"]
    ]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_steps_do_one_thing_with_pinned_actions(file):
    for step in steps(file):
        assert ("run" in step) != ("uses" in step), step
        assert "uses" not in step or re.search(r"@(v\d|release/v\d)", step["uses"]), step


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_jobs_wait_for_jobs_that_exist(file):
    content = yaml.safe_load(file.read_text())
    assert content["permissions"] == {"contents": "read"}  # a job asks for more where it needs it
    for job in content["jobs"].values():
        needs = job.get("needs", [])
        assert {needs} if isinstance(needs, str) else set(needs) <= set(content["jobs"])


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_runs_is_there(file):
    """Targets of the Makefile, extras, and files that the steps name."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    extras = set(PROJECT["project"]["optional-dependencies"])
    said = "\n".join(step.get("run", "") for step in steps(file))
    assert set(re.findall(r"\bmake ([a-z-]+)", said)) <= targets
    for names in re.findall(r"-e \.\[([a-z,]+)\]", said):
        assert set(names.split(",")) <= extras
    for place in re.findall(r"packaging/[\w.]+", said):
        assert (ROOT / place).exists(), place


def test_every_python_is_tested_that_is_promised():
    tested = workflow("ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    promised = [
        text.removeprefix(PREFIX)
        for text in PROJECT["project"]["classifiers"]
        if text.startswith(PREFIX)
    ]
    assert tested["python"] == promised
    assert PROJECT["project"]["requires-python"] == f">={promised[0]}"
    assert [name.partition("-")[0] for name in tested["os"]] == ["ubuntu", "macos", "windows"]


def test_wheels_are_built_for_every_system():
    job = workflow("wheels.yml")["jobs"]["wheels"]
    built = {(row["platform"], row["arch"]) for row in job["strategy"]["matrix"]["include"]}
    linux = {("linux", "x86_64"), ("linux", "aarch64")}
    assert built == {*linux, ("macos", "arm64"), ("macos", "x86_64"), ("windows", "AMD64")}


def test_wheels_are_built_for_the_oldest_python_and_compiled():
    options = tomllib.loads((ROOT / "packaging" / "cibuildwheel.toml").read_text())["tool"]
    tag = PROJECT["tool"]["distutils"]["bdist_wheel"]["py-limited-api"]
    assert options["cibuildwheel"]["build"] == f"{tag}-*"
    for table in (options["cibuildwheel"], options["cibuildwheel"]["macos"]):
        assert table["environment"]["SRCLI_REQUIRE_NATIVE"] == "1"


def test_only_a_tag_publishes():
    job = workflow("wheels.yml")["jobs"]["publish"]
    assert job["if"] == "github.ref_type == 'tag'"
    assert job["permissions"] == {"id-token": "write"}
    assert set(job["needs"]) == set(workflow("wheels.yml")["jobs"]) - {"publish"}
