"""`srcli serve` as a process: load, hostile uploads, slow clients, signals, tokens."""

from __future__ import annotations

import io
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image
from support.corpus import corpus
from support.pictures import pillow_bytes
from support.service import Service

pytestmark = pytest.mark.services
for _package in ("starlette", "uvicorn", "prometheus_client"):
    pytest.importorskip(_package, reason="needs srcli[serve]")

CLIENTS, REQUESTS, SIDE = 16, 500, 32
HOSTILE = 1000
UPSCALE = "/v1/upscale"


@pytest.fixture(scope="module")
def pictures(photograph):
    """Ten small pictures, as files."""
    return [
        pillow_bytes(photograph[8 * k : 8 * k + SIDE, 60 : 60 + SIDE], "PNG") for k in range(10)
    ]


@pytest.fixture(scope="module")
def results(pictures, tmp_path_factory):
    """What the command makes of them."""
    folder = tmp_path_factory.mktemp("pictures")
    for number, content in enumerate(pictures):
        (folder / f"{number}.png").write_bytes(content)
    command = [sys.executable, "-m", "srcli", "upscale", ".", "-s", "2", "-q", "-o", "out/"]
    subprocess.run(command, cwd=folder, check=True)
    return [(folder / "out" / f"{number}.png").read_bytes() for number in range(len(pictures))]


def crowd(service, pictures, requests, clients=CLIENTS):
    """Send requests by many clients at once; yields (number, answer) of each."""
    numbers = iter(range(requests))
    lock = threading.Lock()

    def client(_):
        found, connection = [], service.connect()
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                connection.close()
                return found
            body = pictures[number % len(pictures)]
            path = f"{UPSCALE}?scale=2"
            found.append((number, service.send("POST", path, body, {}, connection)))

    with ThreadPoolExecutor(clients) as pool:
        for answers in pool.map(client, range(clients)):
            yield from answers


def test_a_crowd_gets_right_pictures_or_503(pictures, results):
    with Service("--lanes", "2", "--queue", "8") as service:
        list(crowd(service, pictures, 100))
        before = service.memory()
        seen = Counter()
        for number, reply in crowd(service, pictures, REQUESTS):
            seen[reply.status] += 1
            if reply.status == 200:
                assert reply.body == results[number % len(results)]
            else:
                assert reply.status == 503
                assert int(reply.headers["retry-after"]) >= 1
        assert sum(seen.values()) == REQUESTS
        assert seen[200] > REQUESTS / 10
        assert service.memory() < 1.1 * before + (8 << 20)
        service.wait_for("srcli_pictures_working", 0)
        service.wait_for("srcli_held_bytes", 0)
        assert service.stop() == 0


def hostile(count):
    """Files that no honest program sends: damaged in every way, or nothing of the kind."""
    rng = random.Random(7)
    honest = [sample.content for sample in corpus().values()]
    for _ in range(count):
        content = bytearray(rng.choice(honest))
        for _ in range(rng.choice((1, 1, 4, 40))):
            place = rng.randrange(len(content))
            kind = rng.randrange(4)
            if kind == 0:
                content[place] = rng.randrange(256)
            elif kind == 1:
                content[place : place + 4] = rng.randbytes(4)
            elif kind == 2:
                del content[place : place + rng.randrange(1, 200)]
            else:
                content[place:place] = rng.randbytes(rng.randrange(1, 20))
            content = content or bytearray(b"\x89PNG")
        yield bytes(content)


def test_hostile_uploads_end_nothing(pictures, results):
    with Service("--lanes", "2", "--queue", "32", "--max-pixels", "1000000") as service:
        rng = random.Random(3)

        def send(content):
            scale = rng.choice(("2", "1.5", "0.001", "9999", "%00", "1e9"))
            path = f"{UPSCALE}?scale={scale}&format={rng.choice(('auto', 'jpeg', 'webp'))}"
            return service.send("POST", path, content, {"Content-Type": "image/png"})

        with ThreadPoolExecutor(4) as pool:
            replies = list(pool.map(send, hostile(HOSTILE)))
        statuses = Counter(reply.status for reply in replies)
        assert set(statuses) <= {200, 400, 413, 422, 501}, statuses
        assert len(statuses) >= 3, statuses
        for reply in replies:
            if reply.status != 200:
                assert reply.json["detail"]
        assert not [record for record in service.records if "fault" in record]
        after = service.post(UPSCALE, pictures[0], scale=2)
        assert (after.status, after.body) == (200, results[0])
        assert service.stop() == 0


