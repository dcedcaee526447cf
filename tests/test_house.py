"""The rules of the house: who imports whom, what is packaged, what is documented."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from support.imports import circle

from srcli import __version__, errors
from srcli.cli import COMMANDS
from srcli.errors import SrcliError

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# Layer -> layers that it may import. A layer is the first name below the package.
MAY_IMPORT = {
    "errors": set(),
    "console": {"errors"},
    "system": {"errors"},
    "models": {"errors"},
    "images": {"errors", "system"},
    "backends": {"errors", "models", "system"},
    "checkpoints": {"backends", "errors", "models", "system"},
    "pipeline": {"backends", "errors", "images", "models", "system"},
    "loading": {"backends", "checkpoints", "errors", "models", "pipeline", "system"},
    "jobs": {"backends", "checkpoints", "errors", "images", "models", "pipeline", "system"},
    "quality": {"errors", "images", "loading", "models", "pipeline"},
    "pages": {"images"},
    "serving": {
        *("backends", "checkpoints", "errors", "images", "jobs", "loading", "models", "pages"),
        *("pipeline", "system"),
    },
    "bench": {"backends", "checkpoints", "errors", "loading", "models", "pipeline", "system"},
    "health": {"backends", "checkpoints", "errors", "images", "system"},
    "api": {"errors", "images", "jobs", "loading", "models", "pipeline", "system"},
    "video": {
        "backends",
        "errors",
        "images",
        "jobs",
        "loading",
        "models",
        "pipeline",
        "system",
    },
    "commands": None,  # anything but cli
    "cli": {"console", "errors", "system"},
}

# Where a part is imported by its name: the door to `export`, and commands, which load when used.
BY_NAME = {"srcli/loading/exporter.py", "srcli/cli.py", "srcli/images/__init__.py"}
# Names in variables that are other libraries, or our compiled modules.
FOREIGN = {"COMPILED", "name"}


def source_files(folder):
    return sorted((ROOT / folder).rglob("*.py"))


def imports(file):
    """Dotted names of everything that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("file", source_files("srcli"), ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_point_one_way(file):
    layer = file.relative_to(ROOT / "srcli").parts[0].removesuffix(".py")
    if layer in ("__init__", "__main__"):
        return
    allowed = MAY_IMPORT[layer]
    modules = {path.stem for path in (ROOT / "srcli").iterdir()}
    for name in imports(file):
        parts = name.split(".")
        if parts[0] != "srcli" or len(parts) < 2 or parts[1] not in modules | {"export", "weights"}:
            continue
        assert parts[1] not in ("export", "weights"), f"{file.name} imports {name}"
        if parts[1] != layer and allowed is not None:
            assert parts[1] in allowed, f"{layer} may not import {parts[1]}"


def test_only_the_doors_import_by_name():
    """What imports a part of ours by a string would go round the test above."""
    for file in source_files("srcli") + source_files("export"):
        name = str(file.relative_to(ROOT))
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in (
                "importlib.import_module",
                "import_module",
                "__import__",
            ):
                continue
            said = ast.unparse(node.args[0])
            ours = "srcli" in said or not isinstance(node.args[0], ast.Constant)
            if name not in BY_NAME and ours:
                assert said in FOREIGN, f"{name} imports {said} by name"


def test_every_layer_is_listed():
    layers = {path.stem for path in (ROOT / "srcli").iterdir() if path.suffix in ("", ".py")}
    assert layers - {"__pycache__", "__init__", "__main__"} <= set(MAY_IMPORT)


def test_only_the_console_imports_rich():
    for file in source_files("srcli") + source_files("export"):
        if file.name != "console.py":
            assert not any(name.split(".")[0] == "rich" for name in imports(file)), file


def test_every_package_is_listed():
    tree = {
        ".".join(file.parent.relative_to(ROOT).parts)
        for file in (ROOT / "srcli").rglob("__init__.py")
    }
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    assert listed == tree | {"srcli.export", "srcli.weights"}


def test_version_is_the_packages():
    assert PROJECT["project"]["version"] == __version__


def test_readme_names_every_command():
    readme = (ROOT / "README.md").read_text()
    for name in COMMANDS:
        assert f"srcli {name}" in readme


def test_readme_links_lead_somewhere():
    for page in ("README.md", "CONTRIBUTING.md", "weights/README.md", "weights/NOTES.md"):
        text = (ROOT / page).read_text()
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if "://" not in target:
                assert ((ROOT / page).parent / target).exists(), target
    for target in re.findall(r'src="([^"]+)"', (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target


def test_changelog_knows_the_version():
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_error_hierarchy_is_drawn_completely():
    drawn = (ROOT / "srcli" / "errors.py").read_text().split('"""')[1]
    classes, waiting = [], [SrcliError]
    while waiting:
        current = waiting.pop()
        classes.append(current)
        waiting += current.__subclasses__()
    for error in classes:
        if error.__module__ == "srcli.errors":
            assert re.search(rf"{error.__name__} +{error.exit_code}\b", drawn), error.__name__


def test_no_traces_of_this_machine():
    for folder in ("srcli", "export", "weights", "tests", "benchmarks", "docs", ".ci"):
        for file in source_files(folder):
            text = file.read_text()
            assert "/work" + "/" not in text, file
            assert "/root" + "/" not in text, file


def test_one_wheel_serves_every_python():
    """What is compiled, its wheel's tag and what may install it name the same oldest Python."""
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    major, minor = oldest.split(".")
    tag = PROJECT["tool"]["distutils"]["bdist_wheel"]["py-limited-api"]
    assert tag == f"cp{major}{minor}"
    for extension in PROJECT["tool"]["setuptools"]["ext-modules"]:
        assert extension["py-limited-api"]
        (source,) = extension["sources"]
        wanted = f"#define Py_LIMITED_API 0x{int(major):02X}{int(minor):02X}0000"
        assert wanted in (ROOT / source).read_text()


def test_no_circle():
    assert circle() == []


LONGEST = 400
# In their papers' order, which is easier to follow in one piece.
LONG = {"srcli/models/dcls/network.py", "srcli/models/hpinet/network.py"}


@pytest.mark.parametrize("folder", ["srcli", "export", "weights"])
def test_no_file_is_long(folder):
    for file in source_files(folder):
        name = str(file.relative_to(ROOT))
        assert name in LONG or len(file.read_text().splitlines()) <= LONGEST, name


def test_openings_of_docstrings():
    """A docstring of what others call begins with a verb or a name, and stands alone."""
    found = []
    for folder in ("srcli", "export"):
        for file in source_files(folder):
            for node in ast.walk(ast.parse(file.read_text())):
                if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    continue
                text = ast.get_docstring(node)
                if text and not node.name.startswith("_") and LEANING.match(text):
                    found.append(f"{file.relative_to(ROOT)}:{node.lineno} {text[:60]}")
    assert not found, "\n".join(found)


def code_files():
    return source_files("srcli") + source_files("export")


ANY_PER_1000_LINES = 2
SUPPRESSIONS = 3


def test_any_is_rare():
    """Objects of other libraries have types too: theirs, a Protocol, `object`."""
    found, lines = [], 0
    for file in code_files():
        text = file.read_text()
        lines += len(text.splitlines())
        for node in ast.walk(ast.parse(text)):
            # As a name, or in quotes as in `cast("Any", value)`.
            if getattr(node, "id", getattr(node, "value", None)) == "Any":
                found.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert len(found) <= ANY_PER_1000_LINES * lines / 1000, "\n".join(found)


def test_type_checks_are_switched_off_with_a_reason():
    """As in `# type: ignore[misc]  # the base exists once TensorRT is loaded`."""
    for file in code_files():
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if "# type: ignore" in line:
                reason = re.search(r"# type: ignore\[[a-z, -]+\]  # \w.+$", line)
                assert reason, f"{file.relative_to(ROOT)}:{number}"


def test_the_linter_is_rarely_overruled():
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in code_files()
        for number, line in enumerate(file.read_text().splitlines(), 1)
        if "noqa" in line
    ]
    assert len(found) <= SUPPRESSIONS, found


ERRORS = {
    name
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, SrcliError | errors.Obstacle)
}


def test_every_error_says_what_to_do():
    """An error has a problem and a remedy, each without the other's full stop between them."""
    found = []
    for file in code_files():
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ERRORS:
                continue
            parts = [*node.args, *(keyword.value for keyword in node.keywords)]
            if any(isinstance(part, ast.Starred) for part in parts):  # both parts of another error
                continue
            texts = [text_of(part) for part in parts]
            if len(texts) != 2 or texts[0].endswith(".") or ". " in texts[0] or not texts[1]:
                found.append(f"{file.relative_to(ROOT)}:{node.lineno} {ast.unparse(node)}")
    assert not found, "\n".join(found)


def text_of(node):
    """A text in the code, with … for what is put into it."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    return "…"


LEANING = re.compile(r"(What|How|Where|Whether|When|Who|Which|Why|Nor|The same|As in|See)\b")


def test_nothing_strange_lies_at_the_top():
    """Wheels and graphs that a command had left there were committed once."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("no repository")
    done = subprocess.run([git, "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    found = {name for name in done.stdout.splitlines() if "/" not in name}
    assert found == {
        ".gitignore",
        ".pre-commit-config.yaml",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "LICENSE",
        "MANIFEST.in",
        "Makefile",
        "README.md",
        "mkdocs.yml",
        "pyproject.toml",
        "setup.py",
    }
