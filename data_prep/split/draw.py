"""The split into train, validation and test studies, drawn once and frozen to a file.

As in the paper (section IV): excluded studies are in no part, indeterminate exams only in train
(the paper leaves 14 of them out of validation; a test part must be as clean). Sizes of validation
and test are exact and train is the rest, which gives the paper's 6000 / 836. Parts and folds are
stratified by exam type and by the sides of the emboli (strata.py). The train studies
are dealt into folds 0 .. k-1 for cross-validation; validation and test studies have fold -1,
since they are held out from all of it.

Some RSNA studies are in other public data sets too (INSPECT, PENet), so that a model judged on
both has seen what it is judged on. Such studies, listed by the user, are marked in the split.
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
    """Draw the split; the same for any order of the rows.

    Args:
        studies: StudyInstanceUID, negative_exam_for_pe, indeterminate, the three locations and
            status, a row a study.
        validation: a number of studies (int), or a fraction below 1 (float) of all that are used.
        test: likewise; 0 for none.
        folds: parts of the train studies for cross-validation, at least 1.
        seed: of the draw.
        shared: StudyInstanceUIDs known to be in another data set too (shared.py). They are
            marked, and a warning counts those that are held out.
        keep_shared_in_train: draw validation and test from the other studies alone.

    Returns:
        StudyInstanceUID, part (train, validation, test), fold, shared (0 or 1); sorted by
        StudyInstanceUID.

    Raises:
        UserError: a column is missing, a study occurs twice, or the sizes cannot be met.
    """
    if folds < 1:
        raise UserError(f"folds = {folds}: at least 1")
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
    fold[train] = np.arange(len(train)) % folds  # dealt like cards along the row
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
    """How many studies of each stratum each part has, and what percentage of the part that is.

    Args:
        studies: StudyInstanceUID and the labels, a row a study.
        split: of these studies; those that are in no part are counted as `excluded`.

    Returns:
        A row a stratum that occurs, and `all`; columns `<part>` and `<part>_percent` of each part
        that occurs.
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
    """Say how many of the studies that models will be judged on are elsewhere too."""
    counts = split[split["part"] != "train"].groupby("part")["shared"].agg(["sum", "size"])
    told = [f"{n} of {size} {part} studies" for part, n, size in counts.itertuples() if n]
    if told:
        warnings.warn(
            f"{' and '.join(told)} are in another data set too: a model trained on that one has "
            "seen them. keep_shared_in_train=True draws these parts from the other studies",
            stacklevel=3,
        )


def _count(size: float, total: int, name: str) -> int:
    """A number of studies from a number or a fraction."""
    whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if not whole and not (isinstance(size, float) and 0 <= size < 1):
        raise UserError(f"{name} = {size!r}: a whole number of studies, or a fraction below 1")
    if size < 0:
        raise UserError(f"{name} = {size}: must not be negative")
    return int(size) if whole else round(size * total)
