"""Published weights: downloaded, resumed, checked, refused; from a server in this process."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath

import pytest
import torch
from PIL import Image

from srcli.checkpoints import fetching as downloads
from srcli.checkpoints.fetching import download
from srcli.checkpoints.reading import SUFFIXES, fits, read_tensors
from srcli.checkpoints.shipped import fetched_path, find_weights, sha256_of
from srcli.errors import OutputError, UsageError, WeightsError
from srcli.models import registry
from srcli.models.registry import MODELS, get_model
from srcli.models.spec import Publication
from srcli.system.cache import SEAL, seal

NAME, SCALE = "awsrn-m", 3  # small, and srcli ships no weights for it
CONTENT = bytes(range(256)) * 2000  # 512 kB, so that it takes several reads


class Server(ThreadingHTTPServer):
    """Serves one file at any path, and does what the tests ask of it."""

    daemon_threads = True

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.ranges = True
        self.status = 200
        self.break_after = []  # bytes after which the next answers end
        self.shift = 0  # of the place where it continues
        self.delay = 0  # seconds before an answer
        self.moved = None  # where it sends clients to
        self.asked = []  # (path, Range) of every request
        self.length = None  # what it says that the length is
        self.drips = None  # seconds between single bytes: of the headers, or of the file

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}/checkpoints/theirs.pth"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        server = self.server
        wanted = self.headers.get("Range")
        server.asked.append((self.path, wanted))
        self.close_connection = True
        if server.drips is not None:
            return self.drip(server)
        time.sleep(server.delay)
        if server.moved and not self.path.endswith("/moved"):
            return self.head(302, 0, ("Location", server.moved))
        if server.status != 200:
            return self.head(server.status, 0)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if start >= len(server.content):
            return self.head(416, 0)
        if start:
            start -= server.shift
            place = f"bytes {start}-{len(server.content) - 1}/{len(server.content)}"
            self.head(206, len(server.content) - start, ("Content-Range", place))
        else:
            self.head(200, len(server.content))
        rest = server.content[start:]
        self.wfile.write(rest[: server.break_after.pop(0)] if server.break_after else rest)

    def drip(self, server):
        headers = f"HTTP/1.1 200 OK\r\nContent-Length: {len(server.content)}\r\n\r\n"
        whole = headers.encode() + server.content
        sent = 0 if server.drips == "headers" else len(headers)
        with contextlib.suppress(OSError):  # the client gave up
            self.wfile.write(whole[:sent])
            for place in range(sent, sent + 400):
                self.wfile.write(whole[place : place + 1])
                time.sleep(0.02)

    def head(self, status, length, *headers):
        self.send_response(status)
        length = self.server.length or length
        for name, value in (("Content-Length", str(length)), *headers):
            self.send_header(name, value)
        self.end_headers()


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No proxy between these tests and their server, and no waiting."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloads, "PAUSES", (0.0, 0.0))


@pytest.fixture
def serve():
    """Starts servers."""
    running = []

    def start(content=CONTENT):
        server = Server(content)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def server(serve):
    return serve()


def published(server, **changes):
    return Publication(
        page="https://example.org/weights",
        file="checkpoints/theirs.pth",
        address=server.address,
        sha256=hashlib.sha256(server.content).hexdigest(),
        **changes,
    )


def silent(done, total):
    pass


def partial_of(target):
    return target.with_name(f"{target.name}.part")


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_file_arrives_whole(server, tmp_path, size):
    told = []
    target = tmp_path / "theirs.pth"
    download(published(server, size=size), target, lambda *state: told.append(state))
    assert target.read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.pth"]
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert len(told) > 1
    assert told == sorted(told)
    assert server.asked == [("/checkpoints/theirs.pth", None)]


def test_a_partial_download_is_continued(server, tmp_path):
    target = tmp_path / "theirs.pth"
    partial_of(target).write_bytes(CONTENT[:1000])
    download(published(server), target, silent)
    assert target.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == ["bytes=1000-"]


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges = False
    target = tmp_path / "theirs.pth"
    partial_of(target).write_bytes(CONTENT[:1000])
    download(published(server), target, silent)
    assert target.read_bytes() == CONTENT
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "wrong", [b"another file" * 10, CONTENT + b"too long", bytes(len(CONTENT))]
)
def test_a_wrong_partial_is_thrown_away(server, tmp_path, wrong):
    target = tmp_path / "theirs.pth"
    partial_of(target).write_bytes(wrong)
    download(published(server), target, silent)
    assert target.read_bytes() == CONTENT
    assert server.asked[0][1] == f"bytes={len(wrong)}-"
    assert server.asked[-1][1] is None


def test_a_server_that_continues_elsewhere_starts_again(server, tmp_path):
    server.shift = 10
    target = tmp_path / "theirs.pth"
    partial_of(target).write_bytes(CONTENT[:1000])
    download(published(server), target, silent)
    assert target.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == ["bytes=1000-", None]


def test_a_whole_partial_needs_no_server(tmp_path):
    """The last run was stopped between the last byte and the name."""
    target = tmp_path / "theirs.pth"
    partial_of(target).write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    nowhere = Publication(page="", address="http://127.0.0.1:1/theirs.pth", sha256=digest)
    download(nowhere, target, silent)
    assert target.read_bytes() == CONTENT


def test_a_broken_connection_is_taken_up_again(server, tmp_path):
    server.break_after = [100_000, 50_000]
    target = tmp_path / "theirs.pth"
    download(published(server), target, silent)
    assert target.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.asked] == [None, "bytes=100000-", "bytes=150000-"]


def test_what_arrived_before_it_broke_for_good_is_kept(server, tmp_path):
    server.break_after = [1000, 1000, 1000]
    target = tmp_path / "theirs.pth"
    with pytest.raises(WeightsError, match="3000 of 512000 bytes"):
        download(published(server), target, silent)
    assert not target.exists()
    assert partial_of(target).read_bytes() == CONTENT[:3000]


def test_another_file_is_removed(server, tmp_path):
    expected = replace(published(server), sha256="0" * 64)
    with pytest.raises(WeightsError, match=r"checksum.*https://example\.org/weights"):
        download(expected, tmp_path / "theirs.pth", silent)
    assert not list(tmp_path.iterdir())
    assert len(server.asked) == 1


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_that_is_too_large_is_not_loaded(server, tmp_path, monkeypatch, announced):
    if not announced:
        monkeypatch.setattr(downloads, "_total", lambda answer, start: 0)
    with pytest.raises(WeightsError, match="larger than the 200000 bytes"):
        download(published(server, size=200_000), tmp_path / "theirs.pth", silent)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("status", "attempts", "words"),
    [
        (404, 1, r"no such file any more \(404\).*example\.org"),
        (403, 1, r"refuses \(403\)"),
        (503, 3, "503.*run this again"),
    ],
)
def test_errors_of_the_server(server, tmp_path, status, attempts, words):
    server.status = status
    with pytest.raises(WeightsError, match=words):
        download(published(server), tmp_path / "theirs.pth", silent)
    assert not list(tmp_path.iterdir())
    assert len(server.asked) == attempts


def test_no_network(serve, tmp_path):
    server = serve()
    there = published(server)
    server.server_close()  # the port is free again: nobody answers
    with pytest.raises(WeightsError, match=r"cannot be downloaded.*Check the network"):
        download(there, tmp_path / "theirs.pth", silent)
    assert not list(tmp_path.iterdir())


def test_a_silent_server_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(downloads, "TIMEOUT", 0.1)
    monkeypatch.setattr(downloads, "PAUSES", ())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/theirs.pth"
        there = Publication(page="", address=address, sha256="0" * 64)
        with pytest.raises(WeightsError, match=r"no answer for 0\.1 seconds"):
            download(there, tmp_path / "theirs.pth", silent)


def test_redirections_are_followed(server, tmp_path):
    server.moved = "/elsewhere/moved"
    partial_of(tmp_path / "theirs.pth").write_bytes(CONTENT[:9])
    download(published(server), tmp_path / "theirs.pth", silent)
    assert (tmp_path / "theirs.pth").read_bytes() == CONTENT
    assert server.asked[-1] == ("/elsewhere/moved", "bytes=9-")


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/f", "data:,x"])
def test_redirections_to_other_schemes_are_not(server, tmp_path, target):
    server.moved = target
    with pytest.raises(WeightsError, match="does not follow"):
        download(published(server), tmp_path / "theirs.pth", silent)
    assert not list(tmp_path.iterdir())


def test_from_https_never_into_the_clear(server):
    request = downloads.Request("https://example.org/theirs.pth")
    answer = io.BytesIO()
    with pytest.raises(downloads.HTTPError) as caught:
        downloads._Redirects().redirect_request(request, answer, 302, "", {}, server.address)
    caught.value.close()


@pytest.mark.parametrize("address", ["file:///etc/hostname", "ftp://127.0.0.1/theirs.pth"])
def test_other_schemes_are_refused(tmp_path, address):
    there = Publication(page="", address=address, sha256="0" * 64)
    with pytest.raises(WeightsError, match="only http and https"):
        download(there, tmp_path / "theirs.pth", silent)


# From the command line: the model's record points to the server, the rest is real.


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """LAPAR-B x3 as its authors might publish it."""
    torch.manual_seed(0)
    state = get_model(NAME).build(SCALE).state_dict()
    file = tmp_path_factory.mktemp("published") / "theirs.pth"
    torch.save({"state_dict": state}, file)
    return file.read_bytes()


@pytest.fixture
def origin(serve, checkpoint, monkeypatch, tmp_path):
    """A server that has the checkpoint, a registry that knows it, and a cache of its own."""
    server = serve(checkpoint)
    there = published(server, licence="Test Licence 1.0")
    specs = [
        replace(spec, publications={SCALE: there}) if spec.name == NAME else spec for spec in MODELS
    ]
    monkeypatch.setattr(registry, "MODELS", tuple(specs))
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    return server


def cached(tmp_path):
    return [path for path in (tmp_path / "cache").rglob("*") if path.suffix != ".lock"]


def test_fetched_weights_come_before_those_that_ship(monkeypatch, tmp_path):
    """Authors' are better than ours; who fetched them wants them."""
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path))
    spec = get_model("hpinet-s")
    ours = find_weights(spec, 4, "upscale")
    path = fetched_path(spec, 4)
    path.parent.mkdir(parents=True)
    path.write_bytes(ours.path.read_bytes())
    path.with_name(f"{path.name}{SEAL}").write_text("not its checksum")
    assert find_weights(spec, 4, "upscale") == ours
    seal(path)
    assert find_weights(spec, 4, "upscale").path == path
    assert find_weights(spec, 2, "upscale").path != path


