"""Study by study from DICOM into the store: audit, masks, hull, crop, landmarks.

    prepare(data, store_root, PrepareSettings(crop="masked"), workers=2, progress=progress)

Each study leaves its volume and, last, its record; the tables are made of the records at the end.
The same call after a kill goes on where it was; other settings, or other code, redo every study.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from data_prep.anatomy import contrast_hu, segment
from data_prep.audit import audit_study
from data_prep.dicom import Volume
from data_prep.errors import SegmentationError
from data_prep.hull import apply_crop, hull_and_box, volume_ratio
from data_prep.landmarks import from_masks, landmark_table, read_landmarks_csv, to_voxels
from data_prep.pool import run_pool
from pekit.config import Settings
from pekit.errors import UserError
from pekit.provenance import code_hash
from pekit.store import (
    BOX_COLUMNS,
    EXAM_LABELS,
    LABELS,
    SLICE_LABEL,
    UIDS,
    Store,
    public_uid,
    read_json,
    write_json,
    write_table,
)

STUDY = UIDS[0]


class PrepareSettings(Settings):
    """How studies are prepared.

    `segmenter` names a method of `data_prep.anatomy`, `masks_folder` holds its masks where it
    reads them (one folder a study); `crop` is Table I's axis; `on_failure` says what becomes of a
    study without masks (`exclude`, as in the paper, or `full`: kept uncropped); `landmarks` is
    `masks` (those that the embedded masks give) or a CSV in mm.
    """

    segmenter: str = "threshold"
    masks_folder: str | None = None
    crop: Literal["masked", "box", "none"] = "masked"
    on_failure: Literal["exclude", "full"] = "exclude"
    landmarks: str = "masks"


@dataclass(frozen=True)
class StudyTask:
    """One study to prepare: its folder, its rows of the CSV, and landmarks in mm if given."""

    study: str
    source: str
    folder: Path
    rows: pd.DataFrame | None
    landmarks_mm: dict[str, tuple[float, float, float]] | None


@dataclass(frozen=True)
class Prepared:
    """What preparation makes of one volume: the crop and how it came about.

    Attributes:
        hu: cropped volume `(Z, Y, X)` int16 HU.
        hull: `(Z, Y, X)` bool, of the whole volume; all True where the crop is full.
        box_zyx: `(3, 2)` start and stop voxels of the crop in the whole volume.
        heart_hu: median HU of the heart, NaN without masks.
        landmarks: name -> voxel (z, y, x) in the whole volume, or None.
        problem: why there are no masks, or "".
    """

    hu: np.ndarray
    hull: np.ndarray
    box_zyx: np.ndarray
    heart_hu: float
    landmarks: dict[str, tuple[float, float, float] | None]
    problem: str = ""


def prepare_volume(volume: Volume, settings: PrepareSettings, study: str = "") -> Prepared:
    """Masks, hull, crop and mask landmarks of one volume.

    Raises:
        SegmentationError: no masks, and `on_failure` is `exclude`.
    """
    options = {}
    if settings.masks_folder:
        options["folder"] = Path(settings.masks_folder) / study
    whole = np.array([(0, n) for n in volume.hu.shape])
    try:
        masks = segment(volume.hu, volume.spacing_mm, settings.segmenter, **options)
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
    )


def prepare_study(task: StudyTask, root: Path, settings: PrepareSettings, made_with: str) -> str:
    """Prepare one study into the store at `root`, its record marked `made_with`; its verdict."""
    expected = None if task.rows is None else len(task.rows)
    labelled = task.rows is not None and SLICE_LABEL in task.rows
    verdict, volume = audit_study(task.folder, expected, task.rows if labelled else None)
    row = {STUDY: task.study, "source": task.source}
    if labelled and len(task.rows):
        row |= task.rows[list(EXAM_LABELS)].iloc[0].to_dict()
    record = {"made_with": made_with, "slices": [], "landmarks": []}
    if volume is not None:
        row |= {UIDS[1]: public_uid(volume.series_uid), "n_slices": len(volume.hu)}
        row |= dict(zip(("spacing_z", "spacing_y", "spacing_x"), volume.spacing_mm, strict=True))
        record["slices"] = _slice_rows(task, volume, labelled)
    if volume is not None and verdict.verdict != "excluded":
        try:
            made = prepare_volume(volume, settings, task.study)
        except SegmentationError as error:
            verdict = replace(verdict, verdict="excluded", reasons=(*verdict.reasons, str(error)))
        else:
            if made.problem:
                verdict = replace(verdict, reasons=(*verdict.reasons, f"uncropped: {made.problem}"))
            Store(root).write_volume(task.study, made.hu)
            row |= dict(zip(BOX_COLUMNS, made.box_zyx.ravel().tolist(), strict=True))
            row["volume_ratio"] = volume_ratio(made.box_zyx, volume.hu.shape)
            row["heart_hu"] = made.heart_hu
            record["landmarks"] = _landmark_rows(task, volume, made)
    row |= {"verdict": verdict.verdict, "reasons": "; ".join(verdict.reasons)}
    # Plain numbers: numpy's have no JSON form.
    record["study"] = json.loads(pd.Series(row).to_json())
    write_json(_record_path(root, task.study), record)
    return verdict.verdict


def prepare(
    data: Path,
    root: Path,
    settings: PrepareSettings,
    sources: tuple[str, ...] = ("train", "test"),
    limit: int | None = None,
    workers: int = 1,
    progress: Callable[..., Iterable] | None = None,
) -> Store:
    """Prepare the data set in the RSNA layout at `data` into a store at `root`.

    Args:
        sources: parts of the data set, each with its CSV (`train.csv`) and folder (`train/`).
        limit: only so many studies of each source, for a quick try.
        workers: processes.
        progress: `progress(iterable, total=, desc=)`, e.g. tqdm.

    Returns:
        The store, with its tables written.

    Raises:
        UserError: no data set there, a CSV that lacks columns, or a full disk.
    """
    root = Path(root)
    tasks = [
        task for source in sources for task in find_studies(Path(data), source, settings)[:limit]
    ]
    try:
        store = Store.create(root, settings.model_dump())
        wanted = digest(settings)
        missing = [t for t in tasks if _read_digest(root, t.study) != wanted]
        done = run_pool(
            partial(prepare_study, root=root, settings=settings, made_with=wanted), missing, workers
        )
        for _ in progress(done, total=len(missing), desc="studies") if progress else done:
            pass
        _write_tables(store, [task.study for task in tasks])
    except OSError as error:
        raise UserError(
            f"cannot write to {root} ({error}): make room or choose another folder, then run "
            "again; finished studies are kept"
        ) from error
    return store


def find_studies(data: Path, source: str, settings: PrepareSettings) -> list[StudyTask]:
    """The studies that `data/<source>.csv` lists, in order of their UIDs.

    A listed study without a folder, or a folder that is not listed, is a task like any other: the
    audit excludes it by name.

    Raises:
        UserError: the CSV is missing or lacks columns, or a UID is no plain name.
    """
    path = data / f"{source}.csv"
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(UIDS, str))
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist: DATA must be a folder in the RSNA layout (train.csv, train/)"
        ) from None
    columns = UIDS if source == "test" else (*UIDS, *LABELS)
    if absent := [name for name in columns if name not in table]:
        raise UserError(f"{path} lacks the columns {', '.join(absent)}")
    listed = dict(tuple(table.groupby(STUDY, sort=False)))
    folders = {f.name for f in (data / source).glob("*") if f.is_dir()}
    landmarks = {}
    if settings.landmarks != "masks":
        for study, rows in read_landmarks_csv(Path(settings.landmarks)).groupby(STUDY):
            points = rows[["z_mm", "y_mm", "x_mm"]].itertuples(index=False, name=None)
            landmarks[study] = dict(zip(rows["name"], points, strict=True))
    tasks = []
    for study in sorted(listed.keys() | folders):
        if Path(study).name != study or study in (".", ".."):
            raise UserError(f"{path}: '{study}' is no plain study UID")
        rows = listed.get(study, table.iloc[:0])
        tasks.append(StudyTask(study, source, data / source / study, rows, landmarks.get(study)))
    return tasks


def digest(settings: PrepareSettings) -> str:
    """What a record was made with: the settings, a CSV of landmarks by content, and the code."""
    content = settings.model_dump_json() + code_hash(Path(__file__).parent)
    if settings.landmarks != "masks":
        content += hashlib.sha256(Path(settings.landmarks).read_bytes()).hexdigest()
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def _slice_rows(task: StudyTask, volume: Volume, labelled: bool) -> list[dict]:
    labels = task.rows.set_index(UIDS[2])[SLICE_LABEL].to_dict() if labelled else {}
    series = public_uid(volume.series_uid)
    return [
        dict(zip(UIDS, (task.study, series, public_uid(sop)), strict=True))
        | {"z": z, SLICE_LABEL: int(labels.get(sop, -1))}
        for z, sop in enumerate(volume.sop_uids)
    ]


def _landmark_rows(task: StudyTask, volume: Volume, made: Prepared) -> list[dict]:
    found = made.landmarks
    if task.landmarks_mm is not None:
        found = to_voxels(task.landmarks_mm, volume.origin_mm, volume.spacing_mm)
    return landmark_table(task.study, found).to_dict("records")


def _record_path(root: Path, study: str) -> Path:
    return Path(root) / "records" / f"{study}.json"


def _read_digest(root: Path, study: str) -> str | None:
    path = _record_path(root, study)
    return read_json(path).get("made_with") if path.exists() else None


def _write_tables(store: Store, studies: list[str]) -> None:
    records = [read_json(_record_path(store.root, study)) for study in sorted(studies)]
    write_table(store.root / "slices.parquet", _table(records, "slices", (*UIDS, "z", SLICE_LABEL)))
    landmarks = _table(records, "landmarks", (STUDY, "name", "z", "y", "x", "present"))
    write_table(store.root / "landmarks.parquet", landmarks)
    table = pd.DataFrame([r["study"] for r in records])
    table = table.reindex(columns=list(dict.fromkeys((*table.columns, *BOX_COLUMNS))))
    write_table(store.root / "studies.parquet", table)


def _table(records: list[dict], key: str, columns: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame([row for r in records for row in r[key]], columns=list(columns))
