"""Find the studies of a data set in the RSNA layout, and contradictions between CSVs and folders.

train.csv   train/<StudyInstanceUID>/<SeriesInstanceUID>/<SOPInstanceUID>.dcm
test.csv    test/...
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from pekit.dataset.schema import LABELS, UIDS, public_uid

STUDY, SERIES, SOP = UIDS
SOURCES = ("train", "test")


@dataclass(frozen=True)
class StudyTask:
    """One study of a data set: what is known before any of its files is opened.

    Attributes:
        study: its UID in the form that may be shared and used as a file name (`public_uid`).
        source: `train` or `test`.
        folder: its files; the folder may be missing.
        rows: its rows of the CSV; empty if the CSV does not list it.
        problems: reasons that exclude it already, e.g. that both CSVs list it.
        landmarks_mm: name -> LPS (z, y, x) mm, if landmarks come from a CSV.
    """

    study: str
    source: str
    folder: Path
    rows: pd.DataFrame
    problems: tuple[str, ...] = ()
    landmarks_mm: dict[str, tuple[float, float, float]] | None = None


def find_studies(
    data: Path, sources: tuple[str, ...] = SOURCES, limit: int | None = None
) -> list[StudyTask]:
    """The studies of a data set, each once, sorted by source and UID.

    A listed study without a folder and a folder that is not listed are returned as well: the audit
    excludes them with a reason.

    Args:
        data: folder in the RSNA layout.
        sources: `train`, `test` or both, each with a CSV and a folder.
        limit: at most this many studies of each source, for a quick try.

    Raises:
        UserError: a CSV is missing, unreadable or lacks columns.
    """
    data = Path(data)
    if unknown := set(sources) - set(SOURCES):
        raise UserError(f"unknown source {sorted(unknown)[0]!r}: choose from {', '.join(SOURCES)}")
    found: dict[str, StudyTask] = {}
    for source in sources:
        for task in list(_source_studies(data, source))[:limit]:
            if task.study in found:
                first = found[task.study]
                problem = f"listed as {first.source} and as {source}: two studies with one UID"
                task = replace(first, problems=(*first.problems, problem))
            found[task.study] = task
    return list(found.values())


def read_listing(data: Path, source: str) -> pd.DataFrame:
    """The rows of `<source>.csv`, sorted by study; UIDs are text, labels int8.

    Raises:
        UserError: the file is missing, is not a CSV table, or lacks columns.
    """
    return _coded_listing(data, source)[0]


def _coded_listing(data: Path, source: str) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """`read_listing`, and the number of each row's study, series and slice among all there are."""
    path = Path(data) / f"{source}.csv"
    try:
        # The default engine takes a row with a value too many for an index, silently.
        table = pd.read_csv(
            path, dtype=dict.fromkeys(UIDS, str), keep_default_na=False, engine="pyarrow"
        )
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist: set DATA to a folder in the RSNA layout (train.csv, train/)"
        ) from None
    except ValueError as error:  # pandas' parser errors and bad encodings are ValueErrors
        raise UserError(f"{path} is not a CSV table ({error})") from None
    columns = UIDS if source == "test" else (*UIDS, *LABELS)
    if absent := [name for name in columns if name not in table]:
        raise UserError(f"{path} lacks the columns {', '.join(absent)}")
    table = table[list(columns)]
    whole = table.select_dtypes("int64")
    small = [name for name in whole if whole[name].between(-128, 127).all()]
    table = table.astype(dict.fromkeys(small, "int8"))
    codes, values = {}, {}
    for name in UIDS:
        codes[name], values[name] = pd.factorize(
            table[name], sort=name == STUDY, use_na_sentinel=False
        )
    order = np.argsort(codes[STUDY], kind="stable")
    codes = {name: code[order] for name, code in codes.items()}
    # Python's own text in one block: pandas cuts it into studies much faster than its text type.
    uids = {name: values[name].to_numpy(object)[code] for name, code in codes.items()}
    rest = table.drop(columns=list(UIDS)).take(order).reset_index(drop=True)
    return pd.concat([pd.DataFrame(uids, dtype=object), rest], axis=1), codes


def _source_studies(data: Path, source: str) -> Iterator[StudyTask]:
    table, codes = _coded_listing(data, source)
    root = data / source
    # Broken links count too: the audit reports them.
    folders = {entry.name for entry in root.glob("*") if entry.is_dir() or entry.is_symlink()}
    study = codes[STUDY]
    edges = np.searchsorted(study, np.arange(study.max(initial=-1) + 2))
    uids = table[STUDY].to_numpy()[edges[:-1]]
    rows = dict(zip(uids, pairwise(edges), strict=True))
    problems = _listing_problems(codes, uids)
    for uid in sorted(rows.keys() | folders):
        plain = Path(uid).name == uid and uid not in ("", ".", "..")
        yield StudyTask(
            public_uid(uid),
            source,
            # A UID from the CSV must not lead out of the data set's folder.
            root / (uid if plain else public_uid(uid)),
            table.iloc[slice(*rows.get(uid, (0, 0)))],
            problems.get(uid, ()) if plain else ("its StudyInstanceUID is not a plain name",),
        )


def _listing_problems(codes: dict[str, np.ndarray], uids: np.ndarray) -> dict[str, tuple[str, ...]]:
    """Contradictions between the studies of one CSV, by study.

    Args:
        codes: number of each row's study, series and slice, from `_coded_listing`.
        uids: the studies.
    """
    found: dict[str, tuple[str, ...]] = {}
    for column in (SERIES, SOP):
        code, study = codes[column], codes[STUDY]
        count = code.max(initial=-1) + 1
        first, last = np.full(count, len(uids)), np.full(count, -1)
        np.minimum.at(first, code, study)
        np.maximum.at(last, code, study)
        for uid in uids[np.unique(study[(first < last)[code]])]:
            found[uid] = (*found.get(uid, ()), f"shares a {column} with another study")
    return found
