"""The commands as users meet them."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from srcli.backends import by_preference
from srcli.backends.native.session import NativeBackend
from srcli.cli import COMMANDS, LazyGroup, cli
from srcli.loading.model import load

USABLE = [backend.name for backend in by_preference() if backend.unavailable() is None]


@pytest.fixture
def picture(tmp_path, photograph):
    """A 40 x 30 PNG in a folder of its own."""
    file = tmp_path / "in.png"
    Image.fromarray(photograph[:30, :40]).save(file)
    return file


def files_in(folder):
    return sorted(path.name for path in folder.rglob("*"))


def imported_by(*arguments):
    """Names of the modules that a run of the command line loads."""
    script = (
        "import sys\n"
        "from srcli.cli import run\n"
        "code = run(sys.argv[1:])\n"
        "print(*sys.modules, file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["models"], ["upscale", "-h"]])
def test_light_commands_load_nothing_heavy(arguments):
    assert not {"torch", "onnxruntime", "onnx", "pyvips"} & imported_by(*arguments)


def test_upscale_from_a_warm_cache_loads_no_torch(srcli, tmp_path):
    file = tmp_path / "in.png"
    Image.fromarray(np.zeros((180, 320, 3), np.uint8)).save(file)
    assert srcli("upscale", file, "-o", tmp_path / "first.png")[0] == 0
    loaded = imported_by("upscale", file, "-o", tmp_path / "second.png")
    assert not {"torch", "onnx"} & loaded
    runtimes = {"onnxruntime", "openvino"} & loaded
    assert bool(runtimes) == (NativeBackend().unavailable() is not None)


OWN = str(load("lapar-c", 4).weights.path)


@pytest.mark.parametrize("words", [("--backend", "ort"), ("--weights", OWN)])
def test_cache_that_cannot_be_written(srcli, tmp_path, monkeypatch, words):
    """faults.md 15: the run goes on, with a note that says how to have it kept."""
    file, in_the_way = tmp_path / "in.png", tmp_path / "cache"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file)
    in_the_way.write_text("no folder")
    monkeypatch.setenv("SRCLI_CACHE", str(in_the_way))
    code, _, err = srcli("upscale", file, *words)
    assert code == 0
    assert "for this run only" in err
    assert "SRCLI_CACHE" in err
    assert " -o" not in err
    assert in_the_way.read_text() == "no folder"
    assert (tmp_path / "in_x4.png").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name):
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_the_group_is_lazy():
    assert isinstance(cli, LazyGroup)
    assert cli.list_commands(click.Context(cli)) == list(COMMANDS)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("backend", USABLE)
def test_upscale_writes_beside_the_input(srcli, picture, scale, backend):
    code, out, _ = srcli("upscale", picture, "-s", scale, "--backend", backend)
    assert code == 0
    target = picture.with_name(f"in_x{scale}.png")
    assert str(target) in out
    with Image.open(target) as result:
        assert result.size == (40 * scale, 30 * scale)


def test_backends_agree(srcli, picture, tmp_path):
    results = []
    for backend in USABLE:
        target = tmp_path / f"{backend}.png"
        assert srcli("upscale", picture, "-o", target, "--backend", backend)[0] == 0
        with Image.open(target) as result:
            results.append(np.asarray(result, int))
    assert all(np.abs(result - results[0]).max() <= 1 for result in results)


def test_auto_says_what_it_chose(srcli, picture):
    _, _, err = srcli("upscale", picture)
    assert f"lapar-c x4 with {USABLE[0]}" in err


def test_result_is_better_than_bicubic(srcli, tmp_path, photograph):
    from srcli.pipeline.resample import reduce, resize
    from srcli.quality.metrics import luma, psnr

    small = reduce(photograph, 4)
    Image.fromarray(small).save(tmp_path / "in.png")
    assert srcli("upscale", tmp_path / "in.png")[0] == 0
    with Image.open(tmp_path / "in_x4.png") as result:
        ours = psnr(luma(np.asarray(result)), luma(photograph))
    cubic = np.clip(np.rint(resize(small.astype(float), 160, 160)), 0, 255)
    assert ours > psnr(luma(cubic), luma(photograph)) + 1


def test_upscale_reports_in_json(srcli, picture):
    code, out, _ = srcli("upscale", picture, "--json")
    report = json.loads(out)
    assert code == 0
    assert (report["model"], report["backend"]) == ("lapar-c", USABLE[0])
    (entry,) = report["files"]
    assert (entry["status"], entry["scale"]) == ("done", 4)
    assert entry["output_size"] == [160, 120]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp", ".tif"])
def test_upscale_keeps_the_format(srcli, tmp_path, photograph, suffix):
    file = tmp_path / f"in{suffix}"
    Image.fromarray(photograph[:20, :20]).save(file)
    assert srcli("upscale", file, "-s", 2)[0] == 0
    with Image.open(file) as before, Image.open(tmp_path / f"in_x2{suffix}") as after:
        assert after.format == before.format
        assert after.size == (40, 40)


def test_output_may_be_a_folder(srcli, picture, tmp_path):
    assert srcli("upscale", picture, "-o", f"{tmp_path}/new/")[0] == 0
    assert files_in(tmp_path / "new") == ["in_x4.png"]


def test_overwrite_replaces(srcli, picture):
    target = picture.with_name("in_x4.png")
    target.write_text("old")
    assert srcli("upscale", picture, "--overwrite")[0] == 0
    with Image.open(target) as result:
        assert result.size == (160, 120)


def test_own_weights_are_used(srcli, picture, tmp_path):
    import torch

    from srcli.models.registry import get_model

    torch.manual_seed(0)
    checkpoint = tmp_path / "mine.pth"
    torch.save({"state_dict": get_model("lapar-b").build(2).state_dict()}, checkpoint)
    code, _, err = srcli("upscale", picture, "-m", "lapar-b", "-s", 2, "--weights", checkpoint)
    assert code == 0, err
    assert picture.with_name("in_x2.png").exists()


@pytest.mark.parametrize("command", ["upscale", "denoise", "deblock", "export", "eval", "bench"])
@pytest.mark.parametrize("columns", [80, 160])
def test_long_help_stands_in_sections(srcli, monkeypatch, command, columns):
    """faults.md 28: options were one flat list."""
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = srcli(command, "--help")[1].splitlines()
    titles = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert len(titles) >= 4
    assert titles[-1] in ("Other:", "Commands:")
    assert max(map(len, lines)) <= columns


def test_events_have_the_fields_of_the_guide(srcli, tmp_path):
    """faults.md 27."""
    guide = Path(__file__).resolve().parents[2] / "docs" / "guide" / "batches.md"
    lines = guide.read_text().splitlines()
    table = lines[lines.index("| event | fields |") + 2 :]
    documented = {}
    for line in table[: table.index("")]:
        events, fields = (re.findall(r"`(\w+)`", cell) for cell in line.split("|")[1:3])
        documented |= {event: set(fields) for event in events}
    for event in ("done", "failed", "skipped"):  # those of `planned`, and more
        documented[event] = documented[event] - {"planned"} | documented["planned"]
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / name)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    (tmp_path / "other.jxl").touch()
    srcli("upscale", tmp_path / "a.png", "-s", 2, "-o", tmp_path / "out" / "a.png")
    call = ("upscale", tmp_path, "-s", 2, "-o", f"{tmp_path / 'out'}/", "--skip-existing")
    _, out, _ = srcli(*call, "--events", "jsonl")
    (tmp_path / "list").write_text(f"{tmp_path / 'a.png'}\n")
    again = ("upscale", "--files-from", tmp_path / "list", "-s", 2, "-o", f"{tmp_path}/again/")
    _, more, _ = srcli(*again, "--events", "jsonl")
    found = [json.loads(line) for line in (out + more).splitlines()]
    assert {event["event"] for event in found} >= set(documented)
    for event in found:
        assert set(event) - {"event"} == documented[event["event"]], event["event"]


def test_models_lists_every_model(srcli):
    code, out, _ = srcli("models", "--all")
    assert code == 0
    for expected in ("lapar-a", "lapar-b", "lapar-c", "deblock", "x4", "25.0 G"):
        assert expected in out


def test_models_shows_a_card(srcli):
    code, out, _ = srcli("models", "LAPAR_C")
    assert code == 0
    assert "NeurIPS 2020" in out
    assert "31.72" in out


def test_models_speaks_json(srcli):
    _, out, _ = srcli("models", "--json")
    (variant,) = [
        v
        for m in json.loads(out)
        if m["name"] == "lapar-c"
        for v in m["variants"]
        if v["scale"] == 4
    ]
    assert variant["weights_sha256"]
    assert variant["psnr"]["Set5"] > 31


# What goes wrong: (how to set it up and call, exit code, what the line says).
def missing(picture):
    return ["upscale", picture.with_name("none.png")], 1, "no such file"


def unknown_model(picture):
    return ["upscale", picture, "-m", "lapra-c"], 2, "Did you mean lapar-c?"


def unknown_scale(picture):
    return ["export", "-s", 5], 2, "2, 3, 4"


def no_weights(picture):
    return ["upscale", picture, "-m", "lapar-c", "--weights", picture], 3, "not a checkpoint"


def truncated(picture):
    picture.write_bytes(picture.read_bytes()[:-600])
    return ["upscale", picture], 1, "in.png"


def text_as_png(picture):
    picture.write_text("I am no picture.")
    return ["upscale", picture], 1, "in.png"


def empty(picture):
    picture.write_bytes(b"")
    return ["upscale", picture], 1, "in.png"


def existing(picture):
    Image.new("RGB", (2, 2)).save(picture.with_name("in_x4.png"))
    return ["upscale", picture], 2, "--overwrite"


def onto_itself(picture):
    return ["upscale", picture, "-o", picture, "--overwrite"], 2, "its own result"


def unwritable_name(picture):
    return ["upscale", picture, "-o", picture.with_name("out.xyz")], 2, "out.xyz"


def below_a_file(picture):
    return ["upscale", picture, "-o", f"{picture}/sub/"], 1, "cannot be written"


def unknown_backend(picture):
    return ["upscale", picture, "--backend", "abacus"], 3, "abacus"


def colliding(picture):
    other = picture.parent / "other" / "in.png"
    other.parent.mkdir()
    other.write_bytes(picture.read_bytes())
    return ["upscale", picture, other, "-o", f"{picture.parent}/out/"], 2, "would both become"


def named_as_another_format(picture):
    return (
        ["upscale", picture, "-o", picture.with_name("out.png"), "--format", "jpeg"],
        2,
        "--format",
    )


def two_networks(picture):
    return ["upscale", picture, "--model-file", "net.onnx", "-m", "lapar-c"], 2, "--model is for"


def weights_for_another_network(picture):
    return ["upscale", picture, "--model-file", "net.onnx", "--weights", picture], 2, "--weights is"


MISTAKES = [
    missing,
    unknown_model,
    unknown_scale,
    no_weights,
    truncated,
    text_as_png,
    empty,
    existing,
    onto_itself,
    unwritable_name,
    below_a_file,
    unknown_backend,
    colliding,
    named_as_another_format,
    two_networks,
    weights_for_another_network,
]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_clear_line(srcli, picture, mistake):
    arguments, expected_code, says = mistake(picture)
    before = files_in(picture.parent)
    code, out, err = srcli(*arguments)
    assert code == expected_code, err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert says in line
    assert "Traceback" not in err
    assert out == ""
    assert files_in(picture.parent) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder_is_one_clear_line(srcli, picture):
    folder = picture.parent / "locked"
    folder.mkdir()
    folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    code, _, err = srcli("upscale", picture, "-o", f"{folder}/")
    assert code == 1
    assert "cannot be written" in err


def test_the_process_exits_with_the_code(picture):
    done = subprocess.run(
        [sys.executable, "-m", "srcli", "upscale", str(picture), "-m", "nothing"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stdout == ""


def test_a_reader_that_leaves_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -m srcli models --json | head -c 1", shell=True, capture_output=True
    )
    assert done.stderr == b""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_results_go_to_stdout_even_while_a_bar_is_shown(picture):
    """Progress on a terminal, results in a file: neither gets into the other."""
    import pty

    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "srcli", "upscale", str(picture), "-s", "2"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    )
    os.close(theirs)
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    assert done.stdout.startswith(str(picture.with_name("in_x2.png")))
    assert "40x30 -> 80x60" in done.stdout
    assert "━" in shown
    assert "40x30" not in shown


def test_a_picture_and_json_do_not_share_stdout(srcli, picture):
    code, out, err = srcli("upscale", picture, "-s", 2, "-o", "-", "--json")
    assert (code, out) == (2, "")
    assert "share standard output" in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("upscale", "a.png", "--memory", "inf"),
        ("eval", ".", "--sigma", "nan"),
        ("bench", "--seconds", "nan"),
        ("upscale", ""),
        ("upscale", "a.png", "-o", ""),
        ("upscale", "a.png", "--weights", ""),
        ("eval", "-s", "4", ""),
        ("weights", "convert", ""),
        ("bench", "compare", "a.json", ""),
    ],
)
def test_what_is_no_number_or_name(srcli, arguments):
    code, _, err = srcli(*arguments)
    assert code == 2
    assert "Traceback" not in err


@pytest.mark.parametrize("closed", [">&-", "2>&-"])
def test_closed_streams(tmp_path, picture, closed):
    output = tmp_path / "out.png"
    command = f"{sys.executable} -m srcli upscale {picture} -s 2 -o {output} {closed}"
    assert subprocess.run(command, shell=True).returncode == 0
    assert output.exists()


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
@pytest.mark.parametrize("name", [b"\xc3\xa9.png", b"\xff.png"], ids=["letter", "bytes"])
def test_names_that_cannot_be_shown(picture, name, encoding):
    file = picture.with_name(os.fsdecode(name))
    picture.rename(file)
    command = [sys.executable, "-m", "srcli", "upscale", file, "-s", "2", "--overwrite"]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, env=environment, capture_output=True)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    target = file.with_name(f"{file.stem}_x2.png")
    assert target.exists()
    if encoding == "utf-8":
        assert done.stdout.startswith(os.fsencode(target))
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True)
    (row,) = json.loads(done.stdout)["files"]
    assert row["output"] == str(target)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no such device here")
def test_results_that_cannot_be_written():
    command = f"{sys.executable} -m srcli models > /dev/full"
    done = subprocess.run(command, shell=True, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: standard output: cannot be written")
    assert "Traceback" not in done.stderr


def test_other_runtimes_tell_nobody(tmp_path):
    """Neither numbers of this machine nor settings of a measuring service are left behind."""
    program = (
        "from srcli.system import runtimes\n"
        "runtimes.onnxruntime()\n"
        "try: runtimes.openvino()\n"
        "except ImportError: pass\n"
    )
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"} | home
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert not list(tmp_path.rglob("*"))


def test_a_file_that_appears_during_an_export_stays(srcli, tmp_path, monkeypatch):
    """faults.md 8: checked first, then long work; what came meanwhile was replaced."""
    from srcli.export import to_onnx

    target = tmp_path / "net.onnx"
    make = to_onnx.to_onnx

    def meanwhile(*arguments):
        target.write_text("mine")
        return make(*arguments)

    monkeypatch.setattr(to_onnx, "to_onnx", meanwhile)
    code, _, err = srcli("export", "-m", "lapar-c", "-s", 2, "-o", target)
    assert (code, str(target) in err) == (2, True)
    assert target.read_text() == "mine"
    assert files_in(tmp_path) == ["net.onnx"]
    assert srcli("export", "-m", "lapar-c", "-s", 2, "-o", target, "--overwrite")[0] == 0
    assert target.stat().st_size > 1000


def test_a_file_that_appears_while_filters_are_drawn_stays(srcli, tmp_path, monkeypatch):
    """faults.md 8."""
    from srcli.commands import filters

    target = tmp_path / "dictionary.png"
    colored = filters._colored
    monkeypatch.setattr(filters, "_colored", lambda v: target.write_text("mine") and colored(v))
    code, _, err = srcli("filters", "--dictionary", "-o", target)
    assert (code, target.read_text()) == (2, "mine"), err


def test_sources_that_are_not_installed_say_so():
    """Python takes the working folder's package before an installed one."""
    command = [sys.executable, "-S", "-m", "srcli", "models"]
    answer = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 3
    assert re.search("pip install -e .*python -P -m srcli", answer.stderr)
    assert "Traceback" not in answer.stderr
