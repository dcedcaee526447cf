"""Guards: the same machine and the same page may ask, pages of others may not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from srcli.commands.serve import LEAST_TOKEN
from srcli.loading.restorer import RunOptions
from srcli.serving.guards import check
from srcli.serving.problems import Problem
from srcli.serving.settings import Settings, is_local

LOCAL = Settings(models=("lapar-c",), options=RunOptions(), lanes=1, queue=1)
OPEN = replace(LOCAL, host="0.0.0.0", token="t" * LEAST_TOKEN, names=("pictures.example",))
RIGHT = "Bearer " + "t" * LEAST_TOKEN


def status(settings, path="/v1/models", **headers):
    """Status of a refusal; None if the request may pass."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    scope = {"path": path, "headers": [(n.encode(), v.encode()) for n, v in named.items()]}
    try:
        check(scope, settings)
    except Problem as problem:
        return problem.status
    return None


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:8000", None),
        ("localhost", None),
        ("[::1]:8000", None),
        ("evil.example:8000", 421),
        ("127.0.0.1.evil.example", 421),
        ("192.168.0.9:8000", 421),
        ("", 421),
        ("[", 421),
        ("localhost@evil.example", 421),
    ],
)
def test_names_of_this_machine(host, expected):
    assert status(LOCAL, host=host) == expected


def test_further_names_and_addresses():
    for host in ("pictures.example", "192.168.0.9:8000", "localhost:1"):
        assert status(OPEN, host=host, authorization=RIGHT) is None
    assert status(OPEN, host="evil.example", authorization=RIGHT) == 421


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"origin": "http://localhost:8000"}, None),
        ({"origin": "http://localhost:8000", "sec_fetch_site": "same-origin"}, None),
        ({"origin": "http://localhost:9000"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}, 403),
        ({"sec_fetch_site": "same-site", "sec_fetch_mode": "cors"}, 403),
        ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}, None),
        ({"origin": "http://evil.example", "sec_fetch_mode": "navigate"}, 403),
    ],
)
def test_pages_of_others(headers, expected):
    assert status(LOCAL, host="localhost:8000", **headers) == expected


@pytest.mark.parametrize(
    ("sent", "expected"),
    [(RIGHT, None), (RIGHT[:-1], 401), (RIGHT + "t", 401), ("", 401), (RIGHT.lower(), 401)],
)
def test_the_token(sent, expected):
    headers = {"authorization": sent} if sent else {}
    assert status(OPEN, host="10.0.0.1", **headers) == expected
    assert status(OPEN, "/metrics", host="10.0.0.1", **headers) == expected
    for path in ("/", "/healthz", "/readyz", "/static/base.css"):
        assert status(OPEN, path, host="10.0.0.1") is None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1", "localhost"])
def test_local_addresses(host):
    assert is_local(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org"])
def test_other_addresses(host):
    assert not is_local(host)
