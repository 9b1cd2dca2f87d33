"""Tables of an ablation: arms trained with several seeds, evaluated on the same studies.

32_ablation_tables writes the inputs of `ablation` (predictions.parquet, ablation.json) beside its
tables, so that anyone with the folder can compute them again.

A metric of an arm is the mean over its seeds. Its 95 % bootstrap interval resamples studies and
seeds together, so it covers both the small number of studies and the spread between trainings (one
seed has no spread: its interval is over studies, not over trainings). A step from one arm to the
next uses the same studies and seeds: the difference of the means with such an interval, and
DeLong's and McNemar's test for each seed. Three seeds are few: the interval shows their spread, but
cannot guarantee it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from pekit.common.files import read_json, read_table, write_json, write_table
from pekit.dataset.schema import SLICE_LABEL
from pekit.evaluation.arm import Arm, interval
from pekit.evaluation.checks import require_columns
from pekit.evaluation.evaluate import EvaluationSettings, by_protocol
from pekit.evaluation.metrics import SUMMARY, summary
from pekit.evaluation.paired import delong, mcnemar
from pekit.evaluation.predictions import STUDY, cohort, probs_by_study
from pekit.evaluation.protocols import PROTOCOLS
from pekit.evaluation.tables import ALL_POSITIVE, BOTH

COLUMNS = ("stage", "level", "seed", STUDY, "z", "part", SLICE_LABEL)
STEP_COLUMNS = (
    "level", "table", "row", "against", "metric", "difference", "low", "high", "p_by_seed", "note",
)  # fmt: skip


class AblationSettings(EvaluationSettings):
    """The rows of an ablation's tables, and how its runs are evaluated.

    `tables`: number of the paper's table, "I" to "IV", or a name of one's own -> name of a row ->
    "stage/hop", in the order of the steps. Studies and seeds are resampled.
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
        high, sd (between seeds), seeds (0: nothing is trained), studies, with_pe, note; the last
        row of each table is `pekit.evaluation.tables.ALL_POSITIVE`. steps, by the held-out
        protocol: level, table, row, against (the row before), metric, difference, low, high and
        p_by_seed (DeLong for AUROC, McNemar of the verdicts for F1).

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
            key = {"level": level, "table": table, "row": ALL_POSITIVE, "protocol": BOTH}
            arms += [key | metric | {"seeds": 0} for metric in _arm_rows(_all_positive(arm))]
            for before, row in pairwise(rows):
                key = {"level": level, "table": table, "row": row, "against": before}
                pair = (by_source[rows[name]]["held-out"] for name in (before, row))
                steps += [key | metric for metric in _step_rows(*pair)]
    arms = pd.DataFrame(arms)
    order = arms["protocol"].map([*PROTOCOLS, BOTH].index)
    in_order = arms.assign(order=order).sort_values(["table", "level", "order"], kind="stable")
    return {
        "summary": summary(in_order, ["table", "level", "protocol", "row", "seeds"]),
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
        probs = {source: probs_by_study(of_seed, hop)}
        for (protocol, _), run in by_protocol(probs, cohort(of_seed), settings).items():
            found[protocol].append(run.studies)
    return {
        protocol: Arm(
            tables[0]["truth"].to_numpy(),
            *(np.stack([t[name] for t in tables]) for name in ("verdict", "score")),
            settings.n_boot,
            settings.seed,
        )
        for protocol, tables in found.items()
    }


def _all_positive(arm: Arm) -> Arm:
    """The trivial arm on the same studies: every study is called positive."""
    one = np.ones((1, len(arm.truth)))
    return replace(arm, verdict=one > 0, score=one)


def _arm_rows(arm: Arm) -> Iterator[dict]:
    seeds = len(arm.score)
    of_arm = {"seeds": seeds, "studies": len(arm.truth), "with_pe": int(arm.truth.sum())}
    for k, metric in enumerate(SUMMARY):
        value, low, high, note = interval(arm.resampled[:, k])
        sd = arm.by_seed[k].std(ddof=1) if seeds > 1 else np.nan
        row = {"metric": metric, "value": value, "low": low, "high": high, "sd": sd}
        yield row | of_arm | {"note": note}


def _step_rows(a: Arm, b: Arm) -> Iterator[dict]:
    seeds = range(len(a.score))
    p = {
        "F1": [mcnemar(a.truth, a.verdict[s], b.verdict[s]).p for s in seeds],
        "AUROC": [delong(a.truth, a.score[s], b.score[s]).p for s in seeds],
    }
    difference = b.resampled - a.resampled
    for metric, values in p.items():
        value, low, high, note = interval(difference[:, SUMMARY.index(metric)])
        row = {"metric": metric, "difference": value, "low": low, "high": high}
        yield row | {"p_by_seed": " ".join(f"{v:.3f}" for v in values), "note": note}
