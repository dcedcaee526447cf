"""`python -m srcli`."""

from srcli.cli import main

main()
