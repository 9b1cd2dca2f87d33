"""The table that people read first, as text and as CSV."""

from pathlib import Path

import pandas as pd

from pekit.common.files import atomic, write_csv


def write_summary(folder: Path, title: str, table: pd.DataFrame, *more: pd.DataFrame) -> str:
    """Write `table.csv`, and `table.txt` with the title, the table and more tables below it.

    Returns:
        The text of table.txt.
    """
    folder = Path(folder)
    parts = [title, *(part.to_string(index=False) for part in (table, *more))]
    text = "\n\n".join(parts) + "\n"
    with atomic(folder / "table.txt") as beside:
        beside.write_text(text, encoding="utf-8")
    write_csv(folder / "table.csv", table)
    return text
