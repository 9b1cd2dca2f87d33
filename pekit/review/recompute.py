"""Recompute tables from the predictions in a bundle, and compare them cell by cell."""

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pekit.common.errors import UserError
from pekit.review.bundle import STAGES

# Relative; the last digits of a float may differ between machines.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Check:
    """The result of one check; `equal` is None if it cannot be checked."""

    name: str
    equal: bool | None
    text: str

    def __str__(self) -> str:
        word = {True: "equal", False: "FAILED", None: "not checked"}[self.equal]
        return f"{word:11}  {self.name}: {self.text}"


def _evaluation(folder: Path) -> Mapping[str, pd.DataFrame]:
    from pekit.evaluation.evaluate import evaluate, read_inputs

    return evaluate(*read_inputs(folder)).tables


def _ablation(folder: Path) -> Mapping[str, pd.DataFrame]:
    from pekit.evaluation.ablation import ablation, read_inputs

    return ablation(*read_inputs(folder))


# By a file that marks the kind of stage: the function that reads the stage's folder and returns the
# content of tables/<name>.csv by name.
Recompute = Callable[[Path], Mapping[str, pd.DataFrame]]
KINDS: dict[str, Recompute] = {"evaluation.json": _evaluation, "ablation.json": _ablation}


def table_checks(bundle: Path, stage: str) -> Iterator[Check]:
    """Compare every table of a stage that can be recomputed with the recomputed table.

    table.csv, if the stage wrote one, must equal the table `summary`.
    """
    folder = bundle / STAGES / stage
    for marker, recompute in KINDS.items():
        if not (folder / marker).exists():
            continue
        try:
            tables = recompute(folder)
        except UserError as error:
            yield Check(f"{STAGES}/{stage}", False, f"it cannot be recomputed: {error}")
            continue
        for name, table in tables.items():
            path = folder / "tables" / f"{name}.csv"
            yield _table(path, table, path.relative_to(bundle).as_posix())
        short = folder / "table.csv"
        if short.exists() and "summary" in tables:
            yield _table(short, tables["summary"], short.relative_to(bundle).as_posix())


def _table(path: Path, recomputed: pd.DataFrame, label: str) -> Check:
    if not path.exists():
        return Check(label, False, "it is not in the bundle")
    computed = _texts(io.StringIO(recomputed.to_csv(index=False)))
    try:
        difference = first_difference(_texts(path), computed)
    except ValueError:  # includes pandas' reading errors
        return Check(label, False, "it is not a CSV table")
    numbers = sum(bool(re.search(r"\d", cell)) for cell in computed.to_numpy().ravel())
    text = difference or f"{numbers} cells with numbers, recomputed from the predictions"
    return Check(label, not difference, text)


def first_difference(shown: pd.DataFrame, recomputed: pd.DataFrame) -> str:
    """The first difference between two tables of texts, in words; empty if they are equal.

    Numbers with a decimal point are equal within a relative tolerance of 1e-6.
    """
    if list(shown.columns) != list(recomputed.columns):
        return f"its columns are {list(shown.columns)}, recomputed {list(recomputed.columns)}"
    for row, (ours, theirs) in enumerate(
        zip(shown.itertuples(index=False), recomputed.itertuples(index=False), strict=False)
    ):
        for column, here, there in zip(shown.columns, ours, theirs, strict=True):
            if not _same(here, there):
                about = ", ".join([cell for cell in ours if cell and not _is_number(cell)][:3])
                return (
                    f"row {row + 1} ({about}), column {column}: "
                    f"{here or 'nothing'} in the table, {there or 'nothing'} recomputed"
                )
    if len(shown) != len(recomputed):
        return f"it has {len(shown)} rows, recomputed {len(recomputed)}"
    return ""


def _same(here: str, there: str) -> bool:
    if here == there:
        return True
    # Whole numbers and UIDs (12e456789012 is one) must be the same text.
    if not (_is_number(here) and _is_number(there) and {".", "e"} & set(here + there)):
        return False
    return math.isclose(float(here), float(there), rel_tol=TOLERANCE, abs_tol=1e-12)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d+)?(e[+-]\d+)?", text) is not None


def _texts(csv: Path | io.StringIO) -> pd.DataFrame:
    return pd.read_csv(csv, dtype=str, keep_default_na=False)
