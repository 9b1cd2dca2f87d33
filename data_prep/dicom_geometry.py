"""Where the slices of a series lie: size, axes and spacing shared by all, positions and gaps.

What does not form one stack of parallel axial slices is refused with a StudyError.
"""

from pathlib import Path

import numpy as np
from pydicom import Dataset

from data_prep.errors import StudyError

AXIS_TOLERANCE = 0.01  # off-axis part of a direction cosine: 0.6 degrees
MAX_SPACING_MM = 20  # of pixels; no CT is as coarse
MAX_GAP_MM = 1000  # of slices; no chest is as long


def read_geometry(files: tuple, datasets: tuple) -> tuple[int, int, tuple[int, int], np.ndarray]:
    """Rows, columns, flips (y, x) as steps 1 or -1, and slice positions (N, 3) in (x, y, z) mm.

    Raises:
        StudyError: several studies, slices of unlike or absurd geometry, or planes that are not
            axial.
    """
    expected, studies = None, {str(dataset.StudyInstanceUID) for dataset in datasets}
    if len(studies) > 1:
        raise StudyError(f"{len(studies)} studies share one series UID", files[0].parent)
    position = np.empty((len(files), 3))
    for i, (file, dataset) in enumerate(zip(files, datasets, strict=True)):
        size = [read_numbers(file, dataset, name, 1)[0] for name in ("Rows", "Columns")]
        cosines = read_numbers(file, dataset, "ImageOrientationPatient", 6)
        spacing = read_numbers(file, dataset, "PixelSpacing", 2)
        position[i] = read_numbers(file, dataset, "ImagePositionPatient", 3)
        geometry = np.concatenate([size, cosines, spacing])
        if expected is None:
            expected = geometry
        if not np.allclose(geometry, expected, atol=1e-3):
            raise StudyError("size, orientation or spacing unlike the first file's", file)
    if min(expected[:2]) < 1 or min(expected[8:]) <= 0:
        raise StudyError("rows, columns and pixel spacing must be positive", files[0])
    if max(expected[8:]) > MAX_SPACING_MM:
        raise StudyError(f"pixels {max(expected[8:]):g} mm apart are no CT", files[0])
    cosines = expected[2:8]
    signs = np.rint(cosines)
    axial = (np.abs(signs) == [1, 0, 0, 0, 1, 0]).all()
    if not axial or np.abs(cosines - signs).max() > AXIS_TOLERANCE:
        raise StudyError(
            f"slices are not axial (ImageOrientationPatient {np.round(cosines, 3).tolist()})",
            files[0],
            "tilted gantry and other planes are not read: resample the series to axial slices",
        )
    if np.ptp(position[:, :2], axis=0).max() > max(expected[8:]):
        raise StudyError("slices are shifted sideways against each other", files[0].parent)
    return int(expected[0]), int(expected[1]), (int(signs[4]), int(signs[0])), position


def slice_steps(files: list, datasets: list, z_mm: np.ndarray) -> tuple[float, int, list[str]]:
    """Slice distance in mm, the number of missing slices, and notes on gaps.

    Args:
        files: in the order of their slices, for messages; `datasets` likewise.
        z_mm: ascending slice positions (N,).

    Raises:
        StudyError: a single slice, or two with one SOPInstanceUID, at one position or absurdly far
            apart.
    """
    seen = set()
    for file, dataset in zip(files, datasets, strict=True):
        uid = str(dataset.SOPInstanceUID)
        if uid in seen:
            raise StudyError("another file has the same SOPInstanceUID", file, "remove one")
        seen.add(uid)
    if len(files) < 2:
        raise StudyError("a single slice is no volume", files[0])
    steps = np.diff(z_mm)
    if steps.max() > MAX_GAP_MM:
        raise StudyError(f"{steps.max():g} mm between two slices", files[int(steps.argmax()) + 1])
    step = float(np.median(steps))
    twin = int(np.argmin(steps))
    if steps[twin] < 0.01 * max(step, 0.1):
        raise StudyError(
            f"two slices at one position ({z_mm[twin]:g} mm)", files[twin + 1], "remove one of them"
        )
    jumps = np.rint(steps / step).astype(int)
    notes = [f"gap of {jumps[z] - 1} slices after z={z}" for z in np.flatnonzero(jumps > 1)]
    if np.abs(steps / step - np.maximum(jumps, 1)).max() > 0.1:
        notes.append(f"uneven slice distance, {steps.min():.2f} to {steps.max():.2f} mm")
    jumps = np.maximum(jumps, 1)
    # Over the whole stack: positions are written rounded.
    return float((z_mm[-1] - z_mm[0]) / jumps.sum()), int((jumps - 1).sum()), notes


def read_numbers(file: Path, dataset: Dataset, name: str, count: int) -> np.ndarray:
    """The finite numbers (count,) that a tag holds.

    Raises:
        StudyError: it holds others, or another number of them.
    """
    try:
        values = np.array(dataset[name].value, float).reshape(count)
    except (ValueError, TypeError, OverflowError):
        values = np.full(count, np.nan)
    if not np.isfinite(values).all():
        raise StudyError(f"the tag {name} does not hold {count} numbers", file)
    return values