def test_weights_are_fetched_and_found(srcli, origin, tmp_path, photograph):
    picture = tmp_path / "in.png"
    Image.fromarray(photograph[:20, :30]).save(picture)
    code, _, err = srcli("upscale", picture, "-m", NAME, "-s", SCALE)
    assert code == 3
    assert f"srcli weights fetch {NAME} -s {SCALE}" in err

    code, out, err = srcli("weights", "fetch", NAME, "-s", SCALE, "--yes")
    assert code == 0
    assert "Test Licence 1.0" in err
    assert f"srcli upscale photo.png -m {NAME} -s {SCALE}" in err
    path = fetched_path(get_model(NAME), SCALE)
    assert out.strip() == f"{path}  {NAME} x{SCALE}"
    assert fits(get_model(NAME).build(SCALE), read_tensors(path))
    assert find_weights(get_model(NAME), SCALE, "upscale").licence == "Test Licence 1.0"
    seal = path.with_name(f"{path.name}{SEAL}")
    assert sorted(cached(tmp_path)) == sorted([path.parent, path, seal])

    code, _, err = srcli("upscale", picture, "-m", NAME, "-s", SCALE, "--backend", "torch")
    assert code == 0, err
    with Image.open(tmp_path / "in_x3.png") as enlarged:
        assert enlarged.size == (90, 60)

    assert srcli("weights", "fetch", NAME, "-s", SCALE) == (0, out, err_of_a_second_time())
    assert len(origin.asked) == 1
    facts = json.loads(srcli("models", path, "--json")[1])
    assert facts["source_sha256"] == hashlib.sha256(origin.content).hexdigest()


