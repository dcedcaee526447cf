"""Checks that have to load something, and therefore run in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict

from srcli.health.backends import backend, compiled_part, tensorrt
from srcli.health.finding import Check, Finding, guarded
from srcli.health.gpu import gpu
from srcli.health.onnx_runtime import providers
from srcli.health.pictures import pictures

SECONDS = 8.0  # for each of the probes, which run at the same time

PROBES: Mapping[str, tuple[Check, ...]] = {
    "pictures": (pictures,),
    "onnxruntime": (providers,),
    "backends": (gpu, tensorrt, backend, compiled_part),
}


def probe(name: str) -> list[Finding]:
    """Run the checks of a probe in a process of their own, for a limited time."""
    # -P: a file `torch.py` in the working folder is none of our business.
    command = [sys.executable, "-P", "-W", "ignore", "-m", "srcli.health", name]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            "OPENBLAS_NUM_THREADS": "1",  # nothing is multiplied; its threads take long to start
        },
    )
    try:
        output, _ = process.communicate(timeout=SECONDS)
        end = _end(process.returncode)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        end = f"takes longer than {SECONDS:.0f} seconds"
    whole = output[: output.rfind(b"\n") + 1]  # it may have ended in the middle of a line
    findings = [Finding(**json.loads(line)) for line in whole.splitlines()]
    return findings if end is None else [*findings, _unfinished(name, end)]


def answer(name: str) -> None:
    """Write each finding as a line of JSON, as soon as it is there; for the probe's process."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)  # libraries write to stdout as they like
        for check in PROBES[name]:
            for finding in guarded(check):
                answers.write(json.dumps(asdict(finding)) + "\n")
                answers.flush()


def _end(code: int) -> str | None:
    """Say how a process failed, in words; None if it did not."""
    if code == 0:
        return None
    if code < 0:
        return f"ends in a crash ({signal.strsignal(-code) or f'signal {-code}'})"
    return f"ends with exit code {code}"


def _unfinished(name: str, end: str) -> Finding:
    return Finding(
        subject=name,
        status="problem",
        found=f"checking it {end}",
        remedy="Run `srcli doctor` again; if that does not help, reinstall it.",
    )
