"""Write a cohort of phantoms as a data set in the RSNA layout, with its truth beside it.

    out/cohort.json                             the settings, and whether the cohort is complete
    out/{train,test}/<study>/<series>/<sop>.dcm
    out/train.csv                               17 columns, one row per slice, not in z order
    out/test.csv, out/sample_submission.csv
    out/truth/<study>.npz                       see `read_truth`
    out/truth/landmarks.csv                     mm, LPS; landmarks outside the volume have no row
    out/truth/test_labels.csv                   the 17 columns for the test studies
    out/truth/defects.csv                       broken studies, with the kind of defect

A study gets its final name when all of it is written, so that after a kill the same call resumes.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_prep.parallel.pool import run_pool
from data_prep.phantom.phantom import PhantomConfig
from data_prep.phantom.study import DEFECTS, Task, read_record, write_study
from pekit.common.code_hash import module_hash
from pekit.common.errors import UserError
from pekit.common.files import atomic, read_json, write_json
from pekit.dataset.schema import EXAM_LABELS, LABELS, LANDMARKS, UIDS

# Exam columns that a submission does not predict.
_INFORMATIONAL = ("qa_motion", "qa_contrast", "flow_artifact", "true_filling_defect_not_pe")


class CohortConfig(BaseModel):
    """Settings of a cohort.

    Attributes:
        n_train, n_test: number of studies of the two parts.
        seed: random seed; seed and settings determine the cohort.
        phantom: settings of each study; `shape[0]` is the mean number of slices.
        slice_jitter: a study has up to this many slices more or fewer.
        broken_fraction: share of broken studies; unless it is 0, at least one study is broken.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_train: int = Field(ge=1)
    n_test: int = Field(ge=0)
    seed: int = Field(0, ge=0)
    phantom: PhantomConfig = PhantomConfig()
    slice_jitter: int = Field(4, ge=0)
    broken_fraction: float = Field(0.02, ge=0, le=1)

    @model_validator(mode="after")
    def _enough_slices(self) -> "CohortConfig":
        if self.phantom.shape[0] - self.slice_jitter < 8:
            raise ValueError(
                f"slice_jitter {self.slice_jitter} leaves fewer than 8 of "
                f"{self.phantom.shape[0]} slices: lower it"
            )
        return self


