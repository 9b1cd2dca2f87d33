"""Find damaged slices that were decoded without an error, by comparison with their neighbours.

A flipped bit in a compressed file, or a decoder that stopped half-way, leaves rows of noise, of
shifted values or of a single value. The slices on both sides of a damaged one resemble each other,
but not the damaged one. The differences are compared row by row: breathing, pulsation and gaps
also make slices differ, but then the slices on both sides differ from each other as much.

Not found: damage of few pixels or few HU, dark rows where air is, and damage through more than two
neighbouring slices, or more than one at either end of the volume. An intact slice beside a damaged
one may be listed with it.
"""

import numpy as np

# Limits in mean HU: difference of a slice to both sides less the difference between the sides, over
# one row and over a band of rows. 100 phantoms, some with motion, reach 90 and 40; real CTs 34, 10.
ROW_HU = 150
BAND_HU = 80
# The same over a band, if the compared slices are two slices away, or both on one side: there
# phantoms reach 110 and 190, real CTs 25 and 70.
GROSS_HU = 350
# Rows with a single value that differ by this much from both neighbours: the decoder stopped.
BLANK_HU = 80
BLANK_PART = 1 / 32  # of all rows
_BANDS = 16
_COLUMNS = 64  # samples per row
_HU = (-1024, 1024)  # clipped to this range, against padding and metal


def damaged_slices(hu: np.ndarray) -> np.ndarray:
    """Indices z, ascending, of slices that differ from their neighbours on both sides.

    Args:
        hu: (Z, Y, X) int16 HU; with fewer than three slices the result is empty.
    """
    found = np.zeros(len(hu), bool)
    if len(hu) < 3:
        return np.flatnonzero(found)
    sample = hu[:, :, :: max(1, hu.shape[2] // _COLUMNS)].clip(*_HU).astype(np.float32)
    one, two = _row_steps(sample, 1), _row_steps(sample, 2)
    excess = np.minimum(one[:-1], one[1:]) - two
    found[1:-1] = (excess > ROW_HU).any(1) | _in_a_band(excess, BAND_HU)
    # The first and the last slice have neighbours on one side only.
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
    """Mean absolute difference (Z - step, Y) between each row and the same row `step` slices on."""
    return np.abs(sample[step:] - sample[:-step]).mean(2)


def _in_a_band(rows: np.ndarray, limit_hu: float) -> np.ndarray:
    """Whether the mean over any band of rows is above the limit; rows (N, Y) -> (N,) bool."""
    edges = np.linspace(0, rows.shape[1], min(_BANDS, rows.shape[1]) + 1).astype(int)
    bands = np.add.reduceat(rows, edges[:-1], axis=1) / np.diff(edges)
    return (bands > limit_hu).any(1)
