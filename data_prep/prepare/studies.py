"""Prepare a whole data set from DICOM into the store: in parallel, resumable, in shards.

    prepare(data, root, PrepareSettings(crop="masked"), workers=2, progress=progress)
    verify(root)

On a cluster each node prepares a shard; the notebook's call, which then finds all of them done,
writes the tables:

    python -m data_prep.prepare DATA ROOT --shard 3/8 --workers 16 --settings '{"crop": "box"}'
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from data_prep.anatomy import check_method
from data_prep.landmarks import read_landmarks_csv
from data_prep.parallel.records import Records, run_studies
from data_prep.prepare.gpus import segmenter_gpus
from data_prep.prepare.space import check_space, fit_workers
from data_prep.prepare.study import PrepareSettings, prepare_study
from data_prep.rsna import SOURCES, STUDY, StudyTask, find_studies
from pekit.common.code_hash import module_hash
from pekit.common.errors import UserError
from pekit.common.files import remove_leftovers, write_csv, write_table
from pekit.common.progress import say
from pekit.dataset.schema import BOX_COLUMNS, SLICE_LABEL, UIDS, public_uid
from pekit.dataset.store import Store


def prepare(
    data: Path,
    root: Path,
    settings: PrepareSettings,
    sources: tuple[str, ...] = SOURCES,
    limit: int | None = None,
    workers: int = 1,
    progress: Callable[..., Iterable] | None = None,
    exclude: Mapping[str, str] | None = None,
    shard: tuple[int, int] = (1, 1),
) -> Store:
    """Prepare the data set in the RSNA layout at `data` into a store at `root`.

    Args:
        data: the data set's folder.
        root: the store's folder; after a kill the same call resumes.
        settings: of the preparation; with other settings the studies are prepared again.
        sources: parts of the data set, each with its CSV (`train.csv`) and folder (`train/`).
        limit: at most this many studies of each source, for a quick try.
        workers: number of processes, at most; fewer if the memory is too small for so many, and one
            per GPU (in all, on a CPU) where the segmenter is a network.
        progress: `progress(iterable, total=, desc=)`, e.g. tqdm.
        exclude: studies to leave out, UID -> reason, as from `read_exclusions`.
        shard: (i, n): prepare only the i-th of n shards; the call that finds all studies done
            writes the tables.

    Returns:
        The store.

    Raises:
        UserError: no data set there, a CSV that lacks columns, or not enough space.
    """
    root, (part, parts) = Path(root), shard
    if not 1 <= part <= parts:
        raise UserError(f"shard {part}/{parts}: i/n needs i from 1 to n, e.g. 3/8")
    check_method(settings.segmenter)
    if settings.masks_folder and not Path(settings.masks_folder).is_dir():
        raise UserError(f"the folder of masks {settings.masks_folder} does not exist")
    tasks = _tasks(Path(data), settings, sources, limit, exclude or {})
    mine = tasks[part - 1 :: parts]
    try:
        store = Store.create(root, settings.model_dump())
        for folder in (root, root / "records", root / "volumes"):
            remove_leftovers(folder)
        records = Records(root / "records", digest(settings))
        todo = records.missing(mine, holds=partial(_volume_stands, store))
        check_space(todo, settings.crop, root)
        workers = fit_workers(workers, todo)
        gpus = segmenter_gpus(settings.segmenter, settings.segmenter_options)
        if gpus is not None and todo:
            workers = min(workers, max(len(gpus), 1))
            say(f"{settings.segmenter} is a network: processes = {workers}, at most one per GPU")
        work = partial(prepare_study, root=root, settings=settings)
        run_studies(work, todo, records, workers, progress, gpus or ())
        done = [records.read(task) for task in tasks]
        if None not in done:
            _write_tables(store, done)
        else:
            left = done.count(None)
            say(f"shard {part}/{parts} is done; {left} studies of other shards are left to do")
    except OSError as error:
        raise UserError(
            f"cannot write to {root} ({error}): make room or choose another folder, then run "
            "again (finished studies are kept)"
        ) from error
    return store


def digest(settings: PrepareSettings) -> str:
    """Hash of the settings and of the code that prepares a study, for `Records.made_with`.

    The path of a landmark CSV does not count: each study's landmarks are in its own record key.
    """
    code = module_hash("data_prep.prepare.study")
    content = settings.model_dump() | {"landmarks": settings.landmarks == "masks"}
    return hashlib.sha256((json.dumps(content) + code).encode()).hexdigest()[:12]


def verify(root: Path, progress: Callable[..., Iterable] | None = None) -> pd.DataFrame:
    """Compare every volume of a store with the checksum taken when it was written.

    Returns:
        StudyInstanceUID and problem of each missing or changed volume; empty if there is none.
    """
    store, found = Store(root), []
    studies = store.studies
    kept = studies[studies["status"] != "excluded"][[STUDY, "sha256"]]
    rows = list(kept.itertuples(index=False, name=None))
    for uid, expected in progress(rows, total=len(rows), desc="checksums") if progress else rows:
        try:
            with store.volume_path(uid).open("rb") as file:
                if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                    found.append((uid, "changed since it was written"))
        except OSError as error:
            found.append((uid, error.strerror))
    return pd.DataFrame(found, columns=[STUDY, "problem"], dtype=str)


def _tasks(
    data: Path,
    settings: PrepareSettings,
    sources: tuple[str, ...],
    limit: int | None,
    exclude: Mapping[str, str],
) -> list[StudyTask]:
    """The studies of a data set, with their exclusions and landmarks from other tables."""
    points: dict[str, dict] = {}
    if settings.landmarks != "masks":
        for uid, rows in read_landmarks_csv(Path(settings.landmarks)).groupby(STUDY):
            positions = rows[["z_mm", "y_mm", "x_mm"]].itertuples(index=False, name=None)
            points[public_uid(uid)] = dict(zip(rows["name"], positions, strict=True))
    tasks = find_studies(data, sources, limit)
    return [
        replace(
            task,
            problems=(*task.problems, *([exclude[task.study]] if task.study in exclude else [])),
            landmarks_mm=points.get(task.study),
        )
        for task in tasks
    ]


def _volume_stands(store: Store, record: dict) -> bool:
    """Whether the volume named in a record exists with its size."""
    if "bytes" not in record["study"]:
        return True
    path = store.volume_path(record["study"][STUDY])
    return path.exists() and path.stat().st_size == record["study"]["bytes"]


def _write_tables(store: Store, records: list[dict]) -> None:
    records = sorted(records, key=lambda record: record["study"][STUDY])
    slices = _table(records, "slices", (*UIDS, "z", SLICE_LABEL))
    write_table(store.root / "slices.parquet", slices)
    landmarks = _table(records, "landmarks", (STUDY, "name", "z", "y", "x", "present"))
    write_table(store.root / "landmarks.parquet", landmarks)
    table = pd.DataFrame([record["study"] for record in records])
    table = table.reindex(columns=list(dict.fromkeys((*table.columns, *BOX_COLUMNS, "sha256"))))
    write_table(store.root / "studies.parquet", table)
    write_csv(store.root / "status.csv", table[[STUDY, "source", "status", "reasons"]])


def _table(records: list[dict], key: str, columns: tuple[str, ...]) -> pd.DataFrame:
    rows = (row for record in records for row in record.get(key, ()))
    return pd.DataFrame(rows, columns=list(columns))
