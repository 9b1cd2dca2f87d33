"""Tables of an ablation: arms trained with several seeds, judged on the same studies.

32_ablation_tables writes what `ablation` was given (predictions.parquet, ablation.json) beside
the tables that it got, so that whoever has the folder can compute them again.

An arm's metric is the mean over its seeds. Its 95 % interval comes from studies and seeds drawn
anew together, so it holds both how few studies there are and how far trainings differ. A step from
one arm to the next is judged on the same studies and seeds: the difference of the means with such
an interval, and DeLong's and McNemar's test for each seed. Three seeds are few: the interval shows
their spread, it cannot vouch for it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from pekit.common.files import read_json, read_table, write_json, write_table
from pekit.dataset.schema import SLICE_LABEL
from pekit.evaluation.bootstrap import draws, percentiles
from pekit.evaluation.evaluate import EvaluationSettings
from pekit.evaluation.metrics import SUMMARY, summary
from pekit.evaluation.paired import delong, mcnemar
from pekit.evaluation.predictions import probs_by_study, study_truth
from pekit.evaluation.protocols import PROTOCOLS, assign, judge


@dataclass(frozen=True)
class Arm:
    """Verdicts `(seeds, studies)` bool and scores in [0,1] of one arm; truth `(studies,)` bool.

    Its metrics are those of `pekit.evaluation.metrics.SUMMARY`, in that order.
    """

    truth: np.ndarray
    verdict: np.ndarray
    score: np.ndarray
    seeds: tuple[int, ...]

    def by_seed(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Metrics `(resamples, metrics, seeds)`; each study once where no weights are given."""
        weights = np.ones((1, len(self.truth))) if weights is None else weights
        return np.stack([self._metrics(weights, s) for s in range(len(self.seeds))], axis=2)

    def resampled(self, n_boot: int, seed: int) -> np.ndarray:
        """Metrics `(1 + resamples, metrics)`, mean over seeds; the first row is of all studies."""
        studies, seeds = (
            np.concatenate([np.ones((1, n)), *draws(n, n_boot, seed + k)])
            for k, n in enumerate((len(self.truth), len(self.seeds)))
        )
        # A seed that was not drawn has no say, not even with a metric that is undefined.
        seeds = seeds[:, None]
        weighted = np.where(seeds > 0, self.by_seed(studies) * seeds, 0)
        return weighted.sum(axis=2) / len(self.seeds)

    def _metrics(self, weights: np.ndarray, seed: int) -> np.ndarray:
        """Metrics `(resamples, metrics)` of one seed; NaN where undefined."""
        truth, verdict, score = self.truth, self.verdict[seed], self.score[seed]
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


COLUMNS = ("stage", "level", "seed", "StudyInstanceUID", "z", "part", SLICE_LABEL)
STEP_COLUMNS = (
    "level", "table", "row", "against", "metric", "difference", "low", "high", "p_by_seed", "note",
)  # fmt: skip


class AblationSettings(EvaluationSettings):
    """What an ablation's tables are made of, and how its runs are judged.

    `tables`: by the paper's number, "I" to "IV": name of a row -> "stage/hop", in the order of the
    steps. The resamples are of studies and seeds.
    """

    tables: dict[str, dict[str, str]]


def ablation(predictions: pd.DataFrame, settings: AblationSettings) -> dict[str, pd.DataFrame]:
    """All tables of an ablation.

    Args:
        predictions: a row a slice of each run: stage, level (of the other axes, in words), seed,
            StudyInstanceUID, z, part, pe_present_on_image and a column each hop (NaN where a run
            lacks that hop).
        settings: which rows make which table, and how they are judged.

    Returns:
        summary: the arms as text, for people. arms: level, table, row, protocol, metric, value,
        low, high, sd (between seeds), seeds, note. steps: level, table, row, against (the row
        before), metric, difference, low, high and p_by_seed (DeLong for AUROC, McNemar of the
        verdicts for F1), by the held-out protocol.

    Raises:
        UserError: a row names a run or hop that is not there, arms of one level were judged on
            other studies or trained with other seeds, or bad predictions.
    """
    missing = [name for name in COLUMNS if name not in predictions]
    if missing:
        raise UserError(f"the predictions lack {', '.join(missing)}: they have {list(predictions)}")
    arms: list[dict] = []
    steps: list[dict] = []
    for level, of_level in predictions.groupby("level", sort=True):
        judged: dict[str, dict[str, _JudgedArm]] = {}
        for table, rows in settings.tables.items():
            _check_comparable(of_level, rows, f"{level}, table {table}")
            for row, source in rows.items():
                if source not in judged:
                    judged[source] = _judge(of_level, source, settings)
                for protocol, arm in judged[source].items():
                    key = {"level": level, "table": table, "row": row, "protocol": protocol}
                    arms += [key | metric for metric in _arm_rows(arm)]
            for before, row in pairwise(rows):
                key = {"level": level, "table": table, "row": row, "against": before}
                pair = (judged[rows[name]]["held-out"] for name in (before, row))
                steps += [key | metric for metric in _step_rows(*pair)]
    arms = pd.DataFrame(arms)
    key = ["table", "level", "protocol", "row"]
    return {
        "summary": summary(arms.sort_values(key[:-1], kind="stable"), key),
        "arms": arms,
        "steps": pd.DataFrame(steps, columns=STEP_COLUMNS),
    }


