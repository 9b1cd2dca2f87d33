"""Draw the split into train, validation and test studies; it is drawn once and frozen to a file.

As in the paper (section IV): excluded studies are in no part, indeterminate exams are in the
training part only (the paper leaves 14 of them out of validation; the test part is treated alike).
The sizes of validation and test are exact and train is the rest, which gives the paper's
6000 / 836. Parts and folds are stratified by exam type and by the sides of the emboli (strata.py).
The train studies are assigned to folds 0 .. k-1 for cross-validation; validation and test studies
have fold -1, since no fold uses them.

Some RSNA studies are also in other public data sets (INSPECT, PENet): a model trained on one and
evaluated on the other would have seen them. Such studies, listed by the user, are marked in the
split.
"""

import warnings
from collections.abc import Collection

import numpy as np
import pandas as pd

from data_prep.split.strata import STRATA, draw_evenly, row_of_strata, stratum
from pekit.common.errors import UserError
from pekit.dataset.schema import public_uid
from pekit.dataset.split import PARTS


def make_split(
    studies: pd.DataFrame,
    validation: float,
    test: float,
    folds: int,
    seed: int,
    *,
    shared: Collection[str] = (),
    keep_shared_in_train: bool = False,
) -> pd.DataFrame:
    """Draw the split; it does not depend on the order of the rows.

    Args:
        studies: one row per study: StudyInstanceUID, negative_exam_for_pe, indeterminate, the
            three locations and status.
        validation: a number of studies (int), or a fraction below 1 (float) of all used studies.
        test: likewise; 0 for none.
        folds: number of folds of the train studies for cross-validation, at least 1.
        seed: random seed of the draw.
        shared: StudyInstanceUIDs that are also in another data set (shared.py). They are marked,
            and a warning counts those in validation and test.
        keep_shared_in_train: draw validation and test from the other studies only.

    Returns:
        StudyInstanceUID, part (train, validation, test), fold, shared (0 or 1); sorted by
        StudyInstanceUID.

    Raises:
        UserError: a column is missing, a study occurs twice, or the sizes cannot be met.
    """
    if folds < 1:
        raise UserError(f"folds = {folds}: must be at least 1")
    used = _used(studies)
    strata = stratum(used).to_numpy()
    known = used["StudyInstanceUID"].isin(list(shared)).to_numpy()
    n_validation = _count(validation, len(used), "validation")
    n_test = _count(test, len(used), "test")

    rng = np.random.default_rng(seed)
    row = row_of_strata(strata, rng)
    may_be_held_out = strata[row] != "indeterminate"
    why = "neither excluded nor indeterminate"
    if keep_shared_in_train:
        may_be_held_out &= ~known[row]
        why = "neither excluded nor indeterminate nor shared"
    eligible = row[may_be_held_out]
    if n_validation + n_test >= len(eligible):
        raise UserError(
            f"validation {n_validation} and test {n_test} leave nothing to train on: "
            f"{len(eligible)} studies are {why}"
        )
    part = np.full(len(used), "train", dtype=object)
    part[draw_evenly(eligible, n_test, rng)] = "test"
    left = eligible[part[eligible] == "train"]
    part[draw_evenly(left, n_validation, rng)] = "validation"
    fold = np.full(len(used), -1)
    train = row[part[row] == "train"]
    fold[train] = np.arange(len(train)) % folds  # in turn along the row: stratified
    split = pd.DataFrame(
        {
            "StudyInstanceUID": used["StudyInstanceUID"].to_numpy(),
            "part": part.astype(str),
            "fold": fold,
            "shared": known.astype(int),
        }
    )
    _warn_of_shared(split)
    return split


def split_balance(studies: pd.DataFrame, split: pd.DataFrame) -> pd.DataFrame:
    """Number of studies per stratum in each part, and their percentage of the part.

    Args:
        studies: one row per study: StudyInstanceUID and the labels.
        split: of these studies; those that are in no part are counted as `excluded`.

    Returns:
        One row per stratum that occurs, and `all`; columns `<part>` and `<part>_percent` for each
        part that occurs.
    """
    part = studies["StudyInstanceUID"].map(split.set_index("StudyInstanceUID")["part"])
    counts = pd.crosstab(stratum(studies).to_numpy(), part.fillna("excluded").to_numpy())
    counts = counts.reindex(
        index=[name for name in STRATA if name in counts.index],
        columns=[name for name in (*PARTS, "excluded") if name in counts],
    )
    counts.loc["all"] = counts.sum()
    percent = (100 * counts / counts.loc["all"]).add_suffix("_percent")
    both = [name for part in counts for name in (part, f"{part}_percent")]
    return pd.concat([counts, percent], axis=1)[both].rename_axis(index="stratum", columns=None)


def _used(studies: pd.DataFrame) -> pd.DataFrame:
    """The studies that are not excluded, sorted by UID."""
    if missing := [name for name in ("StudyInstanceUID", "status") if name not in studies]:
        raise UserError(f"the table of studies lacks the columns {', '.join(missing)}")
    twice = studies["StudyInstanceUID"].duplicated()
    if twice.any():
        uid = public_uid(str(studies["StudyInstanceUID"][twice].iloc[0]))
        raise UserError(f"study {uid} occurs twice")
    return studies[studies["status"] != "excluded"].sort_values("StudyInstanceUID")


def _warn_of_shared(split: pd.DataFrame) -> None:
    """Warn how many validation and test studies are also in another data set."""
    counts = split[split["part"] != "train"].groupby("part")["shared"].agg(["sum", "size"])
    told = [f"{n} of {size} {part} studies" for part, n, size in counts.itertuples() if n]
    if told:
        warnings.warn(
            f"{' and '.join(told)} are in another data set too: a model trained on that one has "
            "seen them. Set keep_shared_in_train=True to draw these parts from the other studies",
            stacklevel=3,
        )


def _count(size: float, total: int, name: str) -> int:
    """A number of studies from a number or a fraction."""
    whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if not whole and not (isinstance(size, float) and 0 <= size < 1):
        raise UserError(
            f"{name} = {size!r}: must be a whole number of studies, or a fraction below 1"
        )
    if size < 0:
        raise UserError(f"{name} = {size}: must not be negative")
    return int(size) if whole else round(size * total)
