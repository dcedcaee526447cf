"""Print a checksum of what our compiled code computes, for each of the weights that ship.

    python benchmarks/digits.py weights/prepared > here.txt

The same lines on two machines mean the same digits, whatever their processors and vectors. On Arm
without such a machine: compile `_network.c` and `_filters.c` by aarch64-linux-gnu-gcc, and run this
by an aarch64 Python under qemu-user. It needs NumPy and safetensors only.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from pathlib import Path

import numpy as np

from srcli.backends.native.compiled import vectors
from srcli.backends.native.network import compiled_network
from srcli.backends.native.weights import read_weights

SIZES = ((20, 23), (5, 7))


def main() -> None:
    """Run each file on pictures of noise."""
    sys.stderr.write(f"{platform.machine()}, vectors of {vectors()} bits\n")
    for file in sorted(Path(sys.argv[1]).glob("*.safetensors")):
        network = compiled_network(*read_weights(file), threads=2)
        for height, width in SIZES:
            picture = np.random.default_rng(height).random((1, 3, height, width), np.float32)
            digest = hashlib.sha256(network(picture).tobytes()).hexdigest()
            print(f"{file.stem} {width}x{height} {digest[:16]}")
        network.close()


if __name__ == "__main__":
    main()
