"""Tables of an ablation: arms trained with several seeds, evaluated on the same studies.

32_ablation_tables writes the inputs of `ablation` (predictions.parquet, ablation.json) beside its
tables, so that anyone with the folder can compute them again.

A metric of an arm is the mean over its seeds. Its 95 % bootstrap interval resamples studies and
seeds together, so it covers both the small number of studies and the spread between trainings. A
step from one arm to the next uses the same studies and seeds: the difference of the means with such
an interval, and DeLong's and McNemar's test for each seed. Three seeds are few: the interval shows
their spread, but cannot guarantee it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from pekit.common.files import read_json, read_table, write_json, write_table
from pekit.dataset.schema import SLICE_LABEL
from pekit.evaluation.bootstrap import Value, draws, percentiles
from pekit.evaluation.checks import require_columns
from pekit.evaluation.evaluate import EvaluationSettings
from pekit.evaluation.metrics import SUMMARY, summary
from pekit.evaluation.paired import delong, mcnemar
from pekit.evaluation.predictions import STUDY, probs_by_study, study_truth
from pekit.evaluation.protocols import PROTOCOLS, apply_protocol, assign

COLUMNS = ("stage", "level", "seed", STUDY, "z", "part", SLICE_LABEL)
STEP_COLUMNS = (
    "level", "table", "row", "against", "metric", "difference", "low", "high", "p_by_seed", "note",
)  # fmt: skip


class AblationSettings(EvaluationSettings):
    """The rows of an ablation's tables, and how its runs are evaluated.

    `tables`: number of the paper's table, "I" to "IV" -> name of a row -> "stage/hop", in the order
    of the steps. Studies and seeds are resampled.
    """

    tables: dict[str, dict[str, str]]


def ablation(predictions: pd.DataFrame, settings: AblationSettings) -> dict[str, pd.DataFrame]:
    """All tables of an ablation.

    Args:
        predictions: one row per run and slice: stage, level (values of the other axes, as text),
            seed, StudyInstanceUID, z, part, pe_present_on_image and one column per hop (NaN where
            a run lacks that hop).
        settings: the rows of each table, and how they are evaluated.

    Returns:
        summary: the arms as text, to read. arms: level, table, row, protocol, metric, value, low,
        high, sd (between seeds), seeds, note. steps, by the held-out protocol: level, table, row,
        against (the row before), metric, difference, low, high and p_by_seed (DeLong for AUROC,
        McNemar of the verdicts for F1).

    Raises:
        UserError: a row names a run or hop that does not exist, arms of one level have other
            studies or seeds, or bad predictions.
    """
    require_columns(predictions, COLUMNS)
    arms: list[dict] = []
    steps: list[dict] = []
    for level, of_level in predictions.groupby("level", sort=True):
        by_source: dict[str, dict[str, Arm]] = {}
        for table, rows in settings.tables.items():
            _check_comparable(of_level, rows, f"{level}, table {table}")
            for row, source in rows.items():
                if source not in by_source:
                    by_source[source] = _arms(of_level, source, settings)
                for protocol, arm in by_source[source].items():
                    key = {"level": level, "table": table, "row": row, "protocol": protocol}
                    arms += [key | metric for metric in _arm_rows(arm)]
            for before, row in pairwise(rows):
                key = {"level": level, "table": table, "row": row, "against": before}
                pair = (by_source[rows[name]]["held-out"] for name in (before, row))
                steps += [key | metric for metric in _step_rows(*pair)]
    arms = pd.DataFrame(arms)
    key = ["table", "level", "protocol", "row"]
    return {
        "summary": summary(arms.sort_values(key[:-1], kind="stable"), key),
        "arms": arms,
        "steps": pd.DataFrame(steps, columns=STEP_COLUMNS),
    }


def write_inputs(folder: Path, predictions: pd.DataFrame, settings: AblationSettings) -> None:
    """Write the arguments of `ablation` for `read_inputs`."""
    write_table(Path(folder) / "predictions.parquet", predictions)
    write_json(Path(folder) / "ablation.json", settings.model_dump())


def read_inputs(folder: Path) -> tuple[pd.DataFrame, AblationSettings]:
    """The arguments of `ablation` from the folder of its stage.

    Raises:
        UserError: a file is missing, unreadable, or of another version.
    """
    predictions = read_table(Path(folder) / "predictions.parquet", COLUMNS)
    path = Path(folder) / "ablation.json"
    try:
        return predictions, AblationSettings(**read_json(path))
    except (UserError, TypeError) as error:
        raise UserError(f"{path}: {error}: run 32_ablation_tables again") from None


@dataclass(frozen=True, eq=False)
class Arm:
    """One row of a table by one protocol: the verdicts of all seeds, and metrics over resamples.

    Metrics are those of `pekit.evaluation.metrics.SUMMARY`, in that order.

    Args:
        truth: `(studies,)` bool.
        verdict, score: `(seeds, studies)` bool, and in [0,1].
        n_boot, seed: bootstrap resamples and their random seed.
    """

    truth: np.ndarray
    verdict: np.ndarray
    score: np.ndarray
    n_boot: int
    seed: int

    @cached_property
    def by_seed(self) -> np.ndarray:
        """Metrics `(metrics, seeds)` on all studies."""
        return self._metrics(np.ones((1, len(self.truth))))[0]

    @cached_property
    def resampled(self) -> np.ndarray:
        """Metrics `(1 + n_boot, metrics)`, mean over seeds; the first row is not resampled."""
        studies, seeds = (
            np.concatenate([np.ones((1, n)), *draws(n, self.n_boot, self.seed + k)])
            for k, n in enumerate((len(self.truth), len(self.score)))
        )
        # A seed that a resample does not hold must not count, even if its metric is undefined.
        seeds = seeds[:, None]
        weighted = np.where(seeds > 0, self._metrics(studies) * seeds, 0)
        return weighted.sum(axis=2) / len(self.score)

    def _metrics(self, weights: np.ndarray) -> np.ndarray:
        """Metrics `(resamples, metrics, seeds)` for weights `(resamples, studies)`."""
        runs = zip(self.verdict, self.score, strict=True)
        return np.stack([_metrics(self.truth, *run, weights) for run in runs], axis=2)


def _metrics(
    truth: np.ndarray, verdict: np.ndarray, score: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Metrics `(resamples, metrics)` of one seed; NaN where undefined."""
    cells = [truth & verdict, ~truth & verdict, truth & ~verdict, ~truth & ~verdict]
    tp, fp, fn, tn = (weights @ cell.astype(float) for cell in cells)
    above = score[truth][:, None] - score[~truth][None]
    wins = (above > 0) + 0.5 * (above == 0)
    pairs = ((weights[:, truth] @ wins) * weights[:, ~truth]).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack(
            [
                tp / (tp + fn),
                tn / (tn + fp),
                tp / (tp + fp),
                tn / (tn + fn),
                2 * tp / (2 * tp + fp + fn),
                pairs / ((tp + fn) * (tn + fp)),
            ],
            axis=1,
        )


