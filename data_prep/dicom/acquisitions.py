"""Find several acquisitions that share one series, such as without and with contrast.

Their slices interleave, or lie at the same positions, and would make one false volume. They differ
in a tag by which each of them, alone, is an even stack, and these stacks overlap. (A scan in steps
has several acquisitions too, but they lie above each other.)
"""

from collections.abc import Iterator

import numpy as np
from pydicom import Dataset

from data_prep.positions import TOLERANCE

VALUES = (
    "AcquisitionNumber", "TemporalPositionIdentifier", "ContrastBolusAgent", "KVP", "Exposure",
    "ExposureTime", "XRayTubeCurrent",
)  # fmt: skip
TIMES = ("AcquisitionTime", "ContentTime", "TriggerTime")
# These number acquisitions; by the other tags, single slices may be alike by chance.
NUMBERS = VALUES[:2]
SMALLEST = 3  # slices; fewer are no acquisition
PAUSE = 5  # times the usual time between two slices


def acquisitions(datasets: list[Dataset], z_mm: np.ndarray) -> tuple[list[np.ndarray], str]:
    """The slices of each acquisition, as indices, and the tag that tells them apart.

    Args:
        datasets: headers of the slices of one series.
        z_mm: (N,) their positions.

    Returns:
        One array with all slices, and "", if there is one acquisition.
    """
    for name, labels in _labels(datasets, z_mm):
        groups = [np.flatnonzero(labels == value) for value in np.unique(labels)]
        if _are_several(groups, z_mm, gaps=name in NUMBERS):
            return groups, name
    return [np.arange(len(z_mm))], ""


def _labels(datasets: list[Dataset], z_mm: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """For each tag that all slices have: a number (N,) per slice, in the order of its values."""
    for name in (*VALUES, *TIMES):
        values = [str(value) for d in datasets if (value := d.get(name)) is not None]
        if len(values) < len(datasets):
            continue
        try:
            numbers = np.array([_seconds(v) if name in TIMES else float(v) for v in values])
        except ValueError:
            numbers = np.unique(values, return_inverse=True)[1]
        yield name, _bursts(numbers, z_mm) if name in TIMES else numbers


def _seconds(value: str) -> float:
    """Seconds of a time HHMMSS.FFFFFF; the trigger time is a number of ms, and stays one."""
    if len(value) >= 6 and value[:6].isdecimal():
        return int(value[:2]) * 3600 + int(value[2:4]) * 60 + float(value[4:])
    return float(value)


def _bursts(times: np.ndarray, z_mm: np.ndarray) -> np.ndarray:
    """Number of the burst of each slice: bursts are parted by a pause or by a long way back."""
    order = np.lexsort((z_mm, times))
    pauses, ways = np.diff(times[order]), np.abs(np.diff(z_mm[order]))
    parted = (pauses > PAUSE * np.median(pauses)) | (ways > np.ptp(z_mm) / 2)
    labels = np.empty(len(times), int)
    labels[order] = np.r_[0, np.cumsum(parted)]
    return labels


def _are_several(groups: list[np.ndarray], z_mm: np.ndarray, gaps: bool) -> bool:
    """Whether there are two or more groups, each an even stack, and two of them overlap.

    Args:
        gaps: whether slices may be missing in a stack.
    """
    if len(groups) < 2 or min(map(len, groups)) < SMALLEST:
        return False
    stacks = sorted((np.sort(z_mm[group]) for group in groups), key=lambda z: z[0])
    for z in stacks:
        steps = np.diff(z)
        times = steps / max(np.median(steps), 1e-3)
        even = np.maximum(np.rint(times), 1) if gaps else 1
        if np.abs(times - even).max() > TOLERANCE:
            return False
    return any(
        min(one[-1], other[-1]) - other[0] > min(np.ptp(one), np.ptp(other)) / 2
        for k, one in enumerate(stacks)
        for other in stacks[k + 1 :]
    )
