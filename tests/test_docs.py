"""The documentation does what it says: every command in it is run, or says why it cannot be.

A fenced block of `sh` or `python` is run in a folder with the pictures of `prepared`. A comment on
the line before it changes that: `<!-- slow -->`, or `<!-- not run: the reason -->`. Tutorials are
followed from top to bottom in a copy of the repository: blocks with a title are files, or changes
of files.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

from srcli.cli import cli

ROOT = Path(__file__).resolve().parents[1]
TUTORIALS = sorted((ROOT / "docs" / "development").glob("add-a-*.md"))
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(ROOT / folder / "README.md" for folder in ("weights", "benchmarks")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
FENCE = re.compile(
    r"(?:^ *<!-- (?P<mark>[^>]*) -->\n)?^(?P<indent> *)```(?P<language>\w*)"
    r"(?: title=\"(?P<title>[^\"]+)\")?\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
COPIED = (
    *("srcli", "export", "weights", "tests", "examples", "docs", "pyproject.toml", "mkdocs.yml"),
    *("Makefile", "README.md", "CHANGELOG.md"),
)
MAX_LINES = 60  # of a toy model or a toy backend, with its test


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    title: str | None
    mark: str
    body: str


def blocks(page):
    text = page.read_text()
    for match in FENCE.finditer(text):
        yield Block(
            page=str(page.relative_to(ROOT)),
            line=text.count("\n", 0, match.start("language")) + 1,
            language=match["language"],
            title=match["title"],
            mark=match["mark"] or "",
            body=textwrap.dedent(match["body"]),
        )


BLOCKS = [block for page in PAGES for block in blocks(page)]
RUNNABLE = [
    pytest.param(
        block,
        id=f"{block.page}:{block.line}",
        marks=pytest.mark.slow if block.mark == "slow" else (),
    )
    for block in BLOCKS
    if block.language in ("sh", "python")
    and not block.title
    and not block.mark.startswith("not run: ")
    and ROOT / block.page not in TUTORIALS
]


def run(language, body, folder, **environment):
    """Run a block as a user would; its output if it succeeds."""
    command = ["bash", "-euo", "pipefail", "-c", body]
    if language == "python":
        command = [sys.executable, "-c", body]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path, "NO_MKDOCS_2_WARNING": "1", **environment},
    )
    assert done.returncode == 0, f"{body}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def prepared(tmp_path, photograph):
    """A folder with the pictures that the pages name."""
    small = Image.fromarray(photograph[40:72, 60:100])
    noise = np.random.default_rng(0).normal(0, 25, (32, 40, 3))
    noisy = Image.fromarray(np.clip(np.asarray(small) + noise, 0, 255).astype(np.uint8))
    for folder in ("holiday/more", "Set5", "examples"):
        (tmp_path / folder).mkdir(parents=True)
    small.save(tmp_path / "pages.tif", save_all=True, append_images=[noisy])
    for name in ("photo.png", "big.png", "blurred.png", "holiday/a.png", "photo.jpg"):
        small.save(tmp_path / name)
    for name in ("blocks.jpg", "holiday/more/b.jpg"):
        small.save(tmp_path / name, quality=15)
    noisy.save(tmp_path / "noisy.png")
    steps = np.arange(-10, 11)
    blur = np.exp(-(steps**2 + 3 * steps[:, None] ** 2) / 18)
    Image.fromarray((255 * blur).astype(np.uint8)).save(tmp_path / "blur.png")
    small.convert("RGBA").save(tmp_path / "logo.png")
    for number in range(2):
        Image.fromarray(photograph[:48, 48 * number :][:, :48]).save(
            tmp_path / "Set5" / f"{number}.png"
        )
    shutil.copy(ROOT / "examples" / "in.png", tmp_path / "examples")
    return tmp_path


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("block", RUNNABLE)
def test_what_the_pages_say_runs(prepared, block):
    if re.search(r"^ffmpeg ", block.body, re.MULTILINE) and shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    run(block.language, block.body, prepared)


def test_every_block_is_run_or_says_why_not():
    for block in BLOCKS:
        place = f"{block.page}:{block.line}"
        known = ("sh", "python", "diff", "markdown", "text", "yaml")
        assert block.language in known, f"{place}: {block.language!r}"
        if block.mark.startswith("not run"):
            assert len(block.mark.removeprefix("not run: ")) > 10, f"{place} gives no reason"


MANY = "docs/guide/many-pictures.md"


def block_with(page, words):
    (found,) = [block for block in BLOCKS if block.page == page and words in block.body]
    return found.body


@pytest.mark.slow
def test_the_script_for_slurm(prepared):
    (prepared / "list").write_text("holiday/a.png\nphoto.png\n")
    for task in ("1", "2"):
        run(
            "sh",
            block_with(MANY, "#SBATCH"),
            prepared,
            SLURM_ARRAY_TASK_ID=task,
            SLURM_ARRAY_TASK_COUNT="2",
            SLURM_CPUS_PER_TASK="1",
        )
    assert "2 done, 0 failed, 0 missing of 2" in run("sh", "srcli batch status out/", prepared)


@pytest.mark.slow
def test_the_job_for_kubernetes(prepared):
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load(block_with(MANY, "kind: Job"))
    assert job["spec"]["completions"] == 16
    (container,) = job["spec"]["template"]["spec"]["containers"]
    shell, option, line = container["command"]
    assert (shell, option) == ("sh", "-c")
    (prepared / "list").write_text("holiday/a.png\nphoto.png\n")
    for index in range(16):
        run("sh", line.replace("/data/", ""), prepared, JOB_COMPLETION_INDEX=str(index))
    assert "2 done, 0 failed, 0 missing of 2" in run("sh", "srcli batch status out/", prepared)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("parallel") is None, reason="needs GNU parallel")
def test_the_line_for_parallel(prepared):
    (prepared / "list").write_text("holiday/a.png\nphoto.png\n")
    run("sh", block_with(MANY, "| parallel"), prepared)
    assert "2 done, 0 failed, 0 missing of 2" in run("sh", "srcli batch status out/", prepared)


def test_no_command_hides_outside_of_a_fence():
    """The two of the README are run by `.ci/run`."""
    indented = re.compile(r"^    (?:pip|python|make|srcli|\$) .*", re.MULTILINE)
    found = {}
    for page in PAGES:
        lines = indented.findall(FENCE.sub("", page.read_text()))
        if lines:
            found[page.name] = lines
    assert list(found) == ["README.md"]
    install, tests = found["README.md"]
    assert re.fullmatch(r"    pip install \S+ \S+ && srcli upscale .*", install)
    assert re.fullmatch(r"    pip install .*test.* && make .*", tests)


def commands():
    """Every call of srcli in the pages, those included that cannot be run here."""
    for block in BLOCKS:
        if block.language != "sh":
            continue
        for line in block.body.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "srcli" in words:
                words = words[words.index("srcli") + 1 :]
                end = [words.index(sign) for sign in ("|", "||", "&&", ">") if sign in words]
                yield f"{block.page}:{block.line}", words[: min(end, default=len(words))]


@pytest.mark.parametrize(("place", "words"), list(commands()))
def test_options_exist(place, words):
    context = click.Context(cli, info_name="srcli")
    command = cli
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        name, *rest = words
        inner = command.get_command(context, name)
        if inner is None:
            break
        command, words = inner, rest
        context = click.Context(command, context, name)
    if command is cli and words:  # a command that a tutorial adds
        assert place.startswith("docs/development/add-a-command.md")
        return
    command.make_parser(context).parse_args(list(words))  # raises for options that do not exist


def changed(text, difference):
    """Apply lines that begin with a space, a minus or a plus."""
    lines = difference.splitlines()
    old = "".join(f"{line[1:]}\n" for line in lines if line[0] in " -")
    new = "".join(f"{line[1:]}\n" for line in lines if line[0] in " +")
    assert text.count(old) == 1, f"stands {text.count(old)} times:\n{old}"
    return text.replace(old, new)


def write(block, folder):
    """Make the file, or the change of a file, that a block with a title shows."""
    file = folder / block.title
    if block.language == "diff":
        file.write_text(changed(file.read_text(), block.body))
    else:
        file.parent.mkdir(exist_ok=True)
        file.write_text(block.body)


@pytest.fixture
def repository(tmp_path):
    """A copy of the repository that can be imported as it lies, by PYTHONPATH."""
    ignored = shutil.ignore_patterns("__pycache__", "*.safetensors", "unfinished")
    for name in COPIED:
        source, target = ROOT / name, tmp_path / name
        if source.is_dir():
            shutil.copytree(source, target, ignore=ignored)
        else:
            shutil.copy(source, target)
    for weights in (ROOT / "weights").glob("*.safetensors"):
        (tmp_path / "weights" / weights.name).symlink_to(weights)
    for name in ("export", "weights"):
        (tmp_path / "srcli" / name).symlink_to(tmp_path / name)
    return tmp_path


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorials_can_be_followed(repository, page):
    for block in blocks(page):
        if block.title:
            write(block, repository)
        elif block.mark == "docs" and find_spec("mkdocs") is None:
            continue
        else:
            run(block.language, block.body, repository, PYTHONPATH=str(repository))


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorials_stay_short(page):
    lines = [
        line
        for block in blocks(page)
        if block.title
        for line in block.body.splitlines()
        if line.strip() and (block.language != "diff" or line.startswith("+"))
    ]
    assert 10 < len(lines) < MAX_LINES, len(lines)


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    named = set(re.findall(r": (\S+\.md)$", navigation, re.MULTILINE)) - {"changelog.md"}
    assert named == {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")}


@pytest.mark.slow
def test_the_site_loads_nothing_from_elsewhere(tmp_path):
    """No fonts, scripts or pictures of other servers, which would tell them who reads."""
    pytest.importorskip("mkdocs")
    run("python", f"import mkdocs.__main__ as m; m.cli(['build', '-d', {str(tmp_path)!r}])", ROOT)
    loaded = re.compile(
        r"<(?:script|img|iframe|source)[^>]+src=\"?https?:|<link[^>]+href=\"?https?:"
        r"|url\([\"']?https?:|@import [\"']https?:"
    )
    pages = [*tmp_path.rglob("*.html"), *tmp_path.rglob("*.css")]
    assert len(pages) > len(list((ROOT / "docs").rglob("*.md")))
    for page in pages:
        found = loaded.search(page.read_text())
        assert found is None, f"{page.relative_to(tmp_path)}: {found[0]}"