def err_of_a_second_time():
    return f"now: srcli upscale photo.png -m {NAME} -s {SCALE}\n"


def test_shipped_weights_come_first(origin, monkeypatch):
    spec = get_model("lapar-c")
    there = replace(published(origin), sha256="ab" * 32)
    spec = replace(spec, publications={2: there})
    path = fetched_path(spec, 2)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"fetched")
    assert find_weights(spec, 2, "upscale").path != path
    assert find_weights(spec, 2, "upscale").licence == "Apache-2.0"


def test_without_a_terminal_it_must_be_told_yes(srcli, origin, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    code, out, err = srcli("weights", "fetch", NAME, "-s", SCALE)
    assert code == 2
    assert "--yes" in err
    assert "Test Licence 1.0" in err
    assert out == ""
    assert origin.asked == []


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 1), ("\n", 1), ("", 130)])
def test_at_a_terminal_it_asks(srcli, origin, tmp_path, monkeypatch, answer, code):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    result, out, err = srcli("weights", "fetch", NAME, "-s", SCALE)
    assert result == code
    assert "Download it?" in err
    assert len(origin.asked) == (1 if code == 0 else 0)
    assert bool(out) == (code == 0)


def test_the_absence_of_a_licence_is_said(srcli, monkeypatch, tmp_path):
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    code, _, err = srcli("weights", "fetch", "hpinet-s", "-s", 4)
    assert code == 2
    assert "licence: none is stated" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("lapar-a", "-s", 4), "srcli weights convert LAPAR_A_x4.pth -m lapar-a -s 4"),
        (("awsrn", "-s", 8), "srcli weights convert model_latest.pt"),
        (("dcls-iso", "-s", 3), "srcli weights convert FILE"),
        (("hpinet-s", "-s", 2), "only for x4"),
        (("asdn-base", "-s", 2), "--weights FILE"),
        (("hpinet-s", "-s", 7), "Choose one of its scales"),
        (("nobody",), "srcli models"),
    ],
)
def test_what_cannot_be_fetched_says_how_to_go_on(srcli, arguments, words):
    code, out, err = srcli("weights", "fetch", *arguments, "--yes")
    assert code == 2
    assert words in err
    assert out == ""


