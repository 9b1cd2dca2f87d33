"""Read the user's list of studies that are also in another data set.

Some RSNA studies of one hospital are also in INSPECT and PENet; those who know the hospitals can
provide a list. A model trained on one data set and evaluated on another may have seen its exams.
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
    """The studies of a cohort that a list names as being also in another data set.

    Args:
        path: a text file with one StudyInstanceUID per line, or a CSV with a column of that name.
        studies: the cohort, with the column StudyInstanceUID. A warning lists UIDs that are not
            in it, since the list may cover more studies than the cohort.

    Returns:
        StudyInstanceUIDs of the cohort, sorted, each once.

    Raises:
        UserError: the file is missing, not text or empty, has entries that are not UIDs, or is a
            CSV without the column.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"the list of shared studies {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as a list of studies ({error})") from None
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise UserError(f"{path} is empty: write one {NAME} per line, or a CSV with that column")
    listed = lines
    if "," in lines[0] or NAME in lines[0]:
        try:
            table = pd.read_csv(io.StringIO(text), dtype=str, skipinitialspace=True)
        except ValueError as error:
            raise UserError(f"{path} is not a CSV table ({error})") from None
        if NAME not in table:
            raise UserError(f"{path} has several columns, but none is named {NAME}")
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
