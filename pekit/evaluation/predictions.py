"""Predictions checked before they are judged: the right studies, each slice once, probabilities.

The tables that 30_predict writes have a column a hop and all parts; here they become one long
table, a row a model and slice, of the parts that an evaluation uses. Against the split and the
store every study and slice must be there, once and with its label: a study that is missing without
a word would make any metric better or worse.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from pekit.common.files import read_json, read_table
from pekit.dataset.schema import SLICE_LABEL

STUDY, SLICE = "StudyInstanceUID", "SOPInstanceUID"
LONG = ("model", STUDY, SLICE, "z", "part", SLICE_LABEL, "prob")


def read_predictions(folder: Path, split_hash: str) -> pd.DataFrame:
    """The table that a 30_predict stage wrote, known to be of the split at hand.

    Raises:
        UserError: no table, or one that was made with another split.
    """
    folder = Path(folder)
    made_with = read_json(folder / "manifest.json").get("inputs", {}).get("split", "")
    made_with = made_with.removeprefix("sha256:")
    if made_with != split_hash:
        raise UserError(
            f"{folder} was made with another split ({made_with[:12] or 'unknown'}) than this one "
            f"({split_hash[:12]}): run 30_predict again"
        )
    return read_table(folder / "predictions.parquet", (STUDY, SLICE, "z", "part", SLICE_LABEL))


def long_predictions(
    models: Mapping[str, tuple[pd.DataFrame, str]],
    split: pd.DataFrame,
    slices: pd.DataFrame,
    parts: Iterable[str],
) -> pd.DataFrame:
    """One table of all models' probabilities, checked against the split and the store.

    Args:
        models: by name, a table of predictions (a row a slice: StudyInstanceUID, SOPInstanceUID,
            z, part, pe_present_on_image, a column a hop) and the column to take.
        split: StudyInstanceUID and part of each study.
        slices: the store's: StudyInstanceUID, SOPInstanceUID, z, pe_present_on_image.
        parts: of the split, to be used.

    Returns:
        Columns model, StudyInstanceUID, SOPInstanceUID, z, part, pe_present_on_image, prob, by
        model in the given order, then study and z.

    Raises:
        UserError: as `check_predictions`, the model named; or no models.
    """
    parts = list(dict.fromkeys(parts))
    tables = []
    for model, (table, column) in models.items():
        columns = [STUDY, SLICE, "z", "part", SLICE_LABEL]
        missing = [name for name in (*columns, column) if name not in table]
        if missing:
            raise UserError(f"{model}: the predictions lack {', '.join(missing)}: predict again")
        used = table.loc[table["part"].isin(parts), [*columns, column]]
        used = used.rename(columns={column: "prob"}).sort_values([STUDY, "z"])
        try:
            _check_rows(used)
            _check_split(used, split, parts)
            _check_slices(used, slices)
        except UserError as error:
            raise UserError(f"{model}: {error}") from None
        tables.append(used.assign(model=model))
    if not tables:
        raise UserError("no models to judge: give the predictions of at least one")
    return pd.concat(tables, ignore_index=True)[list(LONG)]


def check_long(predictions: pd.DataFrame, parts: Iterable[str]) -> None:
    """Refuse a long table that cannot be judged, whatever store it came from.

    Raises:
        UserError: a column missing, no rows, a study in two parts or in none of `parts`, a slice
            twice, a label that is neither 0 nor 1, a probability that is NaN or outside [0,1], a
            part of one class only, or models of other studies, slices or labels than the first.
    """
    missing = [name for name in LONG if name != SLICE and name not in predictions]
    if missing:
        raise UserError(f"the predictions lack {', '.join(missing)}: they have {list(predictions)}")
    if predictions.empty:
        raise UserError("the predictions are empty: predict some studies first")
    parts = set(parts)
    other = predictions.loc[~predictions["part"].isin(parts)]
    if len(other):
        row = other.iloc[0]
        raise UserError(f"study {row[STUDY]} is of part {row['part']!r}, used: {sorted(parts)}")
    first = None
    for model, table in predictions.groupby("model", sort=False):
        try:
            _check_rows(table)
        except UserError as error:
            raise UserError(f"{model}: {error}") from None
        rows = table[[STUDY, "z", "part", SLICE_LABEL]].sort_values([STUDY, "z"])
        rows = rows.reset_index(drop=True)
        if first is None:
            first, name = rows, model
        elif not rows.equals(first):
            raise UserError(
                f"{model} and {name} have other studies, slices or labels: predict the same parts "
                "with both"
            )
    for part, studies in first.groupby("part"):
        truth = studies.groupby(STUDY)[SLICE_LABEL].max()
        if truth.nunique() < 2:
            kind = "with" if truth.iloc[0] else "without"
            raise UserError(f"all {len(truth)} studies of {part!r} are {kind} PE: use both kinds")


def _check_rows(table: pd.DataFrame) -> None:
    """Of one model: each slice once, in one part, with a label and a probability."""
    for key in ([STUDY, "z"], [SLICE]):
        if set(key) <= set(table) and (twice := table.duplicated(key)).any():
            row = table[twice].iloc[0]
            raise UserError(
                f"study {row[STUDY]}: slice z={row['z']} is predicted twice; predict again"
            )
    two = table.groupby(STUDY)["part"].nunique()
    if (two > 1).any():
        raise UserError(f"study {two.index[two > 1][0]} is in two parts: predict again")
    bad = table[~table[SLICE_LABEL].isin((0, 1))]
    if len(bad):
        raise UserError(
            f"study {bad.iloc[0][STUDY]} has slices without a label in {SLICE_LABEL}: only "
            "labelled studies can be judged"
        )
    bad = table[~table["prob"].between(0, 1)]  # NaN is not between
    if len(bad):
        row = bad.iloc[0]
        raise UserError(
            f"study {row[STUDY]}: slice probability {row['prob']} is not in [0,1]; predict again"
        )


def _check_split(table: pd.DataFrame, split: pd.DataFrame, parts: list[str]) -> None:
    """Of one model: the studies of these parts of the split, all of them, and no others."""
    members = {part: set(split.loc[split["part"] == part, STUDY]) for part in parts}
    given = {part: set(table.loc[table["part"] == part, STUDY]) for part in parts}
    part_of = split.set_index(STUDY)["part"]
    for part in parts:
        if not members[part]:
            raise UserError(
                f"the split has no part {part!r}: it has {', '.join(sorted(set(part_of)))}"
            )
        for study in sorted(given[part] - members[part]):
            where = f"of part {part_of[study]!r}" if study in part_of.index else "not in the split"
            raise UserError(
                f"study {study} is {where}, not of {part!r}: predictions of another run?"
            )
    for part in parts:
        if missing := sorted(members[part] - given[part]):
            raise UserError(
                f"{len(missing)} of {len(members[part])} studies of {part!r} have no predictions, "
                f"such as {missing[0]}: predict this part"
            )


def _check_slices(table: pd.DataFrame, slices: pd.DataFrame) -> None:
    """Of one model: exactly the store's slices of these studies, with their z and labels."""
    theirs = slices.loc[slices[STUDY].isin(table[STUDY]), [STUDY, SLICE, "z", SLICE_LABEL]]
    both = table.merge(
        theirs, on=[STUDY, SLICE], how="outer", suffixes=("", "_store"), indicator=True
    )
    for side, problem in (
        ("right_only", "has slices without a prediction"),
        ("left_only", "has predicted slices that the store lacks"),
    ):
        rows = both[both["_merge"] == side]
        if len(rows):
            raise UserError(f"study {rows.iloc[0][STUDY]} {problem}: predict this study again")
    for name in ("z", SLICE_LABEL):
        rows = both[both[name] != both[f"{name}_store"]]
        if len(rows):
            raise UserError(
                f"study {rows.iloc[0][STUDY]}: {name} differs from the prepared study's; "
                "predict again"
            )


