"""Build the compiled part; everything else stands in `pyproject.toml`."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_ext import build_ext

# A wheel for others must not lack what could not be compiled; on one's own machine it may.
REQUIRED = os.environ.get("SRCLI_REQUIRE_NATIVE", "0") != "0"


class BuildCompiledPart(build_ext):
    """Compile as usual, but on Windows by Clang, and if it is asked for not without success."""

    def build_extensions(self) -> None:
        if self.compiler.compiler_type == "msvc" and (clang := shutil.which("clang-cl")):
            self._use(clang)
        for extension in self.extensions:
            extension.optional = extension.optional and not REQUIRED
        super().build_extensions()

    def _use(self, clang: str) -> None:
        """Take Clang in the place of Microsoft's compiler, which lacks the vectors of GCC."""
        self.compiler.initialize()
        self.compiler.cc = clang
        command = [clang, "--print-resource-dir"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        for extension in self.extensions:
            extension.extra_compile_args = ["/clang:-O3"]
            # Asking a processor what it can do takes a function of Clang's own library.
            extension.library_dirs.append(str(Path(found) / "lib" / "windows"))
            extension.libraries.append("clang_rt.builtins-x86_64")


setup(cmdclass={"build_ext": BuildCompiledPart})
