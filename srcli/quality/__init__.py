"""What restoring is measured by."""

from typing import Literal, get_args

BlurSet = Literal["gaussian8", "anisotropic"]
BLUR_SETS: tuple[BlurSet, ...] = get_args(BlurSet)
"""Sets of blurs that `srcli.quality.blurs` makes."""
