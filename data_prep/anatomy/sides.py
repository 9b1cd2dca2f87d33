"""A lung that is missing from the mask: opaque, collapsed or taken out.

The hull must cover that side too, since the arteries in fluid or collapsed lung may hold clots, and
since a heart mask alone would leave it out (paper, section IV). The other lung, mirrored at the
body's midline, says where it is.
"""

import numpy as np

SIDE_SHARE = 0.4  # of the larger lung; a big heart leaves the left one with 0.6 or more


def missing_side(lung: np.ndarray, middle: int) -> tuple[str, np.ndarray] | None:
    """The side with little lung, and where its lung should be.

    Args:
        lung: (Z, Y, X) bool, LPS axes.
        middle: the column that parts the right lung from the left.

    Returns:
        `right` or `left` and the other lung mirrored at `middle`, (Z, Y, X) bool, or None where
        both lungs are there.
    """
    right, left = (np.count_nonzero(part) for part in (lung[:, :, :middle], lung[:, :, middle:]))
    if min(right, left) >= SIDE_SHARE * max(right, left):
        return None
    mirrored = np.zeros_like(lung)
    width = min(middle, lung.shape[2] - middle)
    near_right, near_left = slice(middle - width, middle), slice(middle, middle + width)
    source, target = (near_left, near_right) if right < left else (near_right, near_left)
    mirrored[:, :, target] = lung[:, :, source][:, :, ::-1]
    return "right" if right < left else "left", mirrored