def probs_by_study(predictions: pd.DataFrame, hop: str) -> dict[str, np.ndarray]:
    """Slice probabilities of each study, in z order, out of a predictions table.

    Args:
        predictions: a row a slice, with StudyInstanceUID, z and a column for each hop.
        hop: the column to take, such as "hop2".

    Raises:
        UserError: no such column, no rows, or a slice that occurs twice.
    """
    _require(predictions, ("StudyInstanceUID", "z", hop))
    if predictions.duplicated(["StudyInstanceUID", "z"]).any():
        twice = predictions[predictions.duplicated(["StudyInstanceUID", "z"])].iloc[0]
        raise UserError(
            f"study {twice.StudyInstanceUID}: slice z={twice.z} is predicted twice; "
            "predict this study again"
        )
    ordered = predictions.sort_values(["StudyInstanceUID", "z"])
    return {study: group.to_numpy() for study, group in ordered.groupby("StudyInstanceUID")[hop]}


def study_truth(predictions: pd.DataFrame) -> pd.Series:
    """Whether each study of a predictions table has a positive slice, by StudyInstanceUID.

    Raises:
        UserError: no label column, or a slice without a label.
    """
    _require(predictions, ("StudyInstanceUID", SLICE_LABEL))
    unknown = predictions.loc[~predictions[SLICE_LABEL].isin((0, 1)), "StudyInstanceUID"]
    if len(unknown):
        raise UserError(
            f"study {unknown.iloc[0]} has slices without a label in {SLICE_LABEL}: "
            "only labelled studies have a truth"
        )
    return predictions.groupby("StudyInstanceUID")[SLICE_LABEL].max().astype(bool)


def _require(table: pd.DataFrame, columns: tuple[str, ...]) -> None:
    missing = [name for name in columns if name not in table]
    if missing:
        raise UserError(f"the predictions lack {', '.join(missing)}: they have {list(table)}")
    if table.empty:
        raise UserError("the predictions are empty: predict some studies first")
