"""Audit every study of a data set and write tables of status and reasons.

    examine(data, out, depth="headers")     minutes for 7,279 studies: no pixels are read
    examine(data, out, depth="pixels")      also decodes every slice

Writes in `out`: `audit.parquet` and `audit.csv`, one row per study; `audit.json`, the number of
studies per status; and `exclusions.csv`, the studies that `prepare` leaves out. That file may be
edited; its hash goes into every manifest.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from data_prep.audit.rules import audit_headers, audit_study
from data_prep.dicom import Series
from data_prep.parallel.records import Records, run_studies
from data_prep.rsna import SOURCES, STUDY, StudyTask, find_studies
from data_prep.volume import Volume
from pekit.common.code_hash import module_hash
from pekit.common.errors import UserError, nearest
from pekit.common.files import remove_leftovers, write_csv, write_json, write_table
from pekit.dataset.schema import SLICE_LABEL

Depth = Literal["headers", "pixels"]
EXCLUSION_COLUMNS = (STUDY, "reasons")
COLUMNS = (
    STUDY, "source", "status", "reasons", "depth", "slices", "listed", "positive", "missing",
    "rows", "columns", "spacing_z", "spacing_y", "spacing_x", "syntax",
)  # fmt: skip


def examine(
    data: Path,
    out: Path,
    depth: Depth = "headers",
    sources: tuple[str, ...] = SOURCES,
    limit: int | None = None,
    workers: int = 1,
    progress: Callable[..., Iterable] | None = None,
) -> pd.DataFrame:
    """Audit every study of the data set in the RSNA layout at `data`.

    Args:
        data: the data set's folder.
        out: folder of the tables; after a kill the same call resumes.
        depth: `headers`, or `pixels` for headers and pixels.
        sources: parts of the data set, each with its CSV and folder.
        limit: at most this many studies of each source.
        workers: number of processes.
        progress: `progress(iterable, total=, desc=)`, e.g. tqdm.

    Returns:
        One row per study with COLUMNS: status, reasons, number of slices found, listed in the CSV,
        positive in the CSV and missing in gaps, matrix size, spacing in mm, transfer syntaxes.

    Raises:
        UserError: no data set there, a CSV that lacks columns, or an unknown depth.
    """
    if depth not in get_args(Depth):
        raise UserError(f"unknown depth {depth!r}: {nearest(depth, get_args(Depth))}")
    out = Path(out)
    tasks = find_studies(Path(data), sources, limit)
    records = Records(out / "records" / depth, rules())
    for folder in (out, records.folder):
        remove_leftovers(folder)
    run_studies(
        partial(examine_study, depth=depth), records.missing(tasks), records, workers, progress
    )
    table = pd.DataFrame([records.read(task)["study"] for task in tasks])
    table = table.reindex(columns=list(COLUMNS)).sort_values(["source", STUDY], ignore_index=True)
    write_table(out / "audit.parquet", table)
    write_csv(out / "audit.csv", table)
    excluded = table.loc[table["status"] == "excluded", list(EXCLUSION_COLUMNS)]
    write_csv(out / "exclusions.csv", excluded)
    counts = table["status"].value_counts().to_dict()
    write_json(out / "audit.json", {"depth": depth, "rules": rules(), "counts": counts})
    return table


def examine_study(task: StudyTask, depth: Depth) -> dict:
    """The record of one study: its row of the table, and whether its files could be read."""
    audit, read = audit_headers(task) if depth == "headers" else audit_study(task)
    labelled = SLICE_LABEL in task.rows
    row = {
        STUDY: task.study,
        "source": task.source,
        "status": audit.status,
        "reasons": "; ".join(audit.reasons),
        "depth": depth,
        "listed": len(task.rows),
        "positive": int((task.rows[SLICE_LABEL] == 1).sum()) if labelled else None,
    }
    return {"read": read is not None, "study": row | (_facts(read) if read is not None else {})}


def _facts(read: Series | Volume) -> dict:
    """Columns of the table that come from the files."""
    slices, rows, columns = read.shape
    return {
        "slices": slices,
        "missing": read.missing_slices,
        "rows": rows,
        "columns": columns,
        **dict(zip(("spacing_z", "spacing_y", "spacing_x"), read.spacing_mm, strict=True)),
        "syntax": ", ".join(read.syntaxes),
    }


def rules() -> str:
    """Version of the rules: a hash of their code."""
    return module_hash("data_prep.audit.rules")[:12]


def read_exclusions(path: Path) -> dict[str, str]:
    """Read the studies to leave out, UID -> reasons, from a CSV with EXCLUSION_COLUMNS.

    Raises:
        UserError: the file is missing, is not a CSV table, or lacks columns.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: run the audit first (11_audit)") from None
    except ValueError as error:
        raise UserError(f"{path} is not a CSV table ({error})") from None
    if missing := [name for name in EXCLUSION_COLUMNS if name not in table]:
        raise UserError(f"{path} lacks the columns {', '.join(missing)}")
    return dict(table[list(EXCLUSION_COLUMNS)].itertuples(index=False, name=None))


def reason_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Number of studies per reason; reasons that differ only in numbers are counted together.

    Args:
        table: as `examine` returns it.

    Returns:
        Columns reason, status, studies (their number), example (one of them); most frequent first.
    """
    reasons = table.assign(reason=table["reasons"].str.split("; ")).explode("reason")
    reasons = reasons[reasons["reason"] != ""]
    # `unreadable: ... (<file>)`: the file's UID is the study's own.
    kind = reasons["reason"].str.replace(r" \([0-9a-f]{12}\)$", "", regex=True)
    reasons["reason"] = kind.str.replace(r"\b\d+(\.\d+)?\b", "n", regex=True)
    counts = reasons.groupby(["reason", "status"], sort=False)[STUDY].agg(["nunique", "first"])
    counts = counts.rename(columns={"nunique": "studies", "first": "example"}).reset_index()
    return counts.sort_values("studies", ascending=False, kind="stable", ignore_index=True)
