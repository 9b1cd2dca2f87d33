"""The paper's 20 landmarks (section IV, "Keypoint pretraining"): from masks, or from a CSV.

`rules.landmark_rules` lists the rule for each. The embedded threshold masks alone give seven: both
lung tops, the heart, the top of the liver, the carina and both main bronchi. Positions are
(z, y, x): in voxels of the uncropped volume, or in LPS mm if a name ends in `_mm`. A landmark that
is not in the volume, or is cut by its edge, is None.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.anatomy.masks import Masks
from data_prep.landmarks.organ import Point
from data_prep.landmarks.rules import find_landmark
from data_prep.landmarks.scan import Scan
from data_prep.volume import Volume
from pekit.common.errors import UserError, nearest
from pekit.dataset.schema import LANDMARKS

CSV_COLUMNS = ("StudyInstanceUID", "name", "z_mm", "y_mm", "x_mm")
PLAIN_UID = r"(?!\.{1,2}$)[^/\\\s][^/\\]*"  # used as a folder and file name: not a path


def from_masks(
    masks: Masks, volume_hu: np.ndarray, spacing_mm: tuple[float, float, float]
) -> dict[str, Point | None]:
    """The landmarks that a study's masks give: name -> voxel (z, y, x), or None.

    A landmark is found by the first of its rules (`landmark_rules`) whose masks the study has. It
    is None if there is no such rule, or if the masks are empty, implausibly small, or cut by the
    volume's edge at the landmark.

    Args:
        masks: lung, heart and organs of the whole study, (Z, Y, X) bool; each organ is loaded
            once.
        volume_hu: the whole study, (Z, Y, X) int16 HU; the airway is traced in it.
        spacing_mm: voxel size (z, y, x).

    Raises:
        UserError: a mask has another shape than the volume.
    """
    scan = Scan(masks, volume_hu, spacing_mm)
    return {name: find_landmark(name, scan) for name in LANDMARKS}


def check_names(names: list[str]) -> None:
    """Refuse names that are not in LANDMARKS.

    Raises:
        UserError: a name is unknown; the message suggests the nearest one.
    """
    for name in names:
        if name not in LANDMARKS:
            raise UserError(f"unknown landmark {name!r}: {nearest(name, LANDMARKS)}")


def read_landmarks_csv(path: Path) -> pd.DataFrame:
    """Read landmarks from a CSV: one row per study and landmark, CSV_COLUMNS, in LPS mm.

    Missing landmarks have no row.

    Raises:
        UserError: the file is missing or not a CSV table, lacks a column, or has an invalid study
            UID, an unknown name, a position that is not a number, or a landmark twice.
    """
    try:
        table = pd.read_csv(path, dtype={"StudyInstanceUID": str, "name": str})
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror})") from None
    except ValueError as error:  # pandas' parser errors and bad encodings are ValueErrors
        raise UserError(f"{path} is not a CSV table ({error})") from None
    if missing := [name for name in CSV_COLUMNS if name not in table]:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}")
    table = table[list(CSV_COLUMNS)]
    odd = ~table["StudyInstanceUID"].str.fullmatch(PLAIN_UID, na=False).astype(bool)
    if odd.any():
        raise UserError(f"{path}: row {odd.argmax() + 2} has no valid StudyInstanceUID")
    try:
        check_names(table["name"].unique().tolist())
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    axes = list(CSV_COLUMNS[2:])
    numbers = table[axes].apply(pd.to_numeric, errors="coerce")
    bad = ~np.isfinite(numbers).all(axis=1)
    if bad.any():
        raise UserError(f"{path}: row {bad.argmax() + 2} has no position in mm: remove the row")
    twice = table.duplicated(["StudyInstanceUID", "name"])
    if twice.any():
        row = table[twice].iloc[0]
        raise UserError(f"{path}: study {row.StudyInstanceUID} has {row['name']!r} twice")
    return table.assign(**{axis: numbers[axis].astype(float) for axis in axes})


def to_voxels(landmarks_mm: Mapping[str, Point | None], volume: Volume) -> dict[str, Point | None]:
    """Convert positions in LPS mm (z, y, x) to voxels (z, y, x); None if not in the volume."""
    return {
        name: None if point is None else volume.voxel(point) for name, point in landmarks_mm.items()
    }


def landmark_table(study_uid: str, found: Mapping[str, Point | None]) -> pd.DataFrame:
    """All 20 landmarks of a study: StudyInstanceUID, name, z, y, x (voxels), present.

    A landmark that is not in `found`, or is None there, has `present` False and no position.

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
