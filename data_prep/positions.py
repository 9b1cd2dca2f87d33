"""Positions of the slices of a volume along z: their distance, gaps, and changes of the distance.

Slices are missing where one step is a multiple of the steps around it. Where a longer step repeats,
the scanner was set so: the slice distance changes, and nothing is missing.
"""

from dataclasses import dataclass

import numpy as np

TOLERANCE = 0.1  # part of the slice distance by which steps may differ; files round positions
REPEATS = 4  # equal steps in a row that make a slice distance of their own


@dataclass(frozen=True)
class Spacing:
    """Distances between the slices of a volume.

    Attributes:
        step_mm: the usual distance.
        missing: (Z - 1,) number of slices missing between each slice and the next.
        notes: remarks on gaps, changes of the distance and unevenness.
    """

    step_mm: float
    missing: np.ndarray
    notes: tuple[str, ...]


def slice_spacing(z_mm: np.ndarray) -> Spacing:
    """Distances between slices at ascending positions z_mm (Z,), at least two."""
    steps = np.diff(z_mm)
    usual, ranges = _usual_steps(steps)
    times = np.maximum(np.rint(steps / usual).astype(int), 1)
    missing = times - 1
    notes = [f"gap of {missing[z]} slices after z={z}" for z in np.flatnonzero(missing)]
    if len(ranges) > 1:
        parts = (f"{mm:.2f} mm from z={start} to {stop}" for start, stop, mm in ranges)
        notes.append(f"the slice distance changes: {', '.join(parts)}")
    elif np.abs(steps / usual - times).max() > TOLERANCE:
        notes.append(f"uneven slice distance, {steps.min():.2f} to {steps.max():.2f} mm")
    # Over the whole stack, since positions in files are rounded.
    even = float((z_mm[-1] - z_mm[0]) / times.sum())
    step = float(np.median(usual)) if len(ranges) > 1 else even
    return Spacing(step, missing, tuple(notes))


def _usual_steps(steps: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, float]]]:
    """The distance (Z - 1,) that is usual at each step, and its ranges: first, last slice, mm."""
    median = float(np.median(steps))
    edges = np.flatnonzero(np.abs(np.diff(steps)) > TOLERANCE * median) + 1
    runs = [run for run in np.split(np.arange(len(steps)), edges) if len(run) >= REPEATS]
    ranges: list[tuple[int, int, float]] = []
    for run in runs:
        start, stop, mm = int(run[0]), int(run[-1]) + 1, float(np.median(steps[run]))
        if ranges and abs(mm - ranges[-1][2]) <= TOLERANCE * median:  # a gap lies between them
            start, _, mm = ranges.pop()
        ranges.append((start, stop, mm))
    if len(ranges) < 2:
        return np.full(len(steps), median), ranges
    usual = np.empty(len(steps))
    for (start, _, mm), (end, _, _) in zip(
        ranges, [*ranges[1:], (len(steps), 0, 0.0)], strict=True
    ):
        usual[start:end] = mm
    usual[: ranges[0][0]] = ranges[0][2]
    return usual, ranges
