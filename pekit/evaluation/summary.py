"""The table that people read first, as text and as CSV, and its title."""

from pathlib import Path

import pandas as pd

from pekit.common.files import atomic, write_csv
from pekit.evaluation.evaluate import EvaluationSettings
from pekit.evaluation.metrics import F1_AT, PPV_AT
from pekit.evaluation.published import PAPER_PREVALENCE

_OVER_STUDIES = "95 % intervals over studies; not over trainings"
_AT = (
    f"{PPV_AT} and {F1_AT}: from sensitivity and specificity at the paper's prevalence "
    f"({100 * PAPER_PREVALENCE:.1f} %)"
)


def evaluation_title(experiment: str, truth: pd.Series, settings: EvaluationSettings) -> str:
    """Title of a summary by both protocols: studies, prevalence, thresholds, intervals.

    Args:
        experiment: its name.
        truth: whether each reported study has PE.
        settings: parts of the split.
    """
    studies = _studies(len(truth), int(truth.sum()), settings.report_on)
    return "; ".join((f"{experiment}: {studies}", _thresholds(settings), _OVER_STUDIES, _AT))


def ablation_title(experiment: str, arms: pd.DataFrame, settings: EvaluationSettings) -> str:
    """Title of the summary of an ablation; also says of how many seeds a value is the mean.

    Args:
        experiment: its name.
        arms: from `pekit.evaluation.ablation.ablation`.
        settings: parts of the split.
    """
    counts = arms[["level", "studies", "with_pe"]].drop_duplicates()
    studies = [
        _studies(row.studies, row.with_pe, settings.report_on) for row in counts.itertuples()
    ]
    if len(set(studies)) > 1:
        studies = [f"{level}: {text}" for level, text in zip(counts["level"], studies, strict=True)]
    parts = ", ".join(dict.fromkeys(studies)), seeds_text(arms), _thresholds(settings), _AT
    return f"{experiment}: {'; '.join(parts)}"


def seeds_text(arms: pd.DataFrame) -> str:
    """Number of seeds of the arms, and what their intervals cover, in words."""
    seeds = arms.loc[arms["seeds"] > 0, "seeds"]
    fewest, most = int(seeds.min()), int(seeds.max())
    if most == 1:
        return f"1 seed; {_OVER_STUDIES}"
    number = str(most) if fewest == most else f"{fewest} to {most}"
    alone = " (1 seed: over studies; not over trainings)" if fewest == 1 else ""
    return f"mean of {number} seeds; 95 % intervals over studies and seeds{alone}"


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


def _studies(n: int, with_pe: int, part: str) -> str:
    return f"{n} {part} studies, {with_pe} with PE ({100 * with_pe / n:.1f} %)"


def _thresholds(settings: EvaluationSettings) -> str:
    apart = settings.choose_on != settings.report_on
    other = f"{settings.choose_on} studies" if apart else "the other half of these studies"
    return f"thresholds chosen on these same studies (paper), on {other} (held-out)"