def _runs(predictions: pd.DataFrame, source: str, where: str) -> tuple[pd.DataFrame, str]:
    """The predictions of the runs of one row, and the column of its hop."""
    stage, _, hop = source.partition("/")
    rows = predictions[predictions["stage"] == stage]
    if rows.empty or hop not in rows or rows[hop].isna().any():
        known = sorted(set(predictions["stage"]))
        raise UserError(f"{where}: no predictions {source!r}: runs are {', '.join(known)}")
    return rows, hop


def _check_comparable(predictions: pd.DataFrame, rows: Mapping[str, str], where: str) -> None:
    """Refuse rows of a table with different studies or seeds."""
    seen = {}
    for row, source in rows.items():
        runs, _ = _runs(predictions, source, where)
        for seed, of_seed in runs.groupby("seed"):
            seen[row, seed] = frozenset(
                zip(of_seed["StudyInstanceUID"], of_seed["part"], strict=True)
            )
    first = next(iter(rows))
    seeds = {row: {s for r, s in seen if r == row} for row in rows}
    for (row, seed), studies in seen.items():
        if seeds[row] != seeds[first]:
            raise UserError(
                f"{where}: {row!r} has seeds {sorted(seeds[row])}, {first!r} {sorted(seeds[first])}"
            )
        if studies != seen[first, seed]:
            raise UserError(f"{where}: {row!r} and {first!r} have other studies or another split")


def _arms(predictions: pd.DataFrame, source: str, settings: AblationSettings) -> dict[str, Arm]:
    """The runs of one row by each protocol."""
    rows, hop = _runs(predictions, source, source)
    found: dict[str, list[pd.DataFrame]] = {protocol: [] for protocol in PROTOCOLS}
    for _, of_seed in rows.groupby("seed"):
        truth, probs = study_truth(of_seed), probs_by_study(of_seed, hop)
        studies = pd.DataFrame({"part": of_seed.groupby(STUDY)["part"].first(), "truth": truth})
        for protocol, tables in found.items():
            parts = settings.choose_on, settings.report_on
            assignments = assign(protocol, studies, *parts, settings.seed)
            run = apply_protocol(probs, truth, assignments, settings.criterion, settings.at)
            tables.append(run.studies)
    return {
        protocol: Arm(
            tables[0]["truth"].to_numpy(),
            *(np.stack([t[name] for t in tables]) for name in ("verdict", "score")),
            settings.n_boot,
            settings.seed,
        )
        for protocol, tables in found.items()
    }


def _arm_rows(arm: Arm) -> Iterator[dict]:
    seeds = len(arm.score)
    for k, metric in enumerate(SUMMARY):
        value, low, high, note = _interval(arm.resampled[:, k])
        sd = arm.by_seed[k].std(ddof=1) if seeds > 1 else np.nan
        row = {"metric": metric, "value": value, "low": low, "high": high, "sd": sd}
        yield row | {"seeds": seeds, "note": note}


def _step_rows(a: Arm, b: Arm) -> Iterator[dict]:
    seeds = range(len(a.score))
    p = {
        "F1": [mcnemar(a.truth, a.verdict[s], b.verdict[s]).p for s in seeds],
        "AUROC": [delong(a.truth, a.score[s], b.score[s]).p for s in seeds],
    }
    difference = b.resampled - a.resampled
    for metric, values in p.items():
        value, low, high, note = _interval(difference[:, SUMMARY.index(metric)])
        row = {"metric": metric, "difference": value, "low": low, "high": high}
        yield row | {"p_by_seed": " ".join(f"{v:.3f}" for v in values), "note": note}


def _interval(values: np.ndarray) -> Value:
    """The first value, and the interval of the others without undefined ones."""
    if np.isnan(values[0]):
        return np.nan, np.nan, np.nan, "undefined for a seed: no verdict of this kind"
    return percentiles(values[0], values[1:][~np.isnan(values[1:])])
