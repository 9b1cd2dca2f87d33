"""Find several acquisitions that share one series, such as without and with contrast.

Their slices interleave, or lie at the same positions, and would make one false volume. They differ
in a tag by which each of them, alone, is an even stack, and these stacks overlap. (A scan in steps
has several acquisitions too, but they lie above each other.)
"""

from collections.abc import Iterator

import numpy as np
from pydicom import Dataset
from pydicom.tag import BaseTag, Tag

from data_prep.positions import TOLERANCE

VALUES = (
    "AcquisitionNumber", "TemporalPositionIdentifier", "ContrastBolusAgent", "KVP", "Exposure",
    "ExposureTime", "XRayTubeCurrent",
)  # fmt: skip
TIMES = ("AcquisitionTime", "ContentTime", "TriggerTime")
# These number acquisitions; by the other tags, single slices may be alike by chance.
NUMBERS = VALUES[:2]
# The tube's current follows patient and rotation, so its values may alternate in one scan.
MODULATED = VALUES[4:]
TAGS = {name: Tag(name) for name in (*VALUES, *TIMES, "InstanceNumber")}
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
    in_order = _numbered_in_order(datasets, z_mm)
    for name, labels in _labels(datasets, z_mm):
        if name in MODULATED and in_order:
            continue
        groups = [np.flatnonzero(labels == value) for value in np.unique(labels)]
        if _are_several(groups, z_mm, gaps=name in NUMBERS):
            return groups, name
    return [np.arange(len(z_mm))], ""


def _numbered_in_order(datasets: list[Dataset], z_mm: np.ndarray) -> bool:
    """Whether InstanceNumber counts the slices from one end to the other, as in one scan."""
    numbers = [_text(dataset, TAGS["InstanceNumber"]) for dataset in datasets]
    if not all(number and number.isdecimal() for number in numbers):
        return False
    steps = np.diff(np.array(numbers, int)[np.argsort(z_mm, kind="stable")])
    return bool((steps > 0).all() or (steps < 0).all())


def _labels(datasets: list[Dataset], z_mm: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """For each tag that all slices have: a number (N,) per slice, in the order of its values."""
    for name in (*VALUES, *TIMES):
        values = [_text(dataset, TAGS[name]) for dataset in datasets]
        if None in values or len(set(values)) == 1:
            continue
        try:
            numbers = np.array([_seconds(v) if name in TIMES else float(v) for v in values])
        except ValueError:
            numbers = np.unique(values, return_inverse=True)[1]
        yield name, _bursts(numbers, z_mm) if name in TIMES else numbers


def _text(dataset: Dataset, tag: BaseTag) -> str | None:
    """The value of a tag of text, not decoded by pydicom, which takes 10 times as long."""
    if tag not in dataset:
        return None
    value = dataset.get_item(tag).value
    text = (
        value.decode("latin-1") if isinstance(value, bytes) else "" if value is None else str(value)
    )
    return text.strip("\0 ")


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
