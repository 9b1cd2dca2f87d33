"""The user's list of studies that are in another data set too.

Some RSNA studies of one hospital are also in INSPECT and PENet, under a list that those who know
the hospitals can give: a model trained on one set and judged on another may have seen its exams.
"""

import io
import re
import warnings
from pathlib import Path

import pandas as pd

from pekit.common.errors import UserError
from pekit.dataset.schema import public_uid

NAME = "StudyInstanceUID"
UID = re.compile(r"[0-9A-Za-z.]+")  # RSNA's are hexadecimal, DICOM's numbers and dots


def read_shared(path: Path, studies: pd.DataFrame) -> list[str]:
    """The studies that a list names as being in another data set too.

    Args:
        path: a text file of one StudyInstanceUID a line, or a CSV with a column of that name.
        studies: the cohort, with the column StudyInstanceUID. UIDs that are not in it are
            listed in a warning; a list may cover more than the part of the data that one has.

    Returns:
        StudyInstanceUIDs of the cohort, sorted, each once.

    Raises:
        UserError: no such file, not text, empty, entries that are no UIDs, or a CSV without the
            column.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: the list of shared studies") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list of studies ({error})") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{path} is empty: one {NAME} a line, or a CSV with that column")
    listed = lines
    if "," in lines[0] or NAME in lines[0]:
        try:
            table = pd.read_csv(io.StringIO(text), dtype=str, skipinitialspace=True)
        except ValueError as error:
            raise UserError(f"{path} is not a CSV table ({error})") from None
        if NAME not in table:
            raise UserError(f"{path} has several columns, and none is titled {NAME}")
        listed = table[NAME].dropna().str.strip()
    listed = set(listed)
    if wrong := [uid for uid in listed if not UID.fullmatch(uid)]:
        raise UserError(f"{path}: {len(wrong)} of {len(listed)} entries are not UIDs")
    known = listed & set(studies[NAME])
    if unknown := sorted(map(public_uid, listed - known)):
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        warnings.warn(
            f"{path.name}: {len(unknown)} of {len(listed)} studies are not in this cohort: {shown}",
            stacklevel=2,
        )
    return sorted(known)
