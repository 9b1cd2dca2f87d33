"""Prepared studies on disk: one blosc2 volume per study and parquet tables, written atomically.

A store is a folder:

    store.json               version and the settings that made it
    volumes/<study>.b2nd     (Z, Y, X) int16 HU, cropped; chunk 16 slices, block 1 slice
    studies.parquet          one row per study: labels, status, crop box, spacing
    slices.parquet           one row per slice: UIDs, z index in the whole volume, label
    landmarks.parquet        one row per study and landmark, in voxels of the whole volume
"""

import json
from functools import lru_cache
from pathlib import Path

import blosc2
import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from pekit.common.files import atomic, hash_path, read_json, read_table, write_json
from pekit.dataset.schema import BOX_COLUMNS, UIDS

VERSION = 2
READABLE = (1, 2)  # in version 1 the column `status` of studies is called `verdict`


class Store:
    """A folder of prepared studies; `data_prep.prepare.studies` fills it.

    Args:
        root: the store's folder.

    Raises:
        UserError: the folder is not a store, or has another version.
    """

    def __init__(self, root: Path):
        self.root = Path(root)
        self.settings = read_json(self.root / "store.json")
        if self.settings.get("version") not in READABLE:
            raise UserError(
                f"{self.root} is a store of version {self.settings.get('version')}, this kit reads "
                f"versions {', '.join(map(str, READABLE))}: prepare it again"
            )

    @classmethod
    def create(cls, root: Path, settings: dict) -> "Store":
        """Open or create the store at `root`, for studies prepared with `settings`.

        If the store was made with other settings, its tables are deleted, so that studies of
        different settings are not mixed.
        """
        root = Path(root)
        wanted = json.loads(json.dumps({"version": VERSION, **settings}))
        path = root / "store.json"
        if not path.exists() or read_json(path) != wanted:
            for name in ("studies", "slices", "landmarks"):
                (root / f"{name}.parquet").unlink(missing_ok=True)
            write_json(path, wanted)
        return cls(root)

    def content_hash(self) -> str:
        """Hash of settings and tables, and of names and sizes of the volumes."""
        names = ("store.json", "studies.parquet", "slices.parquet", "landmarks.parquet", "volumes")
        return " ".join(hash_path(self.root / name) for name in names)

    def volume_path(self, study: str) -> Path:
        """Path of the volume of `study`."""
        return self.root / "volumes" / f"{study}.b2nd"

    def write_volume(self, study: str, hu: np.ndarray) -> None:
        """Write a study's cropped volume `(Z, Y, X)` int16 HU, atomically.

        Raises:
            UserError: another number of axes or another dtype.
        """
        if hu.dtype != np.int16 or hu.ndim != 3:
            raise UserError(f"study {study}: expected (Z, Y, X) int16, got {hu.shape} {hu.dtype}")
        with atomic(self.volume_path(study)) as beside:
            blosc2.asarray(
                np.ascontiguousarray(hu),
                urlpath=str(beside),
                chunks=(min(16, hu.shape[0]), *hu.shape[1:]),
                blocks=(1, *hu.shape[1:]),
                # One thread: studies run in parallel, and the bytes are reproducible.
                cparams=blosc2.CParams(
                    codec=blosc2.Codec.ZSTD,
                    clevel=1,
                    filters=[blosc2.Filter.BITSHUFFLE],
                    nthreads=1,
                ),
            )

    def read_volume(self, study: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Slices `start` to `stop` of a study's cropped volume `(Z, Y, X)` int16 HU.

        Raises:
            UserError: the volume is missing or damaged.
        """
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
        """One row per study."""
        status = "verdict" if self.settings["version"] == 1 else "status"
        columns = ("StudyInstanceUID", status, *BOX_COLUMNS)
        table = read_table(self.root / "studies.parquet", columns)
        return table.rename(columns={status: "status"})

    @property
    def slices(self) -> pd.DataFrame:
        """One row per slice, sorted by study and z."""
        return read_table(self.root / "slices.parquet", (*UIDS, "z"))

    @property
    def landmarks(self) -> pd.DataFrame:
        """One row per study and landmark."""
        return read_table(
            self.root / "landmarks.parquet", ("StudyInstanceUID", "name", "z", "y", "x", "present")
        )


@lru_cache(maxsize=64)
def _open(path: str, _written_ns: int) -> blosc2.NDArray:
    # Cached, because opening a volume takes longer than reading three slices; the time of writing
    # is part of the key. One thread: the workers of the data loader run in parallel.
    return blosc2.open(path, mode="r", dparams=blosc2.DParams(nthreads=1))
