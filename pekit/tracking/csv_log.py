"""Log of a run as CSV, complete up to the last row if the process is killed; values for JSON."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pekit.common.files import atomic


class CsvLog:
    """A CSV file of rows with a `step` and any other columns, flushed row by row.

    A row with a new column rewrites the file with that column.

    Args:
        resume: keep an existing file; rows from the first new step on are replaced. Without it, an
            existing file is deleted.
    """

    def __init__(self, path: Path, resume: bool = False) -> None:
        self.path = path
        self._columns: list[str] = []
        self._resumed = resume and path.exists()
        if self._resumed:
            with path.open(newline="") as file:
                self._columns = next(csv.reader(file), [])
        else:
            path.unlink(missing_ok=True)
        self._file = path.open("a", newline="")

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row; it must have a `step`."""
        new = [name for name in row if name not in self._columns]
        if new or self._resumed:
            # A resumed stage repeats the steps after its checkpoint: their old rows are dropped.
            self._rewrite(new, before=row["step"] if self._resumed else None)
            self._resumed = False
        csv.DictWriter(self._file, self._columns, lineterminator="\n").writerow(row)
        self._file.flush()

    def _rewrite(self, new: list[str], before: int | None) -> None:
        self._file.close()
        with self.path.open(newline="") as file:
            rows = [r for r in csv.DictReader(file) if before is None or int(r["step"]) < before]
        self._columns += new
        with atomic(self.path) as beside, beside.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        self._file = self.path.open("a", newline="")

    def close(self) -> None:
        self._file.close()


def to_json(value: Any) -> Any:
    """Plain JSON values: numpy and torch scalars as numbers, paths as text, NaN as None."""
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"{value!r} of type {type(value).__name__} cannot be written as JSON")


def without_paths(value: Any) -> Any:
    """The value without texts that look like a path, so that no path leaves this machine."""
    if isinstance(value, Mapping):
        return {
            key: without_paths(item)
            for key, item in value.items()
            if not (isinstance(item, str) and _looks_like_path(item))
        }
    if isinstance(value, list):
        texts = [item for item in value if not (isinstance(item, str) and _looks_like_path(item))]
        return [without_paths(item) for item in texts]
    return value


def _looks_like_path(text: str) -> bool:
    return "/" in text or "\\" in text or text.startswith(("~", "."))
