"""Prepare one study from DICOM to its crop: audit, masks, hull, crop, landmarks.

prepare_volume(volume, settings)       a volume in memory
prepare_study(task, root, settings)    a study of a data set, into the store at root
"""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field, field_validator

from data_prep.anatomy import check_method, contrast_hu, segment
from data_prep.anatomy.hull import apply_crop, hull_and_box, volume_ratio
from data_prep.anatomy.masks import Masks
from data_prep.audit.rules import audit_study
from data_prep.errors import SegmentationError
from data_prep.landmarks import from_masks, landmark_table, to_voxels
from data_prep.rsna import SERIES, SOP, STUDY, StudyTask
from data_prep.volume import Volume
from pekit.common.errors import UserError
from pekit.common.settings import Settings
from pekit.dataset.schema import BOX_COLUMNS, EXAM_LABELS, SLICE_LABEL, UIDS, public_uid
from pekit.dataset.store import Store


class PrepareSettings(Settings):
    """Settings of the preparation.

    Attributes:
        segmenter: a method of `data_prep.anatomy`.
        segmenter_options: options of the method, e.g. `weights`.
        masks_folder: the masks, one folder per study, for the method `precomputed`.
        crop: `masked`, `box` or `none` (the axis of Table I).
        on_failure: `exclude` a study without masks, as in the paper, or keep it uncropped (`full`).
        landmarks: `masks` (found in the masks) or the path of a CSV in mm.
    """

    segmenter: str = "threshold"
    segmenter_options: dict[str, str | bool] = Field(default_factory=dict)
    masks_folder: str | None = None
    crop: Literal["masked", "box", "none"] = "masked"
    on_failure: Literal["exclude", "full"] = "exclude"
    landmarks: str = "masks"

    @field_validator("segmenter")
    @classmethod
    def _known(cls, segmenter: str) -> str:
        check_method(segmenter)
        return segmenter


@dataclass(frozen=True)
class Prepared:
    """A prepared volume: its crop, with hull, box and landmarks.

    Attributes:
        hu: cropped volume `(Z, Y, X)` int16 HU.
        hull: `(Z, Y, X)` bool, of the whole volume; all True without masks.
        box_zyx: `(3, 2)` start and stop voxels of the crop in the whole volume.
        heart_hu: median HU of the heart, NaN without masks.
        landmarks: name -> voxel (z, y, x) in the whole volume, or None.
        problem: why there are no masks, or "".
        remarks: what a reader of the result should know of the image.
    """

    hu: np.ndarray
    hull: np.ndarray
    box_zyx: np.ndarray
    heart_hu: float
    landmarks: dict[str, tuple[float, float, float] | None]
    problem: str = ""
    remarks: tuple[str, ...] = ()


def segment_volume(volume: Volume, settings: PrepareSettings, study: str = "") -> Masks:
    """Masks of one volume by the method in `settings`.

    Raises:
        SegmentationError: lungs or heart not found, or implausible.
    """
    options = dict(settings.segmenter_options)
    if settings.masks_folder:
        options |= {"folder": Path(settings.masks_folder) / study, "origin_mm": volume.origin_mm}
    return segment(volume.hu, volume.spacing_mm, settings.segmenter, **options)


def prepare_volume(volume: Volume, settings: PrepareSettings, study: str = "") -> Prepared:
    """Masks, hull, crop and landmarks (from masks) of one volume.

    Raises:
        SegmentationError: no masks, and `on_failure` is `exclude`.
    """
    whole = np.array([(0, n) for n in volume.hu.shape])
    try:
        masks = segment_volume(volume, settings, study)
    except SegmentationError as error:
        if settings.on_failure == "exclude":
            raise
        everything = np.ones(volume.hu.shape, dtype=bool)
        return Prepared(volume.hu, everything, whole, float("nan"), {}, str(error))
    hull, box = hull_and_box(masks)
    if settings.crop == "none":
        box = whole
    return Prepared(
        apply_crop(volume.hu, hull, box, settings.crop),
        hull,
        box,
        contrast_hu(volume.hu, masks.heart),
        from_masks(masks, volume.hu, volume.spacing_mm) if settings.landmarks == "masks" else {},
        remarks=masks.remarks,
    )


