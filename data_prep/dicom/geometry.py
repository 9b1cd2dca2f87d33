"""Geometry of a series: size, axes and spacing of all slices, their positions and gaps.

Slices that do not form one stack of parallel axial slices are refused with a StudyError.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset

from data_prep.errors import StudyError, dcmodify, refuse
from data_prep.positions import Spacing, slice_spacing
from data_prep.volume import Orientation

AXIS_TOLERANCE = 0.01  # off-axis part of a direction cosine: 0.6 degrees
MAX_TILT_DEG = 45  # a gantry tilts by less; coronal and sagittal planes by more
MAX_SPACING_MM = 20  # between pixels; no CT is as coarse
MAX_GAP_MM = 1000  # between slices; no chest is as long
MAX_SIDE = 4096  # pixels; no CT matrix is larger, and a damaged header must not fill the memory
# Tags that all slices share, with how many numbers each holds: ten in all.
SHARED = {"Rows": 1, "Columns": 1, "ImageOrientationPatient": 6, "PixelSpacing": 2}


@dataclass(frozen=True)
class Geometry:
    """Geometry that all slices of a series share, and the position of each.

    Attributes:
        rows, columns: as stored.
        orientation: of the stored slices relative to LPS.
        spacing_mm: (y, x) of the slices in LPS.
        position_mm: (N, 3) LPS (z, y, x) of the voxel at the lowest y and x of each slice.
    """

    rows: int
    columns: int
    orientation: Orientation
    spacing_mm: tuple[float, float]
    position_mm: np.ndarray


def read_geometry(slices: list[tuple[Path, Dataset]]) -> Geometry:
    """Geometry of slices in any order.

    Raises:
        StudyError: several studies, slices with different or impossible geometry, or planes that
            are not axial.
    """
    if len(studies := {str(dataset.StudyInstanceUID) for _, dataset in slices}) > 1:
        raise StudyError(
            f"{len(studies)} studies share one series UID",
            slices[0][0].parent,
            f"give them one UID: {dcmodify('-m StudyInstanceUID=1.2.3', slices[0][0].parent)}",
        )
    shared, position = _read_all(slices, SHARED), read_positions(slices)
    first = shared[0]
    unlike = ~np.isclose(shared, first, atol=1e-3)
    refuse(
        StudyError(
            f"{shared[i, 0]:g} x {shared[i, 1]:g} pixels, unlike the first file's "
            f"{first[0]:g} x {first[1]:g}"
            if unlike[i, :2].any()
            else "orientation or pixel spacing unlike the first file's",
            slices[i][0],
        )
        for i in np.flatnonzero(unlike.any(1))
    )
    if not 1 <= first[:2].min() <= first[:2].max() <= MAX_SIDE or first[8:].min() <= 0:
        raise StudyError(
            f"rows and columns must be from 1 to {MAX_SIDE}, pixel spacing must be positive",
            slices[0][0],
        )
    if first[8:].max() > MAX_SPACING_MM:
        raise StudyError(
            f"a pixel spacing of {first[8:].max():g} mm is too large for a CT", slices[0][0]
        )
    rows, columns = first[:2].astype(int)
    orientation = _orientation(first[2:8], slices[0][0])
    down, across = first[8:]  # between rows, between columns
    spacing = np.array([across, down] if orientation.transposed else [down, across])
    zyx = position[:, ::-1]
    if np.ptp(zyx[:, 1:], axis=0).max() > spacing.max():
        raise StudyError(
            "slices are shifted sideways (tilted gantry, or parts of two scans)",
            slices[0][0].parent,
        )
    size = np.array([columns, rows] if orientation.transposed else [rows, columns])
    back = np.array([orientation.flip_y, orientation.flip_x]) * (size - 1) * spacing
    return Geometry(
        int(rows),
        int(columns),
        orientation,
        tuple(spacing.tolist()),
        zyx - np.array([0.0, *back]),
    )


def read_positions(slices: list[tuple[Path, Dataset]]) -> np.ndarray:
    """ImagePositionPatient of each slice, (N, 3) LPS (x, y, z).

    Raises:
        StudyError: a value is not a finite number, or there are not three of them.
    """
    return _read_all(slices, {"ImagePositionPatient": 3})


def _read_all(slices: list[tuple[Path, Dataset]], names: dict[str, int]) -> np.ndarray:
    """The numbers of some tags (N, numbers) in all slices; the error names all that lack one."""
    found, faults = np.full((len(slices), sum(names.values())), np.nan), []
    for i, (file, dataset) in enumerate(slices):
        try:
            numbers = [read_numbers(file, dataset, name, count) for name, count in names.items()]
            found[i] = np.concatenate(numbers)
        except StudyError as error:
            faults.append(error)
    refuse(faults)
    return found


def _orientation(cosines: np.ndarray, file: Path) -> Orientation:
    """Orientation of axial slices from their direction cosines (6,)."""
    along_row, along_column = cosines[:3], cosines[3:]
    normal = np.cross(along_row, along_column)
    length = np.linalg.norm(normal)
    if not 0.9 < length < 1.1:
        raise StudyError("ImageOrientationPatient is not two perpendicular unit vectors", file)
    signs = np.rint(cosines)
    if np.abs(cosines - signs).max() <= AXIS_TOLERANCE and abs(np.rint(normal)[2]) == 1:
        transposed = bool(signs[1] != 0)
        y, x = (signs[1], signs[3]) if transposed else (signs[4], signs[0])
        return Orientation(transposed, bool(y < 0), bool(x < 0))
    tilt = np.degrees(np.arccos(min(1.0, abs(normal[2]) / length)))
    turned = np.abs(normal[:2]).max() / length <= AXIS_TOLERANCE
    plane = (
        "are turned in their plane"
        if turned
        else f"are tilted by {tilt:.0f} degrees (gantry)"
        if tilt < MAX_TILT_DEG
        else "are not axial"
    )
    raise StudyError(
        f"slices {plane} (ImageOrientationPatient {np.round(cosines, 3).tolist()})",
        file,
        "resample the series to axial slices",
    )


def read_spacing(slices: list[tuple[Path, Dataset]], z_mm: np.ndarray) -> Spacing:
    """Distances between slices.

    Args:
        slices: in z order, for messages.
        z_mm: ascending slice positions (N,).

    Raises:
        StudyError: a single slice, two slices at one position, or two more than MAX_GAP_MM apart.
    """
    if len(slices) < 2:
        raise StudyError("a single slice is not a volume", slices[0][0])
    steps = np.diff(z_mm)
    if steps.max() > MAX_GAP_MM:
        raise StudyError(
            f"{steps.max():g} mm between two slices", slices[int(steps.argmax()) + 1][0]
        )
    twins = np.flatnonzero(steps < 0.01 * max(float(np.median(steps)), 0.1))
    refuse(
        StudyError(
            f"two slices at one position ({z_mm[twin]:g} mm)",
            slices[twin + 1][0],
            "remove one of them",
        )
        for twin in twins
    )
    return slice_spacing(z_mm)


def read_numbers(file: Path, dataset: Dataset, name: str, count: int) -> np.ndarray:
    """The finite numbers (count,) of a tag.

    Raises:
        StudyError: a value is not a finite number, or there are not `count` of them.
    """
    value = dataset[name].value
    try:
        values = np.array(value, float).reshape(count)
    except (ValueError, TypeError, OverflowError):
        values = np.full(count, np.nan)
    if not np.isfinite(values).all():
        comma = re.search(r"\d,\d", str(value))
        raise StudyError(
            f"the tag {name} does not hold {count} numbers"
            + " (it has a comma for the decimal point)" * bool(comma),
            file,
            _with_points(file, name, value) if comma else "",
        )
    return values


def _with_points(file: Path, name: str, value: object) -> str:
    """The way out if the numbers of a tag are written with decimal commas."""
    parts = [value] if isinstance(value, str) else value
    right = "\\".join(str(part).replace(",", ".").strip() for part in parts)
    where = file.parent if name in SHARED else file
    return f"write it with a point: {dcmodify(shlex.join(['-m', f'{name}={right}']), where)}"
