"""Write one study of a phantom cohort to disk: DICOM files, defect, truth; and read its truth."""

import dataclasses
import hashlib
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_prep.phantom.files import draw_style, write_series
from data_prep.phantom.phantom import Phantom, PhantomConfig, make_phantom
from pekit.common.errors import UserError
from pekit.dataset.schema import BOX_COLUMNS, EXAM_LABELS, LANDMARKS

DEFECTS = ("missing_slices", "truncated_file")
_MASKS = ("lung", "heart", "clot")
_TEXTS = ("study_uid", "series_uid", "defect")


@dataclass(frozen=True)
class Task:
    """One study to write: `index` within its `part`, with a `defect` or "".

    `phantom.shape[0]` is the mean number of slices; a study has up to `slice_jitter` more or fewer.
    """

    part: str
    index: int
    seed: int
    defect: str
    phantom: PhantomConfig
    slice_jitter: int

    def digest(self, *what) -> str:
        """12 hex digits that depend on the cohort's seed, the study and `what`."""
        key = "/".join(map(str, (self.seed, self.part, self.index, *what)))
        return hashlib.sha256(key.encode()).hexdigest()[:12]

    @property
    def study(self) -> str:
        """StudyInstanceUID."""
        return self.digest("study")


def write_study(out: Path, task: Task) -> str:
    """Write the truth of one study, then its DICOM files under their final name.

    Returns:
        The study's UID.

    Raises:
        OSError: a file cannot be written.
    """
    rng = np.random.default_rng(int(task.digest("draws"), 16))
    mean, *plane = task.phantom.shape
    slices = mean + int(rng.integers(-task.slice_jitter, task.slice_jitter + 1))
    config = dataclasses.replace(task.phantom, shape=(slices, *plane))
    phantom = make_phantom(int(task.digest("phantom"), 16), config)
    series = task.digest("series")
    sops = [task.digest("slice", z) for z in range(slices)]
    gap = draw_gap(phantom.slice_labels, rng) if task.defect == "missing_slices" else range(0)
    incoming = out / ".incoming" / task.study
    shutil.rmtree(incoming, ignore_errors=True)
    folder = incoming / series
    folder.mkdir(parents=True)
    style = draw_style(rng)
    write_series(folder, phantom, style, (task.study, series, sops), rng, frozenset(gap))
    if task.defect == "truncated_file":
        file = folder / f"{sops[int(rng.integers(2, slices - 2))]}.dcm"
        os.truncate(file, file.stat().st_size * 6 // 10)
    present = np.ones(slices, bool)
    present[list(gap)] = False
    names = {"study_uid": task.study, "series_uid": series, "defect": task.defect}
    _write_truth(out, phantom, names, sops, present)
    (out / task.part).mkdir(parents=True, exist_ok=True)
    os.replace(incoming, out / task.part / task.study)
    return task.study


def draw_gap(slice_labels: np.ndarray, rng: np.random.Generator) -> range:
    """Draw 2 to 4 neighbouring slices, not at the ends, with as few positive ones as possible: the
    exam labels must remain true for the other slices."""
    length = int(rng.integers(2, 5))
    starts = np.arange(2, len(slice_labels) - length - 1)
    labelled = np.array([slice_labels[s : s + length].sum() for s in starts])
    start = int(rng.choice(starts[labelled == labelled.min()]))
    return range(start, start + length)


def _write_truth(
    out: Path, phantom: Phantom, names: dict[str, str], sops: list[str], present: np.ndarray
) -> None:
    """Write truth/<study>.npz, which `read_truth` reads."""
    whole = phantom.lung | phantom.heart
    sides = [np.flatnonzero(whole.any(axis)) for axis in ((1, 2), (0, 2), (0, 1))]
    missing = (np.nan,) * 3
    file = f"{names['study_uid']}.npz"
    # Written in the folder that the next call clears, so that a kill leaves nothing in truth/.
    beside = out / ".incoming" / file
    np.savez_compressed(
        beside,
        shape=np.array(phantom.hu.shape),
        **{name: np.packbits(getattr(phantom, name)) for name in _MASKS},
        present=present,
        sop_uids=np.array(sops),
        slice_labels=phantom.slice_labels,
        exam_labels=np.array([phantom.exam_labels[n] for n in EXAM_LABELS], np.uint8),
        box_zyx=np.array([(side[0], side[-1] + 1) for side in sides]),
        spacing_mm=np.array(phantom.spacing_mm),
        origin_mm=np.array(phantom.origin_mm),
        landmarks_mm=np.array([phantom.landmarks_mm[n] or missing for n in LANDMARKS]),
        **names,
    )
    (out / "truth").mkdir(parents=True, exist_ok=True)
    os.replace(beside, out / "truth" / file)


def read_truth(out: Path, study_uid: str) -> dict[str, np.ndarray | str]:
    """The truth of one study of the cohort at `out`.

    Returns:
        lung, heart, clot: (Z, Y, X) bool, on the whole grid, missing slices included;
        present: (Z,) bool, slices that were written; sop_uids: (Z,) str, in z order;
        slice_labels: (Z,) uint8; exam_labels: uint8, in the order of `EXAM_LABELS`;
        box_zyx: (3, 2) start and stop voxels of lungs and heart; spacing_mm, origin_mm: (z, y, x);
        landmarks_mm: (20, 3), in the order of `LANDMARKS`, (z, y, x) LPS, NaN if outside the
        volume; study_uid, series_uid, defect: str.

    Raises:
        UserError: the truth of this study is missing or damaged.
    """
    truth = _load(out, study_uid, masks=True)
    shape = tuple(truth.pop("shape"))
    for name in _MASKS:
        voxels = np.unpackbits(truth[name], count=int(np.prod(shape)))
        truth[name] = voxels.reshape(shape).astype(bool)
    return truth


def crop_truth(out: Path, study_uid: str, name: str, box: Mapping[str, float]) -> np.ndarray:
    """A true mask on the grid of the prepared study, `(Z, Y, X)` bool.

    Args:
        out: the cohort's folder.
        study_uid: the study.
        name: lung, heart or clot.
        box: the study's row in the store's `studies`: crop box in voxels of the present slices.
    """
    truth = read_truth(out, study_uid)
    mask = truth[name][truth["present"]]
    z0, z1, y0, y1, x0, x1 = (int(box[column]) for column in BOX_COLUMNS)
    return mask[z0:z1, y0:y1, x0:x1]


def read_record(out: Path, study_uid: str) -> dict[str, np.ndarray | str]:
    """As `read_truth`, but without the masks, which is faster.

    Raises:
        UserError: the truth of this study is missing or damaged.
    """
    return _load(out, study_uid, masks=False)


def _load(out: Path, study_uid: str, masks: bool) -> dict[str, np.ndarray | str]:
    path = Path(out) / "truth" / f"{study_uid}.npz"
    try:
        with np.load(path) as stored:
            wanted = [n for n in stored.files if masks or n not in (*_MASKS, "shape")]
            content = {name: stored[name] for name in wanted}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read ({error}): delete the cohort's folder and write it again"
        ) from None
    return content | {name: str(content[name]) for name in _TEXTS}