def settings_of_one_study(
    settings: PrepareSettings, masks: str = "", segmenter: str = ""
) -> PrepareSettings:
    """Settings to prepare a study that is in no data set as the studies of one were.

    Args:
        settings: of the data set.
        masks: folder of this study's own masks, as `segment_precomputed` reads it.
        segmenter: a method in place of the data set's, with its default options.

    Raises:
        UserError: the data set had precomputed masks and none are given here, or `masks` for a
            method that does not read them.
    """
    if masks and segmenter not in ("", "precomputed"):
        raise UserError(f"MASKS and SEGMENTER={segmenter} exclude each other: give one of them")
    method = "precomputed" if masks else segmenter or settings.segmenter
    check_method(method)
    if method == "precomputed" and not masks:
        raise UserError(
            "the studies of this experiment were cropped by precomputed masks, and this study has "
            "none: set MASKS=<folder with its lung.nii.gz and heart.nii.gz, or TotalSegmentator's "
            "output>, or SEGMENTER=threshold, whose crop may differ from that of training"
        )
    same = method == settings.segmenter
    return settings.model_copy(
        update={
            "segmenter": method,
            "segmenter_options": settings.segmenter_options if same else {},
            "masks_folder": masks or None,
            "landmarks": "masks",
        }
    )


def prepare_study(task: StudyTask, root: Path, settings: PrepareSettings) -> dict:
    """Prepare one study into the store at `root`.

    Returns:
        The study's record: `study`, `slices` and `landmarks` are its rows of the store's tables;
        `read` is whether its files could be read.
    """
    audit, volume = audit_study(task)
    row = {STUDY: task.study, "source": task.source}
    if SLICE_LABEL in task.rows and len(task.rows):
        row |= task.rows[list(EXAM_LABELS)].iloc[0].to_dict()
    record = {"read": volume is not None, "slices": [], "landmarks": []}
    if volume is not None:
        row |= {SERIES: public_uid(volume.series_uid), "n_slices": len(volume.hu)}
        row |= dict(zip(("spacing_z", "spacing_y", "spacing_x"), volume.spacing_mm, strict=True))
        record["slices"] = _slice_rows(task, volume)
    if volume is not None and audit.status != "excluded":
        try:
            made = prepare_volume(volume, settings, task.study)
        except SegmentationError as error:
            audit = replace(audit, status="excluded", reasons=(str(error), *audit.reasons))
        else:
            if made.problem:
                audit = replace(audit, reasons=(f"uncropped: {made.problem}", *audit.reasons))
            audit = replace(audit, reasons=(*audit.reasons, *made.remarks))
            row |= _write_volume(task, root, made)
            row |= dict(zip(BOX_COLUMNS, made.box_zyx.ravel().tolist(), strict=True))
            row["volume_ratio"] = volume_ratio(made.box_zyx, volume.hu.shape)
            row["heart_hu"] = made.heart_hu
            record["landmarks"] = _landmark_rows(task, volume, made)
    row |= {"status": audit.status, "reasons": "; ".join(audit.reasons)}
    # Plain numbers, since numpy's cannot be written as JSON.
    record["study"] = json.loads(pd.Series(row).to_json())
    return record


def _write_volume(task: StudyTask, root: Path, made: Prepared) -> dict:
    """Write the crop; returns its size and SHA-256, which `verify` compares."""
    store = Store(root)
    store.write_volume(task.study, made.hu)
    with store.volume_path(task.study).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"bytes": file.tell(), "sha256": digest}


def _slice_rows(task: StudyTask, volume: Volume) -> list[dict]:
    labels = task.rows.set_index(SOP)[SLICE_LABEL].to_dict() if SLICE_LABEL in task.rows else {}
    series = public_uid(volume.series_uid)
    return [
        dict(zip(UIDS, (task.study, series, public_uid(sop)), strict=True))
        | {"z": z, SLICE_LABEL: int(labels.get(sop, -1))}
        for z, sop in enumerate(volume.sop_uids)
    ]


def _landmark_rows(task: StudyTask, volume: Volume, made: Prepared) -> list[dict]:
    found = made.landmarks
    if task.landmarks_mm is not None:
        found = to_voxels(task.landmarks_mm, volume)
    return landmark_table(task.study, found).to_dict("records")
