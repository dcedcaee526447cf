"""The recipes of containers: the main rules of hadolint, and ours. Nothing is built here; the steps
that install are followed in a fresh environment by `make environments`."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from srcli.cli import COMMANDS, cli

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "packaging" / "docker").glob("*.Dockerfile"))
KNOWN = {
    *("FROM", "RUN", "COPY", "ENV", "USER", "WORKDIR", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK"),
    "ENTRYPOINT",
}
PORT = "8000"


@dataclass(frozen=True)
class Step:
    """An instruction of a recipe, on one line."""

    name: str
    value: str


def steps(recipe):
    """The instructions of a recipe, without comments and broken lines."""
    text = re.sub(r"^\s*#.*\n", "", recipe.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in text.splitlines():
        if line.strip():
            name, _, value = line.strip().partition(" ")
            yield Step(name, " ".join(value.split()))


def stages(recipe):
    """The steps of each stage; each begins with FROM."""
    found = []
    for step in steps(recipe):
        if step.name == "FROM":
            found.append([])
        found[-1].append(step)
    return found


def one(stage, name):
    (value,) = [step.value for step in stage if step.name == name]
    return value


def test_there_are_two():
    assert [recipe.name for recipe in RECIPES] == ["cpu.Dockerfile", "cuda.Dockerfile"]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
class TestRecipe:
    def test_instructions_are_known_ones(self, recipe):
        assert {step.name for step in steps(recipe)} <= KNOWN

    def test_images_have_versions(self, recipe):
        for stage in stages(recipe):  # DL3006, DL3007
            image = stage[0].value.split(" AS ")[0]
            assert re.fullmatch(r"python:3\.\d+(-slim)?-bookworm", image)

    def test_nothing_is_copied_between_stages_but_the_environment(self, recipe):
        *_, last = stages(recipe)
        assert one(last, "COPY") == "--from=build /opt/srcli /opt/srcli"
        assert not [step for step in last if step.name == "RUN"]

    def test_commands_follow_the_rules(self, recipe):
        for step in steps(recipe):
            if step.name != "RUN":
                continue
            assert not re.search(r"\b(sudo|cd|apt-get upgrade|curl|wget)\b", step.value)  # DL3003-5
            for command in step.value.split(" && "):
                if "pip install" in command:
                    assert "--no-cache-dir" in command  # DL3042
                    packages = [word for word in shlex.split(command)[3:] if word[0] not in "-/"]
                    pinned = [word for word in packages if re.search(r"[<>=]=?\d|\.whl", word)]
                    assert pinned == [word for word in packages if word != "install"]  # DL3013

    def test_folders_are_absolute(self, recipe):
        for step in steps(recipe):
            if step.name == "WORKDIR":  # DL3000
                assert step.value.startswith("/")

    def test_nobody_runs_it(self, recipe):
        *_, last = stages(recipe)
        user, group = map(int, one(last, "USER").split(":"))  # DL3002; numbers, for Kubernetes
        assert min(user, group) > 1000
        names = [step.name for step in last]
        assert names.index("USER") < names.index("ENTRYPOINT")

    def test_only_tmp_is_written_to(self, recipe):
        *_, last = stages(recipe)
        places = dict(word.partition("=")[::2] for word in one(last, "ENV").split())
        assert places["SRCLI_CACHE"].startswith("/tmp/")
        assert places["PYTHONDONTWRITEBYTECODE"] == "1"
        assert one(last, "WORKDIR") == "/tmp"
        assert "--read-only --tmpfs /tmp" in recipe.read_text()

    def test_its_command_exists(self, recipe):
        *_, last = stages(recipe)
        program, name, *options = json.loads(one(last, "ENTRYPOINT"))  # DL3025: a list
        assert (program, name in COMMANDS) == ("srcli", True)
        context = cli.make_context("srcli", [name], resilient_parsing=True)
        command = cli.get_command(context, name)
        given, *_ = command.make_parser(context).parse_args(options)
        assert (given["host"], given["port"]) == ("0.0.0.0", PORT)
        assert one(last, "EXPOSE") == PORT
        assert one(last, "STOPSIGNAL") == "SIGTERM"

    def test_its_health_is_asked_for(self, recipe):
        *_, last = stages(recipe)
        options, _, command = one(last, "HEALTHCHECK").partition(" CMD ")
        assert re.search(r"--interval=\d+s --timeout=\d+s --start-period=\d+s", options)
        program, _, code = json.loads(command)
        assert program == "python"
        compile(code, "health", "exec")
        assert f"http://127.0.0.1:{PORT}/healthz" in code


@pytest.mark.environments
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_steps_install_a_service_that_runs(tmp_path):
    """The steps of the small recipe, in folders of this machine; and its command and its check."""
    (cpu,) = [recipe for recipe in RECIPES if recipe.stem == "cpu"]
    build, last = stages(cpu)
    tools = tmp_path / "tools"
    subprocess.run([sys.executable, "-m", "venv", tools], check=True)
    places = {"/wheels": tmp_path / "wheels", "/opt/srcli": tmp_path / "srcli"}
    places["/tmp/srcli"] = tmp_path / "cache"
    path = f"{tools}/bin{os.pathsep}{os.environ['PATH']}"
    for step in build:
        if step.name == "RUN":
            command = placed(step.value, places)
            environment = {**os.environ, "PATH": path}
            done = subprocess.run(
                ["bash", "-euc", command], cwd=ROOT, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    port = "8765"
    _, *options = json.loads(one(last, "ENTRYPOINT"))
    command = [places["/opt/srcli"] / "bin" / "srcli", *options]
    command[command.index(PORT)] = port
    environment = {"PATH": "/usr/bin:/bin", "SRCLI_TOKEN": "0123456789abcdef", "HOME": "/nowhere"}
    environment["SRCLI_CACHE"] = "/nowhere/cache"  # all is there, so nothing is written
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as process:
        try:
            check_answers(f"http://127.0.0.1:{port}")
            _, _, check = json.loads(one(last, "HEALTHCHECK").partition(" CMD ")[2])
            python = places["/opt/srcli"] / "bin" / "python"
            subprocess.run([python, "-c", check.replace(PORT, port)], check=True)
        finally:
            process.terminate()
        assert process.wait(60) == 0
    assert not Path("/nowhere").exists()


def placed(command, places):
    for name, place in places.items():
        command = command.replace(name, str(place))
    return command


def check_answers(address):
    """A picture is restored, once the service is there."""
    content = (ROOT / "examples" / "in.png").read_bytes()
    token = {"Authorization": "Bearer 0123456789abcdef"}
    request = urllib.request.Request(f"{address}/v1/upscale?scale=2", content, token)
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert answer.headers["Srcli-Size"] == "256x256"
                return
        except urllib.error.URLError as error:
            if time.monotonic() > end or isinstance(error, urllib.error.HTTPError):
                raise
            time.sleep(0.1)
