"""Small installs in fresh environments: what works is the same, what does not names its package.

Run by `make environments`, which builds the distributions first. The environment of these tests is
the full one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "dist"
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
TORCH = next(
    text
    for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    if text.startswith("torch")
)
MAX_MB = 200  # of the small install, with what pip compiles

# Environment -> what is installed beside the small install.
ENVIRONMENTS = {"small": [], "onnxruntime": ["onnxruntime"], "torch": [TORCH]}

PICTURES = {
    "lapar-c": "upscale in.png -m lapar-c -s 4",
    "lapar-a": "upscale in.png -m lapar-a -s 2",
    "awsrn-sd": "upscale in.png -m awsrn-sd -s 3",
    "photo": "upscale in.png -s 2 --input photo",
    "denoise": "denoise in.png",
    "deblock": "deblock in.png",
}
HPINET = "upscale in.png -m hpinet-s -s 4 -o out.png"
DCLS = "upscale in.png -m dcls-iso -s 4 -o out.png"
ORT = "upscale in.png -m lapar-c -s 4 --backend ort -o out.png"
EAGER = "upscale in.png -m lapar-c -s 4 --backend torch -o out.png"
EXPORT = "export -m lapar-c -s 4 -o out.onnx"
ATTRIBUTE = "attribute in.png --window 10,10,16 --steps 4 -o out.png"
FILTERS = "filters in.png --at 20,20 -o out.png"

# Environment -> command -> the package to install, or None if the command works there.
OTHERS = {
    "small": {
        **dict.fromkeys((EAGER, EXPORT, ATTRIBUTE, FILTERS), "torch"),
        HPINET: "srcli",  # brings PyTorch, too
        DCLS: "'srcli[dcls]'",
        ORT: "onnxruntime",
    },
    "onnxruntime": {
        **dict.fromkeys((EAGER, ORT, EXPORT, ATTRIBUTE, FILTERS), "torch"),
        HPINET: "srcli",  # ONNX Runtime could run it
        DCLS: "'srcli[dcls]'",
    },
    "torch": {
        **dict.fromkeys((EAGER, ATTRIBUTE, FILTERS)),
        HPINET: "srcli",
        DCLS: "'srcli[dcls]'",
        ORT: "onnxruntime",
        EXPORT: "onnx",
    },
}


class Environment:
    """A virtual environment in `venv`, or the one of a Python, and a folder to work in."""

    def __init__(self, folder, python=None):
        self.python = str(python or folder / "venv" / "bin" / "python")
        self.folder = folder / "work"
        self.folder.mkdir()
        picture = Image.open(ROOT / "examples" / "in.png").convert("RGB").crop((30, 20, 78, 60))
        picture.save(self.folder / "in.png")
        (self.folder / "set").mkdir()
        picture.save(self.folder / "set" / "a.png")

    def run(self, *command):
        clean = {name: value for name, value in os.environ.items() if name[:6] != "PYTHON"}
        return subprocess.run(
            [self.python, *command],
            cwd=self.folder,
            env={**clean, "SRCLI_CACHE": str(self.folder / "cache")},
            capture_output=True,
            text=True,
        )

    def pip(self, *words):
        done = self.run("-m", "pip", "--quiet", *words)
        assert done.returncode == 0, done.stderr

    def __call__(self, command):
        return self.run("-m", "srcli", *command.split())

    def json(self, command):
        done = self(f"{command} --json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def size(self):
        """Megabytes that are installed."""
        (packages,) = Path(self.python).parents[1].glob("lib/python3*/site-packages")
        return sum(p.lstat().st_size for p in packages.rglob("*") if p.is_file()) / 1e6


def small_line():
    """The README's line for the small install."""
    return re.search(r"`pip install (srcli-lite)`", (ROOT / "README.md").read_text())[1]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The small install as a user makes it, but with our distributions from `dist`."""
    if not list(BUILT.glob(f"srcli_lite-{VERSION}-*.whl")):
        pytest.fail("dist/ has no wheel of this version: run `make environments`")
    folder = tmp_path_factory.mktemp("small")
    venv.create(folder / "venv", with_pip=True)
    made = Environment(folder)
    before = made.size()
    made.pip("install", "--find-links", str(BUILT), small_line())
    made.added = made.size() - before
    return made


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def environment(request, small, tmp_path_factory):
    """The small install, and copies of it with more packages: each is then only installed once."""
    more = ENVIRONMENTS[request.param]
    if not more:
        small.name = request.param
        yield small
        return
    folder = tmp_path_factory.mktemp(request.param)
    # Programs in `bin` name the first place; these tests run modules by `python -m`.
    shutil.copytree(small.folder.with_name("venv"), folder / "venv", symlinks=True)
    made = Environment(folder)
    made.name = request.param
    made.pip("install", "--no-compile", *more)
    yield made
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """What the environment of these tests makes of the same pictures."""
    made = Environment(tmp_path_factory.mktemp("full"), sys.executable)
    for name, command in PICTURES.items():
        done = made(f"{command} -o {name}.png")
        assert done.returncode == 0, done.stderr
    return made


pytestmark = [
    pytest.mark.environments,
    pytest.mark.skipif(sys.platform == "win32", reason="looks for files where POSIX has them"),
]


def test_the_small_install_is_small(environment):
    if environment.name != "small":
        pytest.skip("only of the small one")
    assert environment.added < MAX_MB


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_the_same(environment, full, name):
    done = environment(f"{PICTURES[name]} -o {name}.png")
    assert done.returncode == 0, done.stderr
    made, expected = environment.folder / f"{name}.png", full.folder / f"{name}.png"
    assert made.read_bytes() == expected.read_bytes()


def test_scores_are_the_same(environment, full):
    command = "eval set -m lapar-c -s 2"
    assert environment.json(command)["datasets"] == full.json(command)["datasets"]


def test_models_are_listed(environment, full):
    names = [model["name"] for model in full.json("models")]
    assert sorted(model["name"] for model in environment.json("models")) == sorted(names)


def test_a_model_is_picked(environment):
    """Of those whose weights are here."""
    if environment.name == "torch":  # where all run, and measuring those takes long
        rows = environment.json("pick in.png --task deblock")["candidates"]
        assert {row["model"] for row in rows} == {"lapar-c"}
        return
    done = environment("pick in.png -s 4 --json")
    ran = {row["model"] for row in json.loads(done.stdout)["candidates"]}
    assert {"lapar-c", "lapar-a", "awsrn-sd"} <= ran
    assert not {"asdn-base", "hpinet-s", "dcls-iso"} & ran


def test_the_doctor_finds_it_healthy(environment):
    said = environment.json("doctor")
    status = {entry["subject"]: entry["status"] for entry in said["findings"]}
    assert said["healthy"]
    missing = {"onnx", "onnxruntime", "onnxscript", "torch"} - {environment.name}
    assert all(status[name] == "note" for name in missing)
    assert status["compiled part"] == status["weights"] == "ok"


def test_what_lacks_a_package_names_it(environment):
    for command, package in OTHERS[environment.name].items():
        (environment.folder / "out.png").unlink(missing_ok=True)
        done = environment(command)
        if package is None:
            assert done.returncode == 0, f"{command}\n{done.stderr}"
        else:
            assert done.returncode == 3, f"{command}\n{done.stderr}"
            assert f"`pip install {package}`" in done.stderr, f"{command}\n{done.stderr}"


def test_what_srcli_adds_comes_and_goes(environment):
    """The other distributions, without the packages that they require, over the small install."""
    if environment.name != "torch":
        pytest.skip("where its weights run")
    others = ("srcli", "srcli-dcls")
    environment.pip("install", "--no-deps", "--find-links", str(BUILT), "--no-index", *others)
    for command in (HPINET, DCLS):
        done = environment(f"{command} --overwrite")
        assert done.returncode == 0, done.stderr
    environment.pip("uninstall", "--yes", *others)
    assert environment("weights verify").returncode == 0
    assert environment.json("doctor")["healthy"]