def test_two_at_once_download_once(origin, tmp_path):
    """Processes, not threads: what a user with two windows starts."""
    origin.delay = 1  # the second comes while the first is at it
    script = (
        "import sys\n"
        "from dataclasses import replace\n"
        "from srcli.models import registry\n"
        "from srcli.models.spec import Publication\n"
        f"there = {get_model(NAME).publications[SCALE]!r}\n"
        f"spec = registry.get_model({NAME!r})\n"
        f"registry.MODELS = [replace(spec, publications={{{SCALE}: there}})]\n"
        "from srcli.cli import run\n"
        f"sys.exit(run(['weights', 'fetch', {NAME!r}, '-s', '{SCALE}', '--yes']))\n"
    )
    running = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    results = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert results[0] == results[1]
    assert len(origin.asked) == 1


def test_a_cache_that_cannot_be_written(srcli, origin, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="SRCLI_CACHE"):
        downloads.fetch(get_model(NAME), SCALE)


def test_weights_of_another_model_are_not_kept(origin, monkeypatch, tmp_path):
    wrong = replace(get_model("lapar-a"), publications=get_model(NAME).publications)
    with pytest.raises(WeightsError, match="belong to no model"):
        downloads.fetch(wrong, SCALE)
    assert not fetched_path(wrong, SCALE).exists()


def test_the_list_tells_what_is_here(srcli, origin):
    def row(**wanted):
        rows = json.loads(srcli("weights", "list", "--json")[1])
        (found,) = [row for row in rows if wanted.items() <= row.items()]
        return found

    assert row(model=NAME, scale=SCALE)["path"] is None
    assert srcli("weights", "fetch", NAME, "-s", SCALE, "--yes")[0] == 0
    path = fetched_path(get_model(NAME), SCALE)
    assert row(model=NAME, scale=SCALE)["path"] == str(path)
    assert row(model="lapar-c", scale=2)["shipped"]
    assert row(model="hpinet-m", scale=2)["licence"] is None
    table = srcli("weights", "list")[1]
    assert any(NAME in line and "fetched" in line for line in table.splitlines())


