"""Run one probe in this process: `python -m srcli.health NAME`."""

import sys

from srcli.health.probes import answer

answer(sys.argv[1])
