"""The paper's 20 landmarks (section IV, "Keypoint pretraining"): found in masks, or read from CSV.

The embedded threshold masks give five of them: both lung tops, the heart, the top of the liver and
the carina. Positions are (z, y, x): in voxels of the uncropped volume, or in LPS mm where a name
ends in `_mm`. A landmark that is not in the volume, or is cut by its edge, is None.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.airway import AIRWAY_HU, trace_airway
from data_prep.masks import Masks
from data_prep.threshold import air_inside_body, diaphragm_dome, midline, reduce_volume
from pekit.errors import UserError
from pekit.store import LANDMARKS

CSV_COLUMNS = ("StudyInstanceUID", "name", "z_mm", "y_mm", "x_mm")

Point = tuple[float, float, float]


def from_masks(
    masks: Masks, volume_hu: np.ndarray, spacing_mm: tuple[float, float, float]
) -> dict[str, Point | None]:
    """The landmarks that lung and heart masks give: name -> voxel (z, y, x), or None.

    Args:
        masks: lung and heart of the whole study, (Z, Y, X) bool.
        volume_hu: the whole study, (Z, Y, X) int16 HU; the carina is traced in it.
        spacing_mm: voxel size (z, y, x).
    """
    middle = midline(volume_hu)
    dome = diaphragm_dome(masks.lung, middle, spacing_mm)
    return {
        "Heart": _heart(masks.heart),
        "Carina Bifurcation": _carina(volume_hu, spacing_mm),
        "Liver Top": tuple(map(float, dome)) if dome and dome[0] > 0 else None,
        "Right Lung Top": _top(masks.lung[:, :, :middle], 0),
        "Left Lung Top": _top(masks.lung[:, :, middle:], middle),
    }


def _heart(heart: np.ndarray) -> Point | None:
    """Centre of mass; None when the volume's first or last slice cuts it."""
    if heart[0].any() or heart[-1].any() or not heart.any():
        return None
    return tuple(map(float, np.argwhere(heart).mean(0)))


def _top(lung: np.ndarray, x_offset: int) -> Point | None:
    """Middle of the highest section; None when that is the volume's last slice."""
    z = np.flatnonzero(lung.any((1, 2)))
    if not len(z) or z[-1] == len(lung) - 1:
        return None
    y, x = np.argwhere(lung[z[-1]]).mean(0)
    return float(z[-1]), float(y), float(x) + x_offset


def _carina(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> Point | None:
    """Where the traced airway widens to part, brought back from the reduced volume."""
    coarse, spacing = reduce_volume(hu, spacing_mm)
    _, carina = trace_airway(air_inside_body(coarse) & (coarse < AIRWAY_HU), spacing)
    if carina is None:
        return None
    factors = np.array(spacing) / spacing_mm
    z, y, x = (np.array(carina) + 0.5) * factors - 0.5
    return float(min(z, len(hu) - 1)), float(y), float(x)


def check_names(names: list[str]) -> None:
    """Refuse names that are not in LANDMARKS.

    Raises:
        UserError: names the unknown one and the nearest known one.
    """
    for name in names:
        if name not in LANDMARKS:
            near = get_close_matches(str(name), LANDMARKS, 1, cutoff=0.4)
            hint = f", did you mean {near[0]!r}?" if near else ""
            raise UserError(f"unknown landmark {name!r}{hint} (known: {', '.join(LANDMARKS)})")


def read_landmarks_csv(path: Path) -> pd.DataFrame:
    """Landmarks from elsewhere: a row a study and landmark, CSV_COLUMNS, in LPS mm.

    Landmarks that are not there have no row.

    Raises:
        UserError: the file is missing or no CSV, lacks a column, or holds an unknown name, a
            position that is no number, or a landmark twice.
    """
    try:
        table = pd.read_csv(path, dtype={"StudyInstanceUID": str, "name": str})
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except ValueError as error:  # pandas' parser errors and bad encodings are ValueErrors
        raise UserError(f"{path} is not a CSV table ({error})") from None
    if missing := [name for name in CSV_COLUMNS if name not in table]:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}")
    table = table[list(CSV_COLUMNS)]
    try:
        check_names(table["name"].unique().tolist())
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    axes = list(CSV_COLUMNS[2:])
    numbers = table[axes].apply(pd.to_numeric, errors="coerce")
    bad = ~np.isfinite(numbers).all(axis=1)
    if bad.any():
        raise UserError(f"{path}: row {bad.argmax() + 2} has no position in mm: leave the row out")
    twice = table.duplicated(["StudyInstanceUID", "name"])
    if twice.any():
        row = table[twice].iloc[0]
        raise UserError(f"{path}: study {row.StudyInstanceUID} has {row['name']!r} twice")
    return table.assign(**{axis: numbers[axis].astype(float) for axis in axes})


def to_voxels(
    landmarks_mm: Mapping[str, Point | None],
    origin_mm: tuple[float, float, float],
    spacing_mm: tuple[float, float, float],
) -> dict[str, Point | None]:
    """Positions in LPS mm (z, y, x) as voxels (z, y, x) of the volume with that origin."""
    return {
        name: None
        if point is None
        else tuple(((np.array(point) - origin_mm) / spacing_mm).astype(float).tolist())
        for name, point in landmarks_mm.items()
    }


def landmark_table(study_uid: str, found: Mapping[str, Point | None]) -> pd.DataFrame:
    """All 20 landmarks of a study: StudyInstanceUID, name, z, y, x (voxels), present.

    What is not in `found`, or is None there, has `present` False and no position.

    Raises:
        UserError: `found` holds an unknown name.
    """
    check_names(list(found))
    points = [found.get(name) for name in LANDMARKS]
    z, y, x = np.array([(np.nan,) * 3 if point is None else point for point in points], float).T
    return pd.DataFrame(
        {
            "StudyInstanceUID": study_uid,
            "name": LANDMARKS,
            "z": z,
            "y": y,
            "x": x,
            "present": [point is not None for point in points],
        }
    )
