"""Object stores: pictures in and out of a real S3 server on this machine, and what may go wrong."""

from __future__ import annotations

import http.server
import json
import threading
import urllib.request
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.folders import make_pictures, tree
from support.s3 import Wire

from srcli.jobs.status import Outputs, merged, read_status
from srcli.system import stores

pytestmark = [pytest.mark.services, pytest.mark.filterwarnings("default")]
s3fs = pytest.importorskip("s3fs", reason="needs srcli[cloud]")
moto_server = pytest.importorskip("moto.server", reason="needs moto")


@pytest.fixture
def wire(monkeypatch):
    """The wire to a server with an empty bucket."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/reset", b"").close()
    wire = Wire(port)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{wire.port}",
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    stores._of_scheme.cache_clear()
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    yield wire
    wire.close()
    server.stop()
    stores._of_scheme.cache_clear()


@pytest.fixture
def place(wire, tmp_path, monkeypatch):
    """Pictures in a folder and in the bucket."""
    make_pictures(make_pictures(tmp_path / "in", 5, size=(20, 24)) / "sub", 3)
    s3 = s3fs.S3FileSystem()
    for name, content in tree(tmp_path).items():
        s3.pipe_file(f"bucket/{name}", content)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path / "cache"))
    return tmp_path


def bucket(below="out"):
    """What lies in the bucket, without journals."""
    s3 = s3fs.S3FileSystem()
    s3.invalidate_cache()
    names = [name for name in s3.find(f"bucket/{below}") if ".srcli-journal" not in name]
    return {name.removeprefix(f"bucket/{below}/"): s3.cat_file(name) for name in names}


def plain(srcli):
    """What a batch from folder to folder makes."""
    assert srcli("upscale", "in", "-r", "-s", 2, "-o", "plain/")[0] == 0
    return tree(Path("plain"))


def test_a_folder_of_a_store(srcli, place):
    arguments = ("upscale", "s3://bucket/in/", "-r", "-s", 2, "-o", "s3://bucket/out/")
    code, out, _ = srcli(*arguments)
    assert code == 0
    assert "s3://bucket/out/sub/000.png  10x12 -> 20x24" in out
    assert bucket() == plain(srcli)
    code, out, _ = srcli(*arguments, "--resume", "--json")
    assert {row["status"] for row in json.loads(out)["files"]} == {"skipped"}
    code, _, err = srcli(*arguments)
    assert code == 1
    assert err.count("exists already") == 8
    assert srcli(*arguments, "--overwrite")[0] == 0
    assert not list((place / "cache" / "stores").rglob("*.png"))


def test_without_r_the_folders_inside_are_left_alone(srcli, place):
    assert srcli("upscale", "s3://bucket/in/", "-s", 2, "-o", "out/")[0] == 0
    assert sorted(tree(place / "out")) == [f"00{number}.png" for number in range(5)]


@pytest.mark.parametrize(
    ("source", "output"), [("in", "s3://bucket/out/"), ("s3://bucket/in/", "out/")]
)
def test_one_side_in_a_store(srcli, place, source, output):
    assert srcli("upscale", source, "-r", "-s", 2, "-o", output)[0] == 0
    assert (bucket() if "://" in output else tree(place / "out")) == plain(srcli)


def test_a_folder_ends_in_a_slash(srcli, place):
    code, _, err = srcli("upscale", "s3://bucket/in", "-r", "-s", 2, "-o", "out/")
    assert code == 1
    assert "s3://bucket/in: there is no such object" in err


def test_a_list_in_a_store(srcli, place):
    names = [f"s3://bucket/in/{name}" for name in sorted(bucket(below="in"))]
    s3 = s3fs.S3FileSystem()
    s3.pipe_file("bucket/list", "\n".join(names).encode())
    arguments = ("upscale", "--files-from", "s3://bucket/list", "-s", 2)
    base = ("--relative-to", "s3://bucket/in/", "-o", "s3://bucket/out/")
    for shard in ("1/2", "2/2"):
        assert srcli(*arguments, *base, "--shard", shard)[0] == 0
    assert bucket() == plain(srcli)
    status = read_status(Outputs("s3://bucket/out/"))
    assert (status.done, status.total, status.missing, status.shards) == (8, 8, 0, (2, 2))
    assert srcli("batch", "verify", "s3://bucket/out/")[:2] == (0, "8 whole, 0 not as recorded\n")
    s3.pipe_file("bucket/out/000.png", b"changed")
    s3.rm("bucket/out/001.png")
    code, out, _ = srcli("batch", "verify", "s3://bucket/out")
    assert code == 1
    assert "s3://bucket/out/000.png: is not what the batch had made" in out
    assert "s3://bucket/out/001.png: is not there" in out
    assert srcli("batch", "status", "s3://bucket/out")[1].splitlines()[-1].startswith("7 done")
    code, out, _ = srcli(*arguments, *base, "--resume", "--json")
    done = [row["output"] for row in json.loads(out)["files"] if row["status"] == "done"]
    assert sorted(done) == ["s3://bucket/out/000.png", "s3://bucket/out/001.png"]


@pytest.mark.parametrize("output", ["s3://bucket/large.png", "large.png"])
def test_one_object(srcli, place, output):
    assert srcli("upscale", "s3://bucket/in/000.png", "-s", 2, "-o", output)[0] == 0
    assert srcli("upscale", "in/000.png", "-s", 2, "-o", "here.png")[0] == 0
    found = stores.read(output) if stores.is_url(output) else Path(output).read_bytes()
    assert found == Path("here.png").read_bytes()


@pytest.mark.parametrize("sent", [0, 300, 3000])
def test_a_lost_connection(srcli, wire, place, sent):
    """No half object, every failure on record, and --resume does the rest."""
    expected = plain(srcli)
    wire.most = sent + 12_000
    arguments = ("upscale", "s3://bucket/in/", "-r", "-s", 2, "-o", "s3://bucket/out/", "--resume")
    code, _, err = srcli(*arguments)
    assert code == 1
    assert "cannot be" in err
    assert "Traceback" not in err
    wire.mend()
    assert bucket().items() <= expected.items()
    code, _, err = srcli(*arguments)
    assert code == 0, err
    assert bucket() == expected
    assert len(merged(Outputs("s3://bucket/out/"))) == 8
    assert not read_status(Outputs("s3://bucket/out/")).failed


def test_a_store_that_does_not_answer(srcli, wire, place):
    wire.cut()
    code, _, err = srcli("upscale", "s3://bucket/in/", "-s", 2, "-o", "out/")
    assert code == 1
    assert "s3://bucket/in/: cannot be listed" in err
    code, _, err = srcli("upscale", "--files-from", "s3://bucket/list", "-s", 2, "-o", "out/")
    assert code == 1
    assert "s3://bucket/list: cannot be read" in err


def test_a_bucket_that_is_not_there(srcli, place):
    code, _, err = srcli("upscale", "in/000.png", "-s", 2, "-o", "s3://nowhere/out/")
    assert code == 1
    assert "s3://nowhere/out/000.png: cannot be written" in err


def test_pictures_of_a_web_server(srcli, tmp_path):
    make_pictures(tmp_path / "in", 2, size=(20, 24))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/in"
        code, _, err = srcli(
            *("upscale", f"{url}/000.png", f"{url}/001.png", f"{url}/none.png"),
            *("-s", 2, "-o", f"{tmp_path}/out/"),
        )
        assert code == 1
        assert "none.png: there is no such object" in err
        assert sorted(tree(tmp_path / "out")) == ["000.png", "001.png"]
        with Image.open(tmp_path / "out" / "000.png") as restored:
            assert np.asarray(restored).shape == (40, 48, 3)
        code, _, err = srcli("upscale", tmp_path / "in", "-s", 2, "-o", f"{url}/")
        assert code != 0
        assert "a web server takes no outputs" in err
    finally:
        server.shutdown()
        server.server_close()
