"""`python -m srcli`."""

import importlib.util
import sys

if importlib.util.find_spec("srcli.weights") is None:
    # Python looks into the working folder first, and there it is a tree of sources.
    sys.stderr.write(
        "error: this folder holds srcli's sources, of which only a part can be run in place. "
        "Install them with `pip install -e .`, or run `python -P -m srcli` for the installed.\n"
    )
    sys.exit(3)  # a part is missing

from srcli.cli import main

main()
