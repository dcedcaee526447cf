"""Completion in shells: what it offers, and that it loads nothing heavy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from srcli.backends import backend_names
from srcli.commands.options import BACKEND_NAMES
from srcli.models.registry import model_names

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "onnx", "onnxruntime", "openvino", "pyvips", "numpy", "rich"}


def offered(words):
    """What bash is offered for the last word, and the modules that this took."""
    script = (
        "import sys\n"
        "from srcli.cli import run\n"
        "try:\n"
        "    run([])\n"
        "finally:\n"
        "    print(*sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "_SRCLI_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        },
    )
    found = [line.partition(",")[2] for line in done.stdout.splitlines()]
    return found, set(done.stderr.split())


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("srcli upscale -m awsrn-", ["awsrn-m", "awsrn-s", "awsrn-sd"]),
        ("srcli denoise --model lapar-", ["lapar-a", "lapar-b", "lapar-c"]),
        ("srcli upscale --backend ", list(BACKEND_NAMES)),
        ("srcli bench --backend na", ["native"]),
        ("srcli bench -m lapar-", ["lapar-a", "lapar-b", "lapar-c", "lapar-mini"]),
        ("srcli eval -m dcls", ["dcls-iso", "dcls-aniso"]),
        ("srcli export -m dcls", ["dcls-iso", "dcls-aniso"]),
        ("srcli models hpi", ["hpinet-s", "hpinet-m", "hpinet-l"]),
        ("srcli weights fetch ", ["hpinet-s", "hpinet-m", "hpinet-l"]),
        ("srcli weights fe", ["fetch"]),
        ("srcli de", ["denoise", "deblock"]),
        ("srcli upscale --input ", ["auto", "clean", "photo"]),
    ],
)
def test_names_are_completed_without_loading_much(words, wanted):
    """faults.md 28: neither models nor backends were completed."""
    found, loaded = offered(words)
    assert found == wanted
    assert not HEAVY & loaded


def test_names_of_backends_are_all_there():
    """faults.md 28."""
    assert set(BACKEND_NAMES) == {"auto", *backend_names()}
    assert len(model_names()) == len(set(model_names()))


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_by_the_line_of_the_guide(tmp_path):
    """faults.md 28: the script works in a real shell."""
    command = tmp_path / "srcli"
    command.write_text(
        f"#!{sys.executable}\nimport sys\nfrom srcli.cli import main\n"
        "sys.argv[0] = 'srcli'\nmain()\n"
    )
    command.chmod(0o755)
    line = 'eval "$(_SRCLI_COMPLETE=bash_source srcli)"'
    assert line in (ROOT / "docs" / "guide" / "quick-start.md").read_text()
    script = (
        f"{line}\n"
        "COMP_WORDS=(srcli upscale -m hpi) COMP_CWORD=3\n"
        "_srcli_completion srcli\n"
        'echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
    )
    assert done.stdout.split() == ["hpinet-s", "hpinet-m", "hpinet-l"], done.stderr
