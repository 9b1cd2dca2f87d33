"""Log of a run as CSV, complete up to the last row if the process is killed; values for JSON."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pekit.common.files import atomic


class CsvLog:
    """A CSV file of rows with a `step` and any other columns; an existing file is deleted.

    A row takes the place of an earlier one with the same step, columns and texts: a training that
    is resumed or repeated logs its epochs again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[tuple, dict[str, Any]] = {}
        self._columns: list[str] = []
        path.write_text("")

    def write(self, row: Mapping[str, Any]) -> bool:
        """Write a row to disk; it must have a `step`. False if it is there already."""
        texts = (value for value in row.values() if isinstance(value, str))
        key = (row["step"], tuple(row), *texts)
        if self._rows.get(key) == row:
            return False
        new = [name for name in row if name not in self._columns]
        rewritten = bool(new) or key in self._rows
        self._rows[key] = dict(row)
        self._columns += new
        if rewritten:
            with atomic(self.path) as beside, beside.open("w", newline="") as file:
                writer = csv.DictWriter(file, self._columns, lineterminator="\n")
                writer.writeheader()
                writer.writerows(self._rows.values())
        else:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns, lineterminator="\n").writerow(row)
        return True


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
