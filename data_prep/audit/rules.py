"""Audit one study: its status and the reasons for it.

    audit_headers(task)    from headers and CSV, without reading pixels
    audit_study(task)      from headers, CSV and pixels; also returns the volume

Status: `ok` (used as it is; reasons may hold remarks), `repaired` (used after a change) and
`excluded` (not used). A repaired or excluded study always has a reason.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.audit.continuity import damaged_slices
from data_prep.dicom import Series, open_series, read_series
from data_prep.errors import StudyError
from data_prep.images import is_image, read_image_volume
from data_prep.rsna import StudyTask
from data_prep.volume import Volume
from pekit.dataset.schema import LABELS, SLICE_LABEL, UIDS, public_uid

MAX_MISSING = 0.25  # a study that lacks a larger share of its slices is excluded
MAX_DARKEST_HU = -900  # 1st percentile: the darkest voxels of a chest CT are air
MIN_BRIGHTEST_HU = 100  # 99.9th percentile: bone and contrast are brighter

RV_LV = ("rv_lv_ratio_gte_1", "rv_lv_ratio_lt_1")
LOCATION = ("leftsided_pe", "rightsided_pe", "central_pe")
CHRONICITY = ("chronic_pe", "acute_and_chronic_pe")
NO_PE = ("negative_exam_for_pe", "indeterminate")


@dataclass(frozen=True)
class Audit:
    """Status of a study (`ok`, `repaired` or `excluded`) and the reasons for it."""

    status: str
    reasons: tuple[str, ...] = ()

    @classmethod
    def of(cls, grave=(), repairs=(), remarks=()) -> "Audit":
        """Excluded if there are grave reasons, repaired if something was changed, else ok."""
        status = "excluded" if grave else "repaired" if repairs else "ok"
        return cls(status, (*grave, *repairs, *remarks))


def audit_headers(task: StudyTask) -> tuple[Audit, Series | None]:
    """Audit a study of a data set by its headers and its rows of the CSV; no pixels are read.

    Returns:
        The audit, and the headers, or None if they form no series. Reasons name files by UID only,
        so that tables with them may be shared.
    """
    if problems := _before_reading(task):
        return Audit.of(problems), None
    try:
        series = open_series(task.folder)
    except StudyError as error:
        return unreadable(error), None
    grave, remarks = _listed(series, task.rows), _remarks(series, task.rows)
    return Audit.of(grave, series.repairs, remarks), series


def audit_study(task: StudyTask) -> tuple[Audit, Volume | None]:
    """Read a study of a data set and audit it by headers, pixels and its rows of the CSV.

    Returns:
        The audit, and the volume, or None if it cannot be read. Reasons as for `audit_headers`.
    """
    if problems := _before_reading(task):
        return Audit.of(problems), None
    try:
        volume = read_series(task.folder)
    except StudyError as error:
        return unreadable(error), None
    grave = [*_listed(volume, task.rows), *pixel_problems(volume.hu)]
    return Audit.of(grave, volume.repairs, _remarks(volume, task.rows)), volume


def audit_alone(path: Path, series: str | None = None) -> tuple[Audit, Volume]:
    """Read and audit one study that belongs to no data set.

    Args:
        path: a folder of DICOM files, or a NIfTI, NRRD or MetaImage file.
        series: SeriesInstanceUID, if the folder holds several.

    Raises:
        StudyError: the study cannot be read.
    """
    path = Path(path)
    volume = read_image_volume(path) if is_image(path) else read_series(path, series)
    grave = [*_gaps(volume), *pixel_problems(volume.hu)]
    return Audit.of(grave, volume.repairs, volume.notes), volume


def unreadable(error: StudyError) -> Audit:
    """The audit of a study that could not be read."""
    is_file = error.where is not None and error.where.is_file()
    name = f" ({public_uid(error.where.stem)})" if is_file else ""
    return Audit.of([f"unreadable: {error.reason}{name}"])


def _before_reading(task: StudyTask) -> list[str]:
    """Reasons that exclude a study before any of its files is opened."""
    problems = list(task.problems)
    if task.rows.empty:
        problems.append("the CSV has no row for the study")
    elif SLICE_LABEL in task.rows:
        problems += label_problems(task.rows)
    return problems


def _listed(read: Series | Volume, rows: pd.DataFrame) -> list[str]:
    """Contradictions between files and rows of the CSV that exclude the study."""
    problems = _gaps(read)
    if read.study_uid != rows[UIDS[0]].iloc[0]:
        problems.append(f"the files belong to another study ({public_uid(read.study_uid)})")
    if len(read.sop_uids) < (1 - MAX_MISSING) * len(rows):
        problems.append(_count(read, rows))
    if unknown := set(read.sop_uids) - set(rows[UIDS[2]]):
        problems.append(f"{len(unknown)} slices have no row in the CSV")
    return problems


def _remarks(read: Series | Volume, rows: pd.DataFrame) -> list[str]:
    present = len(read.sop_uids) / len(rows)
    return [*read.notes, *([_count(read, rows)] if 1 - MAX_MISSING <= present != 1 else [])]


def _count(read: Series | Volume, rows: pd.DataFrame) -> str:
    return f"{len(read.sop_uids)} slices where the CSV lists {len(rows)}"


def _gaps(read: Series | Volume) -> list[str]:
    slices = len(read.sop_uids)
    if slices / (slices + read.missing_slices) < 1 - MAX_MISSING:
        return [f"{read.missing_slices} slices missing between {slices} present ones"]
    return []


def pixel_problems(hu: np.ndarray) -> list[str]:
    """Reasons why the voxels of a volume (Z, Y, X) int16 HU cannot be used; empty if they can."""
    problems = hu_problems(hu)
    if len(damaged := damaged_slices(hu)):
        problems.append(
            f"{len(damaged)} slices look damaged (unlike both neighbours), the first z={damaged[0]}"
        )
    return problems


def hu_problems(hu: np.ndarray) -> list[str]:
    """Reasons why a volume (Z, Y, X) int16 cannot be a chest CT in HU; empty if it can."""
    sample = hu[:, ::3, ::7]  # enough for percentiles
    dark, bright = np.percentile(sample, (1, 99.9))
    problems = []
    if dark > MAX_DARKEST_HU:
        problems.append(f"no air: the darkest voxels have {dark:.0f} HU")
    if bright < MIN_BRIGHTEST_HU:
        problems.append(f"nothing bright: the brightest voxels have {bright:.0f} HU")
    flat = np.flatnonzero(sample.min((1, 2)) == sample.max((1, 2)))
    if len(flat):
        problems.append(f"{len(flat)} slices with a single value, the first z={flat[0]}")
    return problems


def label_problems(labels: pd.DataFrame) -> list[str]:
    """Contradictions in one study's rows of train.csv, by the rules of the RSNA-STR data set.

    Args:
        labels: one row per slice, with the UIDs and all label columns.

    Returns:
        One message per contradiction; empty if the labels agree.
    """
    if absent := [name for name in (*UIDS, *LABELS) if name not in labels]:
        return [f"the CSV lacks the columns {', '.join(absent)}"]
    if labels.empty:
        return ["the CSV has no row for the study"]
    problems = [] if labels[UIDS[2]].is_unique else ["a SOPInstanceUID is listed twice"]
    # In NumPy: pandas takes 10 times as long, for each of 7,279 studies.
    values = np.stack([labels[name].to_numpy() for name in LABELS], axis=1)
    odd = ~((values == 0) | (values == 1)).all(0)
    if odd.any():
        return [*problems, f"neither 0 nor 1: {', '.join(np.array(LABELS)[odd])}"]
    split = (values != values[0]).any(0)
    split[LABELS.index(SLICE_LABEL)] = False
    if split.any():
        return [
            *problems,
            f"differs between slices of one exam: {', '.join(np.array(LABELS)[split])}",
        ]
    exam = dict(zip(LABELS, values[0].tolist(), strict=True))

    def count(names: tuple[str, ...]) -> int:
        return int(sum(exam[name] for name in names))

    if values[:, LABELS.index(SLICE_LABEL)].any():
        if count(RV_LV) != 1:
            problems.append(f"PE on slices, but {count(RV_LV)} RV/LV labels instead of 1")
        if count(LOCATION) == 0:
            problems.append("PE on slices, but no location")
        if count(CHRONICITY) > 1:
            problems.append("both chronic_pe and acute_and_chronic_pe")
        if count(NO_PE):
            problems.append("PE on slices of an exam labelled negative or indeterminate")
    else:
        if count(NO_PE) != 1:
            problems.append("no PE on any slice, but not exactly one of negative, indeterminate")
        if wrong := [name for name in (*RV_LV, *LOCATION, *CHRONICITY) if exam[name]]:
            problems.append(f"no PE on any slice, but {', '.join(wrong)}")
    return problems
