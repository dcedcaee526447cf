"""Encoders give equal packets for equal frames, in any process and on any machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.encoding import settings

from srcli.video import encoders
from srcli.video.encoders import opened_encoder, repeatable_x264

pytestmark = pytest.mark.services
TESTS = Path(__file__).parents[1]
av = pytest.importorskip("av", reason="needs PyAV")


def encoded(perturbed):
    """Checksums of packets by codec, where the C library fills new memory with a byte."""
    environment = os.environ | {"MALLOC_PERTURB_": str(perturbed)}
    made = subprocess.run(
        [sys.executable, "-m", "support.encoding"],
        cwd=TESTS,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(line.split() for line in made.stdout.splitlines())
    assert set(found) == set(encoders.ENCODERS)
    return found


def test_packets_do_not_depend_on_memory_that_was_not_set():
    """x264's do with AVX-512, unless it may not use it."""
    first = encoded(0)
    assert encoded(85) == first
    assert encoded(170) == first


def test_x264_gets_what_the_processor_has_but_avx512(monkeypatch):
    says = ["profile High\n", "using cpu capabilities: MMX2 SSE2Fast AVX2 AVX512\n"]
    monkeypatch.setattr(encoders, "_x264_says", lambda: says)
    assert repeatable_x264.__wrapped__() == "MMX2,SSE2Fast,AVX2"
    for other in (["using cpu capabilities: ARMv8 NEON\n"], ["something else"], []):
        monkeypatch.setattr(encoders, "_x264_says", lambda other=other: other)
        assert repeatable_x264.__wrapped__() is None


def test_x264_says_what_it_uses():
    assert any("using cpu capabilities: " in line for line in encoders._x264_says())
    assert av.logging.get_level() is None


def test_no_header_names_the_machine():
    """Segments of machines with other processors join."""
    for codec in encoders.ENCODERS:
        header = opened_encoder(settings(codec)).extradata or b""
        assert b"cpuid" not in header and b"threads" not in header
