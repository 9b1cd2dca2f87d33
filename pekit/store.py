"""Prepared studies on disk: one blosc2 volume a study, parquet tables, all written atomically.

A store is a folder:

    store.json               version and the settings that made it
    volumes/<study>.b2nd     (Z, Y, X) int16 HU, cropped; chunk 16 slices, block 1 slice
    studies.parquet          a row a study: labels, verdict, crop box, spacing
    slices.parquet           a row a slice: UIDs, z index in the whole volume, label
    landmarks.parquet        a row a study and landmark, in voxels of the whole volume
"""

import hashlib
import json
import os
import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import blosc2
import numpy as np
import pandas as pd
import psutil

from pekit.errors import UserError

VERSION = 1

AIR_HU = -1024
# Lowest value of the lung window (-600, 1500): 0 in all three windows of the paper (section IV).
OUTSIDE_HU = -1350

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
SLICE_LABEL = "pe_present_on_image"
LABELS = (
    SLICE_LABEL,
    "negative_exam_for_pe",
    "qa_motion",
    "qa_contrast",
    "flow_artifact",
    "rv_lv_ratio_gte_1",
    "rv_lv_ratio_lt_1",
    "leftsided_pe",
    "chronic_pe",
    "true_filling_defect_not_pe",
    "rightsided_pe",
    "acute_and_chronic_pe",
    "central_pe",
    "indeterminate",
)
EXAM_LABELS = LABELS[1:]

# The 20 landmarks of the paper, section IV "Keypoint pretraining", in its order.
LANDMARKS = (
    "Heart",
    "Carina Bifurcation",
    "T4",
    "Right Primary Bronchus",
    "Aortic Arch Center",
    "Aortic Root",
    "Left Subclavian Artery",
    "Left Primary Bronchus",
    "Left Common Carotid Artery",
    "Liver Top",
    "Right Medial Clavicle",
    "Suprasternal Notch",
    "Brachiocephalic Artery Bifurcation",
    "Left Medial Clavicle",
    "Right Subclavian and Vertebralis Branch",
    "Left Subclavian and Vertebralis Branch",
    "Right Lung Top",
    "Sternum Tip",
    "Left Lung Top",
    "Celiac Trunk",
)

BOX_COLUMNS = ("box_z0", "box_z1", "box_y0", "box_y1", "box_x0", "box_x1")

_RSNA_UID = re.compile(r"[0-9a-f]{12}")


def public_uid(uid: str) -> str:
    """The UID as it may leave the machine: RSNA's own (12 hex digits) as is, any other hashed."""
    if _RSNA_UID.fullmatch(uid):
        return uid
    return hashlib.sha256(uid.encode()).hexdigest()[:12]


_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to; it takes the final name only if the block succeeds.

    The name beside says which process of which machine writes there: `remove_leftovers`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{path.name}.{_HOST}-{os.getpid()}-", suffix=path.suffix, dir=path.parent
    )
    os.close(handle)
    beside = Path(name)
    beside.unlink()  # libraries such as blosc2 refuse to write over an existing file
    try:
        yield beside
        os.replace(beside, path)
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        else:
            beside.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what processes of this machine that were killed have left half written in a folder."""
    for path in Path(folder).glob(f".*.{_HOST}-*-*"):
        process = path.name.split(f".{_HOST}-")[1].split("-")[0]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            path.unlink(missing_ok=True)


def write_json(path: Path, content: dict) -> None:
    """Write `content` as readable JSON, atomically."""
    with atomic(path) as beside:
        beside.write_text(json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path) -> dict:
    """Read a JSON object.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the stage that writes it first") from None
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON ({error}): delete it and rerun") from None


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table as parquet, atomically."""
    with atomic(path) as beside:
        table.to_parquet(beside, index=False)


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV without its index, atomically."""
    with atomic(path) as beside:
        table.to_csv(beside, index=False)


