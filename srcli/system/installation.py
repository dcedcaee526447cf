"""The distributions that srcli is installed from: `srcli`, or the small `srcli-lite`.

A release has both. `srcli-lite` holds the code and needs little; `srcli` adds PyTorch and ONNX, and
`srcli-dcls` weights that are too large for it. A clone installs everything as `srcli`. See
`packaging/distributions.py`.
"""

from __future__ import annotations

import re
from functools import cache

FULL, SMALL = "srcli", "srcli-lite"


@cache
def is_small() -> bool:
    """Tell whether `srcli-lite` is installed alone."""
    return _requirements(FULL) is None and _requirements(SMALL) is not None


@cache
def is_released() -> bool:
    """Tell whether the code is a release's, which may have come without some weights."""
    return _requirements(SMALL) is not None


def bring(distribution: str) -> str:
    """Return the command that installs a distribution of a release, with all that it needs."""
    extra = distribution.removeprefix(f"{FULL}-")
    return f"pip install {FULL}" if distribution == FULL else f"pip install '{FULL}[{extra}]'"


def pip_install(extra: str) -> str:
    """Return the command that installs an extra of srcli beside what is there."""
    return f"pip install '{_name()}[{extra}]'"


def reinstall() -> str:
    """Return the sentence that tells how to replace damaged files of srcli."""
    return f"Reinstall srcli: `pip install --force-reinstall {_name()}`."


def is_mixed() -> bool:
    """Tell whether a clone's `srcli` and `srcli-lite` are installed, over each other's files."""
    full = _requirements(FULL)
    return full is not None and SMALL not in full and _requirements(SMALL) is not None


def _name() -> str:
    return SMALL if is_small() else FULL


def _requirements(name: str) -> frozenset[str] | None:
    """Return the names that a distribution requires without extras; None if it is not there."""
    from importlib import metadata  # slow to load, and rarely needed

    try:
        texts = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return None
    needed = (text for text in texts if "extra ==" not in text)
    return frozenset(re.split(r"[^\w.-]", text, maxsplit=1)[0].lower() for text in needed)
