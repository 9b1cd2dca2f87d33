"""Slices that do not look like their neighbours: what damage that decodes without an error leaves.

A bit flipped in a compressed file, or a decoder that stopped half-way, leaves rows of noise, of
shifted values or of one value. The slices on either side still resemble each other, while the
damaged one resembles neither. By how much more is taken row by row: breathing, pulsation and gaps
make slices differ too, but then the two sides differ no less from each other.

Not found: damage of few pixels or HU, dark rows where air is, and damage that goes on through more
than two slices, or through more than one at either end of the volume. A sound slice beside a
damaged one may be listed with it.
"""

import numpy as np

# Mean HU by which a slice may differ more from both sides than they do from each other, over one
# row and over a band of rows. 100 phantoms, some with motion, reach 90 and 40; real CTs 34 and 10.
ROW_HU = 150
BAND_HU = 80
# The same over a band where the sides are two slices away, or both lie on one side: there the
# phantoms reach 110 and 190, real CTs 25 and 70.
GROSS_HU = 350
# Rows of one value where the slices beside have others, this far off: a decoder that stopped.
BLANK_HU = 80
BLANK_PART = 1 / 32  # of all rows
_BANDS = 16
_COLUMNS = 64  # samples a row
_HU = (-1024, 1024)  # beyond lie padding and metal


def damaged_slices(hu: np.ndarray) -> np.ndarray:
    """Indices z, ascending, of slices that are unlike their neighbours on both sides.

    Args:
        hu: (Z, Y, X) int16 HU; none can be told among fewer than three slices.
    """
    found = np.zeros(len(hu), bool)
    if len(hu) < 3:
        return np.flatnonzero(found)
    sample = hu[:, :, :: max(1, hu.shape[2] // _COLUMNS)].clip(*_HU).astype(np.float32)
    one, two = _row_steps(sample, 1), _row_steps(sample, 2)
    excess = np.minimum(one[:-1], one[1:]) - two
    found[1:-1] = (excess > ROW_HU).any(1) | _in_a_band(excess, BAND_HU)
    # The first and the last slice have neighbours on one side alone.
    ends = np.minimum(one[[0, -1]], two[[0, -1]]) - one[[1, -2]]
    found[[0, -1]] = _in_a_band(ends, GROSS_HU)
    if len(hu) > 4:  # two damaged slices in a row hide each other from their next neighbours
        excess = np.minimum(two[:-2], two[2:]) - _row_steps(sample, 4)
        found[2:-2] |= _in_a_band(excess, GROSS_HU)
    beside = np.full((len(hu), hu.shape[1]), np.inf, np.float32)
    beside[1:] = one
    beside[:-1] = np.minimum(beside[:-1], one)
    blank = beside > BLANK_HU
    blank[blank] = np.ptp(sample[blank], axis=1) == 0
    found |= blank.sum(1) > BLANK_PART * hu.shape[1]
    return np.flatnonzero(found)


def _row_steps(sample: np.ndarray, step: int) -> np.ndarray:
    """Mean absolute difference (Z - step, Y) of each row and the same one `step` slices on."""
    return np.abs(sample[step:] - sample[:-step]).mean(2)


def _in_a_band(rows: np.ndarray, limit_hu: float) -> np.ndarray:
    """Whether the mean over some band of rows (N, Y) is above the limit: (N,) bool."""
    edges = np.linspace(0, rows.shape[1], min(_BANDS, rows.shape[1]) + 1).astype(int)
    bands = np.add.reduceat(rows, edges[:-1], axis=1) / np.diff(edges)
    return (bands > limit_hu).any(1)
