"""The split into train, validation and test studies, drawn once and frozen to a file.

As in the paper (section IV): excluded studies are in no part, indeterminate exams only in train
(the paper leaves 14 of them out of validation; a test part must be as clean). Parts are stratified
by exam type. The train studies are further dealt into folds 0 .. k-1 for cross-validation;
validation and test studies have fold -1, since they are held out from all of it.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
import pandas as pd

from pekit.errors import UserError
from pekit.store import atomic

PARTS = ("train", "validation", "test")
COLUMNS = ("StudyInstanceUID", "part", "fold")


def exam_type(studies: pd.DataFrame) -> pd.Series:
    """`negative`, `indeterminate` or `positive` for each row, from the exam labels."""
    kind = np.where(studies["negative_exam_for_pe"] == 1, "negative", "positive")
    return pd.Series(
        np.where(studies["indeterminate"] == 1, "indeterminate", kind), index=studies.index
    )


def make_split(
    studies: pd.DataFrame, validation: float, test: float, folds: int, seed: int
) -> pd.DataFrame:
    """Draw the split; the same for any order of the rows.

    Args:
        studies: StudyInstanceUID, negative_exam_for_pe, indeterminate and verdict, a row a study.
        validation: a number of studies (int), or a fraction below 1 (float) of all that are used.
        test: likewise; 0 for none.
        folds: parts of the train studies for cross-validation, at least 1.
        seed: of the draw.

    Returns:
        StudyInstanceUID, part (train, validation, test), fold; sorted by StudyInstanceUID.

    Raises:
        UserError: a column is missing, a study occurs twice, or the sizes cannot be met.
    """
    needed = ("StudyInstanceUID", "negative_exam_for_pe", "indeterminate", "verdict")
    if missing := [name for name in needed if name not in studies]:
        raise UserError(f"the table of studies lacks the columns {', '.join(missing)}")
    twice = studies["StudyInstanceUID"].duplicated()
    if twice.any():
        raise UserError(f"study {studies['StudyInstanceUID'][twice].iloc[0]} occurs twice")
    if folds < 1:
        raise UserError(f"folds = {folds}: at least 1")
    used = studies[studies["verdict"] != "excluded"].sort_values("StudyInstanceUID")
    kinds = exam_type(used).to_numpy()
    wanted = {
        "validation": _count(validation, len(used), "validation"),
        "test": _count(test, len(used), "test"),
    }
    eligible = int((kinds != "indeterminate").sum())
    if sum(wanted.values()) >= eligible:
        raise UserError(
            f"validation {wanted['validation']} and test {wanted['test']} leave nothing to train "
            f"on: {eligible} studies are neither excluded nor indeterminate"
        )
    rng = np.random.default_rng(seed)
    part = np.full(len(used), "train", dtype=object)
    fold = np.full(len(used), -1)
    for kind, sizes in _share(kinds, wanted).items():
        members = rng.permutation(np.flatnonzero(kinds == kind))
        part[members[: sizes[0]]] = "validation"
        part[members[sizes[0] : sum(sizes)]] = "test"
    # Dealt like cards, kind after kind, so that folds differ by one study at most.
    train = np.flatnonzero(part == "train")
    dealt = np.concatenate(
        [rng.permutation(train[kinds[train] == kind]) for kind in sorted(set(kinds))]
    )
    fold[dealt] = np.arange(len(dealt)) % folds
    return pd.DataFrame(
        {
            "StudyInstanceUID": used["StudyInstanceUID"].to_numpy(),
            "part": part.astype(str),
            "fold": fold,
        }
    )


def _count(size: float, total: int, name: str) -> int:
    """A number of studies from a number or a fraction."""
    whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
    if not whole and not (isinstance(size, float) and 0 <= size < 1):
        raise UserError(f"{name} = {size!r}: a whole number of studies, or a fraction below 1")
    if size < 0:
        raise UserError(f"{name} = {size}: must not be negative")
    return int(size) if whole else round(size * total)


def _share(kinds: np.ndarray, wanted: dict[str, int]) -> dict[str, tuple[int, int]]:
    """How many positive and negative studies go to validation and to test, in proportion."""
    positive, negative = (int((kinds == kind).sum()) for kind in ("positive", "negative"))
    share = positive / max(1, positive + negative)
    from_positive = [round(size * share) for size in wanted.values()]
    from_negative = [size - n for size, n in zip(wanted.values(), from_positive, strict=True)]
    return {"negative": tuple(from_negative), "positive": tuple(from_positive)}


def freeze_split(split: pd.DataFrame, path: Path, replace: bool = False) -> str:
    """Write a split as CSV, its SHA-256 beside it (`<path>.sha256`), and return the hash.

    CSV, because its bytes do not depend on a library's version. A frozen split is not changed by
    accident: the same one again is fine, another one is refused unless `replace` is given, as the
    batch does, which then trains again whatever depends on the split.

    Raises:
        UserError: another split is frozen there and `replace` is not given, or this one is not
            valid.
    """
    path = Path(path)
    _check(split, path)
    text = split[list(COLUMNS)].sort_values("StudyInstanceUID").to_csv(index=False)
    data = text.encode()
    digest = hashlib.sha256(data).hexdigest()
    if path.exists() and not replace:
        if hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise UserError(
                f"{path} holds another frozen split: delete it (and what was trained on it), "
                "or choose another path"
            )
    else:
        with atomic(path) as beside:
            beside.write_bytes(data)
    with atomic(_hash_path(path)) as beside:
        beside.write_text(f"{digest}  {path.name}\n")
    return digest


def read_split(path: Path) -> tuple[pd.DataFrame, str]:
    """A frozen split (StudyInstanceUID, part, fold) and its SHA-256.

    Raises:
        UserError: missing, changed since it was frozen, or a study is in two parts.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        recorded = (_hash_path(path).read_text().split() or [""])[0]
    except FileNotFoundError as error:
        raise UserError(f"{error.filename} does not exist: make the split first") from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != recorded:
        raise UserError(
            f"{path} was changed after it was frozen (SHA-256 {digest[:12]}, recorded "
            f"{recorded[:12]}): restore it, or make the split again"
        )
    try:
        split = pd.read_csv(io.BytesIO(data), dtype={"StudyInstanceUID": str, "part": str})
    except ValueError as error:
        raise UserError(f"{path} is not a CSV table ({error})") from None
    _check(split, path)
    return split, digest


def _hash_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _check(split: pd.DataFrame, path: Path) -> None:
    if missing := [name for name in COLUMNS if name not in split]:
        raise UserError(f"{path}: the split lacks the columns {', '.join(missing)}")
    twice = split["StudyInstanceUID"].duplicated()
    if twice.any():
        raise UserError(f"{path}: study {split['StudyInstanceUID'][twice].iloc[0]} occurs twice")
    if wrong := set(split["part"]) - set(PARTS):
        raise UserError(f"{path}: unknown part {sorted(map(str, wrong))[0]!r}")
