"""The compiled code for other systems and processors, as far as this machine's compilers go."""

from __future__ import annotations

import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("native/_network.c", "filters/_filters.c")
MINGW = Path("/usr/x86_64-w64-mingw32/include")
LIBRARIES = {
    "arm64": Path("/usr/aarch64-linux-gnu/include"),
    "x86_64": Path("/usr/include/x86_64-linux-gnu"),
}
CONFIGURATION = Path(__file__).parents[1] / "data" / "windows" / "pyconfig.h"


def compiler(name):
    if shutil.which(name) is None:
        pytest.skip(f"needs {name}")
    return name


@pytest.fixture
def windows_headers(tmp_path):
    """CPython's headers, with the configuration of Windows."""
    compiler("x86_64-w64-mingw32-objdump")  # comes with the headers of Windows
    headers = tmp_path / "include"
    shutil.copytree(sysconfig.get_paths()["include"], headers)
    shutil.copy(CONFIGURATION, headers)
    return headers


def compiled(command, source, headers, target):
    options = ["-O2", "-Werror=implicit-function-declaration", f"-I{headers}", "-c"]
    path = ROOT / "srcli" / "backends" / source
    subprocess.run([*command, *options, str(path), "-o", str(target)], check=True)
    return target


def registers(file, name):
    """How often an object file names a kind of vector register."""
    command = ["x86_64-w64-mingw32-objdump", "-d", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.count(name)


@pytest.mark.parametrize("source", SOURCES)
def test_windows_by_clang(windows_headers, tmp_path, source):
    command = [compiler("clang"), "--target=x86_64-w64-mingw32"]
    file = compiled(command, source, windows_headers, tmp_path / "out.o")
    if source == SOURCES[0]:
        assert registers(file, "%ymm") > 1000  # kernels of 256 bits
        assert registers(file, "%zmm") > 1000


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES)
def test_windows_by_clang_cl(windows_headers, tmp_path, source):
    """As `setup.py` does; MinGW's headers, used here, take attributes away from such compilers."""
    code = (
        "#define Py_LIMITED_API 0x030B0000\n#define PY_SSIZE_T_CLEAN\n"
        "#include <Python.h>\n#include <stdint.h>\n#include <string.h>\n"
        f'#undef __attribute__\n#include "{ROOT / "srcli" / "backends" / source}"\n'
    )
    (tmp_path / "in.c").write_text(code)
    command = [compiler("clang"), "--driver-mode=cl", "--target=x86_64-pc-windows-msvc"]
    command += ["/clang:-O3", "/O2", "/W3", "/MD", "/nologo", "/c", f"/I{windows_headers}"]
    command += ["/imsvc", str(MINGW), "/Tc", str(tmp_path / "in.c"), f"/Fo{tmp_path / 'out.obj'}"]
    subprocess.run(command, check=True)
    if source == SOURCES[0]:
        assert registers(tmp_path / "out.obj", "%ymm") > 1000
        assert registers(tmp_path / "out.obj", "%zmm") > 1000


@pytest.mark.parametrize("source", SOURCES)
def test_windows_by_gcc(windows_headers, tmp_path, source):
    command = [compiler("x86_64-w64-mingw32-gcc-posix")]
    file = compiled(command, source, windows_headers, tmp_path / "out.o")
    assert registers(file, "%ymm") == 0  # its stack is not aligned for them there


@pytest.mark.parametrize("source", SOURCES)
def test_arm(tmp_path, source):
    headers = sysconfig.get_paths()["include"]
    compiled([compiler("aarch64-linux-gnu-gcc")], source, headers, tmp_path / "out.o")


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("processor", ["arm64", pytest.param("x86_64", marks=pytest.mark.slow)])
def test_macos(tmp_path, processor, source):
    """With the C library's headers of Linux, whose types have the same sizes there."""
    library = LIBRARIES[processor]
    if not library.exists():
        pytest.skip(f"needs {library}")
    command = [compiler("clang"), f"--target={processor}-apple-macos11", "-isystem", str(library)]
    # Names that Apple's compiler gives another meaning.
    command += ["-Wno-macro-redefined", "-D__THROW=", "-D__nonnull(x)="]
    headers = sysconfig.get_paths()["include"]
    file = compiled(command, source, headers, tmp_path / "out.o")
    assert file.read_bytes()[:4] == bytes.fromhex("cffaedfe")  # of 64 bits for macOS


@pytest.mark.parametrize("source", SOURCES)
def test_clang_on_this_machine(tmp_path, source):
    headers = sysconfig.get_paths()["include"]
    compiled([compiler("clang")], source, headers, tmp_path / "out.o")