def read_table(path: Path, columns: tuple[str, ...] = ()) -> pd.DataFrame:
    """Read a parquet table and check that it has `columns`.

    Raises:
        UserError: the file is missing, unreadable, or lacks a column.
    """
    try:
        table = pd.read_parquet(path)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the stage that writes it first") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not a parquet table ({error}): delete it and rerun") from None
    missing = [name for name in columns if name not in table]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}: it is of another version")
    return table


class Store:
    """A folder of prepared studies, opened for reading or filled by `data_prep.prepare`.

    Args:
        root: the store's folder.

    Raises:
        UserError: no store there, or one of another version.
    """

    def __init__(self, root: Path):
        self.root = Path(root)
        self.settings = read_json(self.root / "store.json")
        if self.settings.get("version") != VERSION:
            raise UserError(
                f"{self.root} is a store of version {self.settings.get('version')}, this kit reads "
                f"version {VERSION}: prepare it again"
            )

    @classmethod
    def create(cls, root: Path, settings: dict) -> "Store":
        """Open the store at `root` to fill it with studies made with `settings`.

        A store of other settings loses its tables, so that nobody reads a mixture.
        """
        root = Path(root)
        wanted = json.loads(json.dumps({"version": VERSION, **settings}))
        path = root / "store.json"
        if not path.exists() or read_json(path) != wanted:
            for name in ("studies", "slices", "landmarks"):
                (root / f"{name}.parquet").unlink(missing_ok=True)
            write_json(path, wanted)
        return cls(root)

    def volume_path(self, study: str) -> Path:
        """Where the volume of `study` lies."""
        return self.root / "volumes" / f"{study}.b2nd"

    def write_volume(self, study: str, hu: np.ndarray) -> None:
        """Write a study's cropped volume `(Z, Y, X)` int16 HU, atomically."""
        if hu.dtype != np.int16 or hu.ndim != 3:
            raise UserError(f"study {study}: expected (Z, Y, X) int16, got {hu.shape} {hu.dtype}")
        with atomic(self.volume_path(study)) as beside:
            blosc2.asarray(
                np.ascontiguousarray(hu),
                urlpath=str(beside),
                chunks=(min(16, hu.shape[0]), *hu.shape[1:]),
                blocks=(1, *hu.shape[1:]),
                # One thread: studies are the parallelism, and the bytes repeat exactly.
                cparams=blosc2.CParams(
                    codec=blosc2.Codec.ZSTD,
                    clevel=1,
                    filters=[blosc2.Filter.BITSHUFFLE],
                    nthreads=1,
                ),
            )

    def read_volume(self, study: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Slices `start` to `stop` of a study's cropped volume `(Z, Y, X)` int16 HU."""
        return self._open(study)[start:stop]

    def volume_shape(self, study: str) -> tuple[int, int, int]:
        """Shape `(Z, Y, X)` of a study's cropped volume."""
        return self._open(study).shape

    def _open(self, study: str) -> blosc2.NDArray:
        path = self.volume_path(study)
        try:
            return _open(str(path), path.stat().st_mtime_ns)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}): prepare the study again") from None

    @property
    def studies(self) -> pd.DataFrame:
        """A row a study."""
        return read_table(
            self.root / "studies.parquet", ("StudyInstanceUID", "verdict", *BOX_COLUMNS)
        )

    @property
    def slices(self) -> pd.DataFrame:
        """A row a slice, sorted by study and z."""
        return read_table(self.root / "slices.parquet", (*UIDS, "z"))

    @property
    def landmarks(self) -> pd.DataFrame:
        """A row a study and landmark."""
        return read_table(
            self.root / "landmarks.parquet", ("StudyInstanceUID", "name", "z", "y", "x", "present")
        )


@lru_cache(maxsize=64)
def _open(path: str, _written_ns: int) -> blosc2.NDArray:
    # Opening costs more than reading three slices. A volume that was written anew is another one.
    # One thread each: the data loader's workers are the parallelism.
    return blosc2.open(path, mode="r", dparams=blosc2.DParams(nthreads=1))
