"""The application, called as a server calls it: routes, limits, clients that go."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import numpy as np
import pytest
from support.asgi import call, running
from support.pictures import pillow_bytes

from srcli.loading.restorer import RunOptions
from srcli.serving.settings import Settings, Tell

application = pytest.importorskip(
    "srcli.serving.application", reason="needs srcli[serve]", exc_type=ImportError
)
SETTINGS = Settings(models=("lapar-c", "hpinet-m"), options=RunOptions(), lanes=1, queue=1)
SMALL = "/v1/upscale?scale=2"


@pytest.fixture
def picture(photograph):
    return pillow_bytes(photograph[:24, :32], "PNG")


def served(conversation, settings=SETTINGS):
    """Run a conversation with a service; its result, the service and its journal."""
    records = []

    async def run():
        service = application.Service(settings, Tell(record=records.append))
        app = service.application()
        async with running(app):

            async def ask(method, path, *arguments, **more):
                async with asyncio.timeout(30):
                    return await call(app, method, path, *arguments, **more)

            return await conversation(ask, service), service

    result, service = asyncio.run(run())
    assert service.held.bytes == 0  # whatever happened
    assert (service.lanes.waiting, service.lanes.working) == (0, 0)
    return result, service, records


def test_a_picture_is_answered_with_what_it_is(picture):
    async def conversation(ask, service):
        return await ask("POST", f"{SMALL}&name=gr%C3%BC%C3%9Fe.png", picture)

    reply, service, (record,) = served(conversation)
    assert reply.status == 200
    assert reply.body.startswith(b"\x89PNG")
    assert reply.headers["content-type"] == "image/png"
    assert reply.headers["content-length"] == str(len(reply.body))
    assert reply.headers["srcli-size"] == "64x48"
    assert reply.headers["content-disposition"].endswith("filename*=UTF-8''gr%C3%BC%C3%9Fe_x2.png")
    assert (record["status"], record["model"], record["output"]) == (200, "lapar-c", [64, 48])
    text = service.figures.text().decode()
    assert 'srcli_requests_total{route="/v1/upscale",status="200"} 1.0' in text
    assert 'srcli_output_pixels_total{model="lapar-c",task="upscale"} 3072.0' in text


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "words"),
    [
        (SMALL, b"", {}, 400, "the request has no picture in it"),
        (SMALL, b"GIF", {}, 422, "picture: not a picture"),
        (f"{SMALL}&name=a.png", b"%PDF-", {}, 422, "a.png: a PDF, which is not read here"),
        ("/v1/upscale?scale=no", b"x", {}, 400, "scale: is no factor above 0"),
        ("/v1/upscale?model=lapar", b"x", {}, 404, "no model is called 'lapar'"),
        ("/v1/upscale?model=hpinet-m&scale=2", None, {}, 501, "hpinet-m"),
        (SMALL, b"x" * 2000, {}, 413, "the file has more than"),
        (SMALL, b"x", {"content-length": "2000"}, 413, "the file has more than"),
        (SMALL, b"x", {"content-type": "multipart/form-data; boundary=1"}, 415, "a form was sent"),
        ("/v1/nothing", b"x", {}, 404, "POST /v1/nothing: is not served here"),
        ("/healthz", b"x", {}, 405, "POST /healthz: is not served here"),
        (SMALL, b"x", {"host": "evil.example"}, 421, "the name in Host"),
        (SMALL, b"x", {"origin": "http://evil.example"}, 403, "a page of another site"),
    ],
)
def test_refusals_are_documents(picture, path, body, headers, status, words):
    async def conversation(ask, service):
        content = pillow_bytes(np.zeros((8, 8, 3), np.uint8), "PNG") if body is None else body
        return await ask("POST", path, content, headers)

    reply, *_ = served(conversation, replace(SETTINGS, max_bytes=1000))
    assert reply.headers["content-type"] == "application/problem+json"
    document = reply.json
    assert (reply.status, document["status"]) == (status, status)
    assert words in document["problem"]
    assert document["detail"].startswith(document["problem"])
    assert document["remedy"]


def test_every_answer_is_safe_for_browsers(picture):
    async def conversation(ask, service):
        paths = ["/", "/static/serve.js", "/v1/models", "/nothing", "/healthz", "/openapi.json"]
        return [await ask("GET", path) for path in paths] + [await ask("POST", SMALL, picture)]

    for reply in served(conversation)[0]:
        policy = reply.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in reply.headers


def test_static_files_are_only_those_of_the_page():
    async def conversation(ask, service):
        names = ("base.css", "viewer.js", "compare.js", "..%2f..%2fcli.py", "__init__.py")
        return [(await ask("GET", f"/static/{name}")).status for name in names]

    assert served(conversation)[0] == [200, 200, 404, 404, 404]


def test_models_are_those_with_weights():
    async def conversation(ask, service):
        return (await ask("GET", "/v1/models")).json

    found = {model["name"]: model["tasks"] for model in served(conversation)[0]["models"]}
    assert set(found["lapar-c"]) == {"upscale", "denoise", "deblock"}
    assert found["hpinet-m"]["upscale"]["scales"] == [4]
    assert "2" not in found["hpinet-m"]["upscale"]["factors"]


def test_slow_clients_hold_neither_lanes_nor_bytes(picture):
    settings = replace(SETTINGS, transfer_seconds=0.3)

    async def slowly():
        for byte in picture:
            yield bytes([byte])
            await asyncio.sleep(0.05)

    async def conversation(ask, service):
        slow = [asyncio.ensure_future(ask("POST", SMALL, parts=slowly())) for _ in range(20)]
        await asyncio.sleep(0.1)
        quick = await ask("POST", SMALL, picture)
        return quick, await asyncio.gather(*slow)

    (quick, slow), *_ = served(conversation, settings)
    assert quick.status == 200
    assert {reply.status for reply in slow} == {408}
    assert slow[0].headers["connection"] == "close"


def test_bytes_of_all_clients_are_limited():
    settings = replace(SETTINGS, max_bytes=1 << 20)

    async def half(gate):
        yield bytes(1 << 19)
        await gate.wait()
        yield b"x"

    async def conversation(ask, service):
        gate = asyncio.Event()
        many = [asyncio.ensure_future(ask("POST", SMALL, parts=half(gate))) for _ in range(12)]
        await asyncio.sleep(0.1)
        most = service.held.bytes
        gate.set()
        return most, [(await reply).status for reply in many]

    (most, statuses), *_ = served(conversation, settings)
    assert most == 4 << 20
    assert statuses.count(503) >= 4
    assert set(statuses) == {422, 503}


@pytest.fixture
def held(monkeypatch):
    """Networks that wait in their lanes until they are let go, or nobody wants their result."""
    import threading

    gate, began = threading.Event(), threading.Event()
    real = application.restore

    def waiting(order, content, networks, limit, progress):
        began.set()
        while not gate.wait(0.005):
            progress(1, 2)
        return real(order, content, networks, limit, progress)

    monkeypatch.setattr(application, "restore", waiting)
    waiting.gate, waiting.began = gate, began
    return waiting


async def busy(service, working, waiting):
    async with asyncio.timeout(20):
        while (service.lanes.working, service.lanes.waiting) != (working, waiting):
            await asyncio.sleep(0.002)


def test_a_full_queue_is_told_at_once(picture, held):
    async def conversation(ask, service):
        first = [asyncio.ensure_future(ask("POST", SMALL, picture)) for _ in range(2)]
        await busy(service, 1, 1)
        third = await ask("POST", SMALL, picture)
        large = await ask("POST", SMALL, b"", {"content-length": "100000"})
        held.gate.set()
        return [await reply for reply in first], third, large

    (first, third, large), *_ = served(conversation)
    assert [reply.status for reply in first] == [200, 200]
    assert (third.status, large.status) == (503, 503)
    assert int(third.headers["retry-after"]) >= 1
    assert large.headers["connection"] == "close"  # it was not even read


def test_clients_that_go_free_their_lane(picture, held):
    async def conversation(ask, service):
        gone = asyncio.Event()
        lost = [asyncio.ensure_future(ask("POST", SMALL, picture, gone=gone)) for _ in range(2)]
        await busy(service, 1, 1)
        gone.set()
        await busy(service, 0, 0)
        held.gate.set()
        for one in lost:
            await one
        return await ask("POST", SMALL, picture)

    reply, _, records = served(conversation)
    assert reply.status == 200
    assert sorted(record["status"] for record in records) == [200, 499, 499]


def test_what_takes_too_long_is_given_up(picture, held):
    async def conversation(ask, service):
        late = [asyncio.ensure_future(ask("POST", SMALL, picture)) for _ in range(2)]
        return [await reply for reply in late]

    replies, *_ = served(conversation, replace(SETTINGS, seconds=0.3))
    assert sorted(reply.status for reply in replies) == [503, 504]


def test_progress_is_true(picture, held):
    async def conversation(ask, service):
        word = "0123456789"
        nothing = await ask("GET", f"/v1/progress/{word}")
        sent = asyncio.ensure_future(ask("POST", f"{SMALL}&progress={word}", picture))
        await busy(service, 1, 0)
        await asyncio.to_thread(held.began.wait, 20)
        await asyncio.sleep(0.05)
        half = await ask("GET", f"/v1/progress/{word}")
        again = await ask("POST", f"{SMALL}&progress={word}", picture)
        held.gate.set()
        done = await sent
        return nothing.status, half.json, again.status, done.status

    assert served(conversation)[0] == (404, {"state": "working", "done": 0.5}, 409, 200)


def test_a_fault_is_for_the_journal(picture, monkeypatch):
    def broken(*arguments):
        raise RuntimeError("secret")

    monkeypatch.setattr(application, "restore", broken)

    async def conversation(ask, service):
        return await ask("POST", SMALL, picture)

    reply, _, (record,) = served(conversation)
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert "RuntimeError: secret" in record["fault"]
    json.dumps(record)


def test_readiness_is_that_of_the_application():
    async def conversation(ask, service):
        before = await ask("GET", "/readyz")
        service.ready = False
        return before, await ask("GET", "/readyz")

    ready, stopping = served(conversation)[0]
    assert (ready.status, stopping.status) == (200, 503)