def write_inputs(folder: Path, predictions: pd.DataFrame, settings: AblationSettings) -> None:
    """Write what `ablation` was given, so that `read_inputs` gives the same again."""
    write_table(Path(folder) / "predictions.parquet", predictions)
    write_json(Path(folder) / "ablation.json", settings.model_dump())


def read_inputs(folder: Path) -> tuple[pd.DataFrame, AblationSettings]:
    """What `ablation` was given, out of the folder of its stage.

    Raises:
        UserError: a file missing, unreadable, or of another version.
    """
    predictions = read_table(Path(folder) / "predictions.parquet", COLUMNS)
    path = Path(folder) / "ablation.json"
    try:
        return predictions, AblationSettings(**read_json(path))
    except (UserError, TypeError) as error:
        raise UserError(f"{path}: {error}; run 32_ablation_tables again") from None


def _runs(predictions: pd.DataFrame, source: str, where: str) -> tuple[pd.DataFrame, str]:
    """The slices of the runs of one row, and its hop."""
    stage, _, hop = source.partition("/")
    rows = predictions[predictions["stage"] == stage]
    if rows.empty or hop not in rows or rows[hop].isna().any():
        known = sorted(set(predictions["stage"]))
        raise UserError(f"{where}: no predictions {source!r}; runs are {', '.join(known)}")
    return rows, hop


def _check_comparable(predictions: pd.DataFrame, rows: Mapping[str, str], where: str) -> None:
    """The same studies and seeds in each row of a table."""
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
            raise UserError(f"{where}: {row!r} and {first!r} are of other studies or another split")


class _JudgedArm(NamedTuple):
    arm: Arm
    resampled: np.ndarray  # as Arm.resampled gives it


def _judge(
    predictions: pd.DataFrame, source: str, settings: AblationSettings
) -> dict[str, _JudgedArm]:
    """A row's runs by each protocol."""
    rows, hop = _runs(predictions, source, source)
    tables: dict[str, dict[int, pd.DataFrame]] = {protocol: {} for protocol in PROTOCOLS}
    for seed, of_seed in rows.groupby("seed"):
        truth, probs = study_truth(of_seed), probs_by_study(of_seed, hop)
        part = of_seed.groupby("StudyInstanceUID")["part"].first()
        studies = pd.DataFrame({"part": part, "truth": truth})
        for protocol, judged in tables.items():
            parts = settings.choose_on, settings.report_on
            assignments = assign(protocol, studies, *parts, settings.seed)
            found = judge(probs, truth, assignments, settings.criterion, settings.at)
            judged[int(seed)] = found.studies
    arms = {protocol: _arm(judged) for protocol, judged in tables.items()}
    return {
        protocol: _JudgedArm(arm, arm.resampled(settings.n_boot, settings.seed))
        for protocol, arm in arms.items()
    }


def _arm(judged: Mapping[int, pd.DataFrame]) -> Arm:
    verdict, score = (
        np.stack([table[name].to_numpy() for table in judged.values()])
        for name in ("verdict", "score")
    )
    truth = next(iter(judged.values()))["truth"].to_numpy()
    return Arm(truth, verdict, score, tuple(judged))


def _arm_rows(judged: _JudgedArm) -> Iterator[dict]:
    arm, resampled = judged
    by_seed = arm.by_seed()[0]
    for k, metric in enumerate(SUMMARY):
        value, low, high, note = _interval(resampled[:, k])
        sd = by_seed[k].std(ddof=1) if len(arm.seeds) > 1 else np.nan
        row = {"metric": metric, "value": value, "low": low, "high": high, "sd": sd}
        yield row | {"seeds": len(arm.seeds), "note": note}


def _step_rows(before: _JudgedArm, after: _JudgedArm) -> Iterator[dict]:
    a, b = before.arm, after.arm
    seeds = range(len(a.seeds))
    p = {
        "F1": [mcnemar(a.truth, a.verdict[s], b.verdict[s]).p for s in seeds],
        "AUROC": [delong(a.truth, a.score[s], b.score[s]).p for s in seeds],
    }
    difference = after.resampled - before.resampled
    for metric, values in p.items():
        value, low, high, note = _interval(difference[:, SUMMARY.index(metric)])
        row = {"metric": metric, "difference": value, "low": low, "high": high}
        yield row | {"p_by_seed": " ".join(f"{v:.3f}" for v in values), "note": note}


def _interval(values: np.ndarray) -> tuple[float, float, float, str]:
    """The first value and the interval of the others; resamples where it is undefined left out."""
    if np.isnan(values[0]):
        return np.nan, np.nan, np.nan, "undefined for a seed: no study is called so"
    return percentiles(values[0], values[1:][~np.isnan(values[1:])])