def raw(service, content, seconds=20):
    """Send bytes over a socket; what comes back until the connection ends."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=seconds) as line:
        line.sendall(content)
        answer = b""
        with suppress(ConnectionResetError):
            while part := line.recv(65536):
                answer += part
        return answer


@pytest.mark.parametrize(
    "content",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"GET / HTTP/9.9\r\nConnection: close\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
        b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/upscale HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused(service, content):
    answer = raw(service, content)
    assert not answer or b" 4" in answer.split(b"\r\n")[0], answer[:200]
    assert service.get("/healthz").status == 200


@pytest.fixture(scope="module")
def service():
    """A service for tests that do it no harm."""
    options = ("--lanes", "1", "--queue", "2", "--transfer-seconds", "1")
    with Service(*options) as running:
        yield running


def test_a_slow_loris_holds_no_lane(service, pictures, results):
    """Heads that never end, bodies that come drop by drop, answers that are not taken."""
    lines = []
    head = b"POST /v1/upscale?scale=2 HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\n"
    for number in range(60):
        line = socket.create_connection(("127.0.0.1", service.port), timeout=20)
        line.sendall(b"POST /v1/upscale HT" if number % 2 else head + b"x")
        lines.append(line)
    reply = service.post(UPSCALE, pictures[0], scale=2)
    assert (reply.status, reply.body) == (200, results[0])
    answers = []
    for line in lines[::2]:
        answers.append(line.recv(65536).split(b"\r\n")[0])
    assert set(answers) == {b"HTTP/1.1 408 Request Timeout"}
    for line in lines:
        line.close()
    service.wait_for("srcli_held_bytes", 0)


def test_an_answer_that_is_not_taken_is_forgotten(service):
    content = pillow_bytes(
        np.random.default_rng(1).integers(0, 255, (500, 500, 3), np.uint8), "PNG"
    )
    query = b"POST /v1/upscale?scale=4&format=bmp HTTP/1.1\r\nHost: localhost\r\n"
    with socket.socket() as line:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.settimeout(20)
        line.connect(("127.0.0.1", service.port))
        line.sendall(query + f"Content-Length: {len(content)}\r\n\r\n".encode() + content)
        service.wait_for("srcli_pictures_working", 1)
        service.wait_for("srcli_pictures_working", 0)
        service.wait_for("srcli_held_bytes", 0)  # while the client still holds its line


def test_a_client_that_goes_frees_its_lane(service, photograph):
    large = pillow_bytes(np.tile(photograph, (8, 8, 1)), "PNG")
    query = f"POST /v1/upscale?scale=4 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(large)}"
    with socket.create_connection(("127.0.0.1", service.port)) as line:
        line.sendall(f"{query}\r\n\r\n".encode() + large)
        service.wait_for("srcli_pictures_working", 1)
    service.wait_for("srcli_pictures_working", 0)
    end = time.monotonic() + 20
    while not any(record["status"] == 499 for record in service.records):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_a_signal_lets_what_was_begun_be_finished(photograph, number):
    content = pillow_bytes(np.tile(photograph, (2, 2, 1)), "PNG")
    with Service("--lanes", "2", "--queue", "16", "--grace", "50") as service:
        with ThreadPoolExecutor(8) as pool:
            sent = [pool.submit(service.post, UPSCALE, content, scale=4) for _ in range(8)]
            service.wait_for("srcli_pictures_waiting", 6)
            service.process.send_signal(number)
            replies = [future.result() for future in sent]
        assert [reply.status for reply in replies] == [200] * 8
        assert len({reply.body for reply in replies}) == 1
        assert Image.open(io.BytesIO(replies[0].body)).size == (1280, 1280)
        assert service.finish() == 0
        assert service.messages[-1] == "stopped"


def test_after_its_grace_it_ends_anyway(photograph):
    content = pillow_bytes(np.tile(photograph, (10, 10, 1)), "PNG")
    with Service("--lanes", "1", "--grace", "1") as service:
        with ThreadPoolExecutor(4) as pool:
            sent = [pool.submit(service.post, UPSCALE, content, scale=4) for _ in range(4)]
            service.wait_for("srcli_pictures_waiting", 3)
            assert service.stop() == 1
            replies = [future.result() for future in sent]
        assert {reply.status for reply in replies} <= {200, 503}
        assert [reply for reply in replies if reply.status == 503]
        assert service.messages[-1] == "stopped before everything was done"


def test_other_addresses_need_the_token(pictures):
    with Service("--host", "0.0.0.0", SRCLI_TOKEN="0123456789abcdef") as service:
        assert service.address.endswith("/#token=0123456789abcdef")
        assert service.get("/").status == service.get("/readyz").status == 200
        refused = service.post(UPSCALE, pictures[0])
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        right = {"Authorization": "Bearer 0123456789abcdef"}
        assert service.post(UPSCALE, pictures[0], right).status == 200


def test_a_token_is_made_where_none_is_given():
    with Service("--host", "0.0.0.0") as first, Service("--host", "0.0.0.0") as second:
        tokens = [one.address.partition("#token=")[2] for one in (first, second)]
        assert min(map(len, tokens)) > 30
        assert tokens[0] != tokens[1]


def test_a_port_that_is_taken_is_told(service, srcli):
    code, _, err = srcli("serve", "--port", service.port)
    assert code == 2
    assert f"127.0.0.1:{service.port}: cannot be listened at" in err
    assert "Choose another --port or --host." in err


def test_the_document_is_openapi(service):
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(service.get("/openapi.json").json)
