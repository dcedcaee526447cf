"""`srcli serve`: what is refused before it listens."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture
def packages():
    """Those of `srcli[serve]`, without which nothing else is checked."""
    for package in ("starlette", "uvicorn", "prometheus_client"):
        pytest.importorskip(package, reason="needs srcli[serve]")


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "prometheus_client"])
def test_a_missing_package_is_told(srcli, monkeypatch, package):
    for name in [*sys.modules]:
        if name.startswith(("srcli.serving.", f"{package}.")) or name == package:
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    code, _, err = srcli("serve", "--port", "0")
    assert code == 3
    assert "Run `pip install 'srcli[serve]'`." in err


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("short", "token.txt: a token has at least 16 letters and digits, without spaces"),
        ("with some spaces in it", "without spaces"),
        ("ümläute-sind-keine", "a token has at least 16 letters"),
    ],
)
def test_weak_tokens_are_refused(packages, srcli, tmp_path, monkeypatch, token, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "token.txt").write_text(token, "utf-8")
    code, _, err = srcli("serve", "--token-file", "token.txt")
    assert code == 2
    assert words in err
    monkeypatch.setenv("SRCLI_TOKEN", token)
    code, _, err = srcli("serve")
    assert code == 2
    assert "SRCLI_TOKEN: a token has at least 16" in err


def test_a_token_that_cannot_be_read(packages, srcli, tmp_path):
    code, _, err = srcli("serve", "--token-file", tmp_path / "none")
    assert code == 1
    assert "cannot be read as text. Check the file." in err


def test_a_token_that_nobody_would_see(packages, srcli):
    code, _, err = srcli("serve", "--host", "0.0.0.0", "-q")
    assert code == 2
    assert "--quiet hides the token that is made for 0.0.0.0. Give --token-file" in err


def test_unknown_models_are_refused(packages, srcli):
    code, _, err = srcli("serve", "-m", "lapar-c", "-m", "lapar-d")
    assert code == 2
    assert "no model is called 'lapar-d'" in err
