"""The data set doctor: a verdict and its reasons for each study, from headers, pixels and labels.

Nothing is dropped without a row that says why. Verdicts: `ok` (used as it is; reasons may still
say what is remarkable), `repaired` (used after a change) and `excluded` (not used).
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.dicom import StudyError, Volume, read_series
from pekit.store import EXAM_LABELS, LABELS, SLICE_LABEL, UIDS, public_uid

MAX_MISSING = 0.25  # a study that lacks a larger part of its slices is no longer that study
MAX_DARKEST_HU = -900  # the darkest hundredth of a chest CT is air
MIN_BRIGHTEST_HU = 100  # bone and contrast reach above

RV_LV = ("rv_lv_ratio_gte_1", "rv_lv_ratio_lt_1")
LOCATION = ("leftsided_pe", "rightsided_pe", "central_pe")
CHRONICITY = ("chronic_pe", "acute_and_chronic_pe")
NO_PE = ("negative_exam_for_pe", "indeterminate")


@dataclass(frozen=True)
class Verdict:
    """What is to be done with a study (`ok`, `repaired` or `excluded`), and why."""

    verdict: str
    reasons: tuple[str, ...] = ()


def audit_study(
    folder: Path,
    expected_slices: int | None = None,
    labels: pd.DataFrame | None = None,
    series: str | None = None,
) -> tuple[Verdict, Volume | None]:
    """Read a study and judge it.

    Args:
        folder: its DICOM files.
        expected_slices: how many slices the data set's CSV lists; None where unknown.
        labels: the study's rows of train.csv; None where unlabelled.
        series: SeriesInstanceUID, where the folder holds several.

    Returns:
        The verdict, and the volume; None for the volume when it cannot be read. Reasons name
        files by UID only, so they may go into shared tables.
    """
    try:
        volume = read_series(folder, series)
    except StudyError as error:
        is_file = error.where is not None and error.where.is_file()
        name = f" ({public_uid(error.where.stem)})" if is_file else ""
        return Verdict("excluded", (f"unreadable: {error.reason}{name}",)), None
    return judge(volume, expected_slices, labels), volume


def judge(
    volume: Volume, expected_slices: int | None = None, labels: pd.DataFrame | None = None
) -> Verdict:
    """The verdict on a study that could be read; arguments as for `audit_study`."""
    grave, remarks = [], list(volume.notes)
    slices = len(volume.sop_uids)
    present = slices / (slices + volume.missing_slices)
    if present < 1 - MAX_MISSING:
        grave.append(f"{volume.missing_slices} slices missing between {slices} present ones")
    if expected_slices is not None and slices != expected_slices:
        reason = f"{slices} slices where the CSV lists {expected_slices}"
        (grave if slices < (1 - MAX_MISSING) * expected_slices else remarks).append(reason)
    grave += hu_problems(volume.hu)
    if labels is not None:
        grave += label_problems(labels)
        unknown = set(volume.sop_uids) - set(labels["SOPInstanceUID"])
        if unknown:
            grave.append(f"{len(unknown)} slices have no row in the CSV")
    verdict = "excluded" if grave else "repaired" if volume.flipped else "ok"
    return Verdict(verdict, (*grave, *remarks))


def hu_problems(hu: np.ndarray) -> list[str]:
    """Why a volume (Z, Y, X) int16 cannot be a chest CT in HU; empty when it can."""
    sample = hu[:, ::3, ::7]  # enough for percentiles
    dark, bright = np.percentile(sample, (1, 99.9))
    problems = []
    if dark > MAX_DARKEST_HU:
        problems.append(f"no air: the darkest voxels have {dark:.0f} HU")
    if bright < MIN_BRIGHTEST_HU:
        problems.append(f"nothing bright: the brightest voxels have {bright:.0f} HU")
    flat = np.flatnonzero(sample.min((1, 2)) == sample.max((1, 2)))
    if len(flat):
        problems.append(f"{len(flat)} slices of one single value, the first z={flat[0]}")
    return problems


def label_problems(labels: pd.DataFrame) -> list[str]:
    """Contradictions in one study's rows of train.csv, by the rules of the RSNA-STR data set.

    Args:
        labels: a row a slice, with the UIDs and all label columns.

    Returns:
        A sentence for each; empty when the labels agree.
    """
    if absent := [name for name in (*UIDS, *LABELS) if name not in labels]:
        return [f"the CSV lacks the columns {', '.join(absent)}"]
    if labels.empty:
        return ["the CSV has no row for the study"]
    problems = []
    if labels["SOPInstanceUID"].duplicated().any():
        problems.append("a SOPInstanceUID is listed twice")
    if odd := [name for name in LABELS if not labels[name].isin((0, 1)).all()]:
        return [*problems, f"neither 0 nor 1: {', '.join(odd)}"]
    if split := [name for name in EXAM_LABELS if labels[name].nunique() > 1]:
        return [*problems, f"differs between slices of one exam: {', '.join(split)}"]
    exam = labels.iloc[0]

    def count(names: tuple[str, ...]) -> int:
        return int(exam[list(names)].sum())

    if labels[SLICE_LABEL].any():
        if count(RV_LV) != 1:
            problems.append(f"PE on slices, but {count(RV_LV)} RV/LV labels instead of 1")
        if count(LOCATION) == 0:
            problems.append("PE on slices, but no location")
        if count(CHRONICITY) > 1:
            problems.append("chronic_pe and acute_and_chronic_pe at once")
        if count(NO_PE):
            problems.append("PE on slices of an exam called negative or indeterminate")
    else:
        if count(NO_PE) != 1:
            problems.append("no PE on any slice, but not exactly one of negative, indeterminate")
        if wrong := [name for name in (*RV_LV, *LOCATION, *CHRONICITY) if exam[name]]:
            problems.append(f"no PE on any slice, but {', '.join(wrong)}")
    return problems
