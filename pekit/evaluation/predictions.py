"""Predictions, checked once before they are evaluated: the right studies, each slice once.

30_predict writes one row per slice, one column per hop, and all parts. `long_predictions` makes of
them one long table, one row per model and slice, with the parts that an evaluation uses. Every
study of the split and every slice of the store must be in it, once and with its label: a study
that is silently missing would change every metric.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from pekit.common.files import read_json, read_table
from pekit.dataset.schema import SLICE_LABEL
from pekit.evaluation.checks import require_columns

STUDY, SLICE = "StudyInstanceUID", "SOPInstanceUID"
LONG = ("model", STUDY, SLICE, "z", "part", SLICE_LABEL, "prob")


def read_predictions(folder: Path, split_hash: str) -> pd.DataFrame:
    """The table that a 30_predict stage wrote, if it was made with this split.

    Raises:
        UserError: no table, or the table was made with another split.
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
        models: name -> table of predictions and the column to take. The table has one row per
            slice: StudyInstanceUID, SOPInstanceUID, z, part, pe_present_on_image, one column per
            hop.
        split: StudyInstanceUID and part of each study.
        slices: the store's slices: StudyInstanceUID, SOPInstanceUID, z, pe_present_on_image.
        parts: the parts of the split to use.

    Returns:
        Columns model, StudyInstanceUID, SOPInstanceUID, z, part, pe_present_on_image, prob; models
        in the given order, each sorted by study and z.

    Raises:
        UserError: no models; or, with the model's name: a missing column, a study or slice that is
            missing, duplicated, or not in the split or the store, another part, z or label than
            there, a slice without a label, or a probability that is NaN or outside [0,1].
    """
    parts = list(dict.fromkeys(parts))
    tables = []
    for model, (table, column) in models.items():
        columns = [STUDY, SLICE, "z", "part", SLICE_LABEL, column]
        try:
            require_columns(table, columns)
            used = table.loc[table["part"].isin(parts), columns]
            used = used.rename(columns={column: "prob"}).sort_values([STUDY, "z"])
            _check_rows(used)
            _check_split(used, split, parts)
            _check_slices(used, slices)
        except UserError as error:
            raise UserError(f"{model}: {error}") from None
        tables.append(used.assign(model=model))
    if not tables:
        raise UserError("no models to evaluate: give the predictions of at least one")
    return pd.concat(tables, ignore_index=True)[list(LONG)]


def check_long(predictions: pd.DataFrame, parts: Iterable[str]) -> None:
    """Refuse a long table that cannot be evaluated; for tables read without their split and store.

    Raises:
        UserError: a column is missing, there are no rows, a study is in two parts or in none of
            `parts`, a slice occurs twice, a label is neither 0 nor 1, a probability is NaN or
            outside [0,1], a part has one class only, or a model has other studies, slices or
            labels than the first.
    """
    require_columns(predictions, (name for name in LONG if name != SLICE))
    parts = set(parts)
    other = predictions.loc[~predictions["part"].isin(parts)]
    if len(other):
        row = other.iloc[0]
        raise UserError(f"study {row[STUDY]} is in part {row['part']!r}, used: {sorted(parts)}")
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
    """For one model: each slice once, each study in one part, labels, probabilities."""
    _check_unique(table)
    parts = table.groupby(STUDY)["part"].nunique()
    if (parts > 1).any():
        raise UserError(f"study {parts.index[parts > 1][0]} is in two parts: predict again")
    _check_labels(table)
    bad = table[~table["prob"].between(0, 1)]  # NaN is not between
    if len(bad):
        row = bad.iloc[0]
        raise UserError(
            f"study {row[STUDY]}: slice probability {row['prob']} is not in [0,1]: predict again"
        )


def _check_unique(table: pd.DataFrame) -> None:
    for key in ([STUDY, "z"], [SLICE]):
        if set(key) <= set(table) and (twice := table.duplicated(key)).any():
            row = table[twice].iloc[0]
            raise UserError(
                f"study {row[STUDY]}: slice z={row['z']} is predicted twice: predict again"
            )


def _check_labels(table: pd.DataFrame) -> None:
    bad = table.loc[~table[SLICE_LABEL].isin((0, 1)), STUDY]
    if len(bad):
        raise UserError(
            f"study {bad.iloc[0]} has slices without a label in {SLICE_LABEL}: only labelled "
            "studies can be evaluated"
        )


def _check_split(table: pd.DataFrame, split: pd.DataFrame, parts: list[str]) -> None:
    """For one model: exactly the studies that the split has in these parts."""
    members = {part: set(split.loc[split["part"] == part, STUDY]) for part in parts}
    given = {part: set(table.loc[table["part"] == part, STUDY]) for part in parts}
    part_of = split.set_index(STUDY)["part"]
    for part in parts:
        if not members[part]:
            raise UserError(
                f"the split has no part {part!r}: it has {', '.join(sorted(set(part_of)))}"
            )
        for study in sorted(given[part] - members[part]):
            where = f"in part {part_of[study]!r}" if study in part_of.index else "not in the split"
            raise UserError(
                f"study {study} is {where}, not in {part!r}: are the predictions of another run?"
            )
    for part in parts:
        if missing := sorted(members[part] - given[part]):
            raise UserError(
                f"{len(missing)} of {len(members[part])} studies of {part!r} have no predictions, "
                f"such as {missing[0]}: predict this part"
            )


def _check_slices(table: pd.DataFrame, slices: pd.DataFrame) -> None:
    """For one model: exactly the store's slices of these studies, with their z and labels."""
    stored = slices.loc[slices[STUDY].isin(table[STUDY]), [STUDY, SLICE, "z", SLICE_LABEL]]
    both = table.merge(
        stored, on=[STUDY, SLICE], how="outer", suffixes=("", "_store"), indicator=True
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
                f"study {rows.iloc[0][STUDY]}: {name} differs from the prepared study's: "
                "predict again"
            )


def probs_by_study(predictions: pd.DataFrame, hop: str) -> dict[str, np.ndarray]:
    """Slice probabilities `(Z,)` of each study, in z order.

    Args:
        predictions: one row per slice: StudyInstanceUID, z and one column per hop.
        hop: the column to take, such as "hop2".

    Raises:
        UserError: no such column, no rows, or a slice that occurs twice.
    """
    require_columns(predictions, (STUDY, "z", hop))
    _check_unique(predictions)
    ordered = predictions.sort_values([STUDY, "z"])
    return {study: group.to_numpy() for study, group in ordered.groupby(STUDY)[hop]}


def study_truth(predictions: pd.DataFrame) -> pd.Series:
    """Whether each study has a slice with PE: bool by StudyInstanceUID.

    Raises:
        UserError: no label column, no rows, or a slice without a label.
    """
    require_columns(predictions, (STUDY, SLICE_LABEL))
    _check_labels(predictions)
    return predictions.groupby(STUDY)[SLICE_LABEL].max().astype(bool)


def cohort(predictions: pd.DataFrame) -> pd.DataFrame:
    """The studies of a table of predictions, by StudyInstanceUID: part and truth (bool).

    Raises:
        UserError: as `study_truth`.
    """
    truth = study_truth(predictions)
    return pd.DataFrame({"part": predictions.groupby(STUDY)["part"].first(), "truth": truth})
