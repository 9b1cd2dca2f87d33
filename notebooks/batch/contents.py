"""What a file or folder holds, in a few hashes: has the data changed that a stage reads?

Tables count by their content, other files (DICOM, masks) by name and size; dates do not count, so
that a copied folder is the same. The folder of a finished stage counts by its tables and by the
fingerprint of its run: its networks and volumes do not change without these.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pekit.common.files import file_hash, read_json

DONE = "metrics.json"  # the last thing that a stage's notebook writes
RECORD = "fingerprint.json"  # what made the results beside it (batch/record.py)
TABLES = (".csv", ".tsv", ".json", ".parquet", ".txt", ".yaml")
NO_RESULT = ("manifest.json", "params.json", "log.csv", "training.json", RECORD)
OTHERS = "other files"


def contents(path: Path) -> dict[str, str]:
    """Hash of each table in a folder, by name, and one of all else in it; or that of a file."""
    if path.is_file():
        return {"": file_hash(path)}
    if (path / DONE).exists():
        return stage_contents(path)
    found, listed = {}, hashlib.sha256()
    for file in _files(path):
        table = file.suffix.lower() in TABLES
        if table and file.parent == path:
            found[file.name] = file_hash(file)
            continue
        size = file.stat().st_size if file.exists() else "broken link"
        what = file_hash(file) if table and file.exists() else size
        listed.update(f"{file.relative_to(path).as_posix()}\t{what}\n".encode(errors="replace"))
    return found | {OTHERS: listed.hexdigest()}


def stage_contents(folder: Path) -> dict[str, str]:
    """Hash of each table at the top of a stage's folder, and the fingerprint of its run."""
    found = {
        file.name: file_hash(file)
        for file in sorted(folder.iterdir())
        if file.suffix in (".csv", ".json", ".parquet") and _is_result(file.name)
    }
    return found | {"fingerprint": read_record(folder).get("fingerprint", "")}


def read_record(folder: Path) -> dict[str, Any]:
    """The record of what made the results in a stage's folder; empty if there is none."""
    return read_json(folder / RECORD) if (folder / RECORD).exists() else {}


def _is_result(name: str) -> bool:
    return not (name in NO_RESULT or name.startswith(".") or ".edited." in name)


def _files(folder: Path, above: tuple[str, ...] = ()) -> Iterator[Path]:
    """All files in a folder, in order; a link to a folder above it is not followed."""
    real = os.path.realpath(folder)
    if real in above:
        return
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir():
                yield from _files(Path(entry.path), (*above, real))
            else:
                yield Path(entry.path)