def test_cards_say_where_weights_are(srcli):
    assert "srcli weights fetch hpinet-m -s 3" in srcli("models", "hpinet-m")[1]
    assert get_model("awsrn").publications[2].page in srcli("models", "awsrn")[1]
    (facts,) = json.loads(srcli("models", "hpinet-s", "--json")[1])
    pages = {variant["scale"]: variant["weights_published_at"] for variant in facts["variants"]}
    assert pages == {2: None, 3: None, 4: "https://github.com/passerer/HPINet"}


@pytest.mark.parametrize("spec", MODELS, ids=lambda spec: spec.name)
def test_the_registry_is_sound(spec):
    for scale, there in spec.publications.items():
        assert scale in spec.scales_for("upscale")
        assert there.page.startswith("https://")
        # A checksum is known wherever it could be taken.
        assert there.sha256 is None or there.address is not None
        if there.address is None:
            with pytest.raises(UsageError):
                downloads.find_publication(spec, scale)
        else:
            assert there.address.startswith("https://")
            assert PurePosixPath(there.address).suffix in SUFFIXES
            assert there.sha256 is None or len(bytes.fromhex(there.sha256)) == 32


def test_published_checksums_and_sizes(shared):
    """Of the files at hand; the network is no part of the tests."""
    folder = shared / "reference" / "checkpoints"
    seen = 0
    for spec in MODELS:
        for there in spec.publications.values():
            file = folder / PurePosixPath(there.file or "none").name
            if file.is_file():
                assert (sha256_of(file), file.stat().st_size) == (there.sha256, there.size)
                seen += 1
    assert seen == len(list(folder.iterdir())) > 0


@pytest.mark.parametrize("digits", ["9" * 5000, "1" + "0" * 30])
def test_a_length_that_is_none(server, tmp_path, digits):
    """faults.md 40: of 5,000 digits."""
    server.length = digits
    with pytest.raises(WeightsError, match="larger than"):
        download(published(server), tmp_path / "theirs.pth", silent)


def test_a_length_of_other_signs_is_none(server, tmp_path):
    """faults.md 40: what counts as a digit in Unicode is no number of bytes."""
    server.length = "\u00b2"
    download(published(server), tmp_path / "theirs.pth", silent)
    assert (tmp_path / "theirs.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("part", ["headers", "file"])
def test_a_server_that_drips_is_given_up(server, tmp_path, monkeypatch, part):
    """faults.md 40: a least rate, and a time until the file comes."""
    monkeypatch.setattr(downloads, "WINDOW", 0.3)
    monkeypatch.setattr(downloads, "LONGEST_ANSWER", 0.5)
    monkeypatch.setattr(downloads, "PAUSES", ())
    server.drips = part
    says = "no file after" if part == "headers" else "slower than"
    with pytest.raises(WeightsError, match=says):
        download(published(server), tmp_path / "theirs.pth", silent)


def test_no_attempt_takes_for_ever(server, tmp_path, monkeypatch):
    """faults.md 40: not at any rate."""
    monkeypatch.setattr(downloads, "LONGEST", -1.0)
    with pytest.raises(WeightsError, match="not finished after"):
        download(published(server), tmp_path / "theirs.pth", silent)


@pytest.mark.parametrize("fits", [True, False])
def test_without_a_checksum_the_tensors_are_checked(srcli, origin, tmp_path, monkeypatch, fits):
    """faults.md 32: a checkpoint whose checksum is not known."""
    spec = get_model(NAME)
    bare = replace(spec.publications[SCALE], sha256=None)
    monkeypatch.setitem(spec.publications, SCALE, bare)
    if not fits:
        torch.save(get_model(NAME).build(2).state_dict(), tmp_path / "other.pth")
        origin.content = (tmp_path / "other.pth").read_bytes()
    code, _, err = srcli("weights", "fetch", NAME, "-s", SCALE, "--yes")
    path = fetched_path(spec, SCALE)
    assert "checksum is not known" in err
    assert (code, path.exists()) == ((0, True) if fits else (3, False)), err
    assert not list(path.parent.glob("**/*.part"))
    if fits:
        assert find_weights(spec, SCALE, "upscale").path == path