def write_cohort(
    out: Path,
    config: CohortConfig,
    workers: int = 1,
    progress: Callable[..., Iterable] | None = None,
    replace: bool = False,
) -> None:
    """Write the cohort to `out`, or the studies that are still missing there.

    Args:
        out: folder of the data set.
        config: settings; the bytes written depend on them only, not on `workers`.
        workers: number of processes.
        progress: wraps the iterable over studies, `progress(iterable, total=, desc=)`, e.g. tqdm.
        replace: delete a cohort with other settings at `out` first; other data are never deleted.

    Raises:
        UserError: `out` holds another cohort or other data, or cannot be written to.
    """
    out = Path(out)
    with _explained(out):
        complete = _claim(out, config, replace)
        tasks = _tasks(config)
        missing = [task for task in tasks if not (out / task.part / task.study).is_dir()]
        if complete and not missing:
            return
        shutil.rmtree(out / ".incoming", ignore_errors=True)
        done = run_pool(partial(write_study, out), missing, workers)
        for _ in progress(done, total=len(missing), desc="studies") if progress else done:
            pass
        _write_tables(out, tasks)
        shutil.rmtree(out / ".incoming", ignore_errors=True)
        _note(out, config, complete=True)


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    """Turn a full disk or a forbidden folder into a `UserError`."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"cannot write the cohort to {out} ({error}): make room or choose another folder, "
            "then run again (finished studies are kept)"
        ) from error


def _note(out: Path, config: CohortConfig, complete: bool) -> None:
    write_json(out / "cohort.json", {**_made_with(config), "complete": complete})


def _made_with(config: CohortConfig) -> dict:
    code = module_hash("data_prep.phantom.cohort")
    return {"config": config.model_dump(mode="json"), "code": code}


def _claim(out: Path, config: CohortConfig, replace: bool) -> bool:
    """Mark `out` as the folder of this cohort; True if the cohort was completed before."""
    if not (out / "cohort.json").exists():
        taken = [
            name for name in ("train", "test", "train.csv", "test.csv") if (out / name).exists()
        ]
        if taken:
            raise UserError(
                f"{out} holds {taken[0]} but no cohort.json: it is another data set; "
                "choose another folder"
            )
        _note(out, config, complete=False)
    note = read_json(out / "cohort.json")
    same = _made_with(config).items() <= note.items()
    if not same and replace:
        for name in ("train", "test", "truth"):
            shutil.rmtree(out / name, ignore_errors=True)
        _note(out, config, complete=False)
        return False
    if not same:
        raise UserError(
            f"{out} holds a cohort with other settings or from another version of the kit "
            f"({note.get('config')}): choose another folder or delete it"
        )
    return bool(note.get("complete"))


def _tasks(config: CohortConfig) -> list[Task]:
    """The studies of a cohort; the seed determines which are broken."""
    places = [("train", i) for i in range(config.n_train)]
    places += [("test", i) for i in range(config.n_test)]
    broken = int(np.ceil(config.broken_fraction * len(places)))
    chosen = np.random.default_rng((config.seed, 1)).permutation(len(places))[:broken]
    defects = {int(place): DEFECTS[k % len(DEFECTS)] for k, place in enumerate(chosen)}
    return [
        Task(part, index, config.seed, defects.get(k, ""), config.phantom, config.slice_jitter)
        for k, (part, index) in enumerate(places)
    ]


def _write_tables(out: Path, tasks: list[Task]) -> None:
    """Write the CSV files from the truth of all studies."""
    records = [read_record(out, task.study) for task in sorted(tasks, key=lambda t: t.study)]
    parts = {task.study: task.part for task in tasks}
    slices = pd.concat([_slice_rows(r) for r in records], ignore_index=True)
    of_test = slices[UIDS[0]].map(parts) == "test"
    landmarks = [
        (r["study_uid"], name, *np.round(mm, 3))
        for r in records
        for name, mm in zip(LANDMARKS, r["landmarks_mm"], strict=True)
        if np.isfinite(mm).all()
    ]
    defects = [(r["study_uid"], r["defect"]) for r in records if r["defect"]]
    studies = [task.study for task in sorted(tasks, key=lambda t: t.study) if task.part == "test"]
    predicted = [name for name in EXAM_LABELS if name not in _INFORMATIONAL]
    ids = [f"{study}_{label}" for label in predicted for study in studies]
    ids += slices.loc[of_test, UIDS[2]].tolist()
    tables = {
        "train.csv": slices[~of_test],
        "test.csv": slices.loc[of_test, list(UIDS)],
        "sample_submission.csv": pd.DataFrame({"id": ids, "label": 0.5}),
        "truth/test_labels.csv": slices[of_test],
        "truth/landmarks.csv": pd.DataFrame(
            landmarks, columns=[UIDS[0], "name", "z_mm", "y_mm", "x_mm"]
        ),
        "truth/defects.csv": pd.DataFrame(defects, columns=[UIDS[0], "kind"]),
    }
    for name, table in tables.items():
        with atomic(out / name) as beside:
            table.to_csv(beside, index=False)


def _slice_rows(record: dict) -> pd.DataFrame:
    """The 17 columns of train.csv for the written slices of one study, sorted by SOP UID."""
    rows = pd.DataFrame({UIDS[2]: record["sop_uids"], LABELS[0]: record["slice_labels"]})
    rows = rows[record["present"]].sort_values(UIDS[2])
    rows = rows.assign(**{UIDS[0]: record["study_uid"], UIDS[1]: record["series_uid"]})
    rows = rows.assign(**dict(zip(EXAM_LABELS, record["exam_labels"].tolist(), strict=True)))
    return rows[[*UIDS, *LABELS]]
