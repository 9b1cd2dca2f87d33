"""The frozen split: part and fold of each study, in a CSV file with its SHA-256 beside it."""

import hashlib
import io
from pathlib import Path

import pandas as pd

from pekit.common.errors import UserError
from pekit.common.files import atomic
from pekit.dataset.schema import public_uid

PARTS = ("train", "validation", "test")
COLUMNS = ("StudyInstanceUID", "part", "fold", "shared")


def freeze_split(split: pd.DataFrame, path: Path, replace: bool = False) -> str:
    """Write a split as CSV with its SHA-256 in `<path>.sha256`, and return the hash.

    The format is CSV because its bytes do not depend on a library's version.

    Args:
        split: StudyInstanceUID, part, fold, shared.
        path: the CSV file.
        replace: overwrite another split that is frozen there. The batch sets it, as it then trains
            again everything that depends on the split.

    Raises:
        UserError: another split is frozen there and `replace` is false, or this one is not valid.
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
    """A frozen split (StudyInstanceUID, part, fold, shared) and its SHA-256.

    Raises:
        UserError: the file is missing, was changed after it was frozen, or is not a valid split.
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


def part_by_study(studies: pd.DataFrame, split: pd.DataFrame) -> dict[str, str]:
    """The part of every study that can be predicted, by StudyInstanceUID.

    That is train, validation or test as the split says, and `competition` for the studies of
    test.csv, whose labels are not known. Excluded studies have none.

    Args:
        studies: the store's: StudyInstanceUID, source, status.
        split: StudyInstanceUID, part.
    """
    unlabelled = studies.query("source == 'test' and status != 'excluded'")["StudyInstanceUID"]
    labelled = split.set_index("StudyInstanceUID")["part"]
    return dict.fromkeys(unlabelled, "competition") | labelled.to_dict()


def _hash_path(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _check(split: pd.DataFrame, path: Path) -> None:
    if missing := [name for name in COLUMNS if name not in split]:
        raise UserError(f"{path}: the split lacks the columns {', '.join(missing)}")
    twice = split["StudyInstanceUID"].duplicated()
    if twice.any():
        uid = public_uid(str(split["StudyInstanceUID"][twice].iloc[0]))
        raise UserError(f"{path}: study {uid} occurs twice")
    if wrong := set(split["part"]) - set(PARTS):
        raise UserError(f"{path}: unknown part {sorted(map(str, wrong))[0]!r}")
    if not split["shared"].isin([0, 1]).all():
        raise UserError(f"{path}: the column shared must hold 0 and 1 only")
