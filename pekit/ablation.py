"""Tables of an ablation: arms trained with several seeds, judged on the same studies.

14_tables calls `ablation` and writes what it was given (predictions.parquet, ablation.json) beside
the tables that it got, so that whoever has the folder can compute them again.

An arm's metric is the mean over its seeds. Its 95 % interval comes from studies and seeds drawn
anew together, so it holds both how few studies there are and how far trainings differ. A step from
one arm to the next is judged on the same studies and seeds: the difference of the means with such
an interval, and DeLong's and McNemar's test for each seed. Three seeds are few: the interval shows
their spread, it cannot vouch for it.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from pydantic import Field

from pekit.arms import METRICS, Arm
from pekit.config import Settings
from pekit.errors import UserError
from pekit.paired import delong, mcnemar
from pekit.protocols import PROTOCOLS, judge, plan
from pekit.resampling import percentiles
from pekit.store import SLICE_LABEL, read_json, read_table, write_json, write_table
from pekit.voting import probs_by_study, study_truth

COLUMNS = ("stage", "level", "seed", "StudyInstanceUID", "z", "part", SLICE_LABEL)
STEP_COLUMNS = (
    "level", "table", "row", "against", "metric", "difference", "low", "high", "p_by_seed", "note",
)  # fmt: skip


class AblationSettings(Settings):
    """What an ablation's tables are made of.

    Attributes:
        tables: by the paper's number, "I" to "IV": name of a row -> "stage/hop".
        choose_on, report_on: parts of the split, for the honest protocol; `paper` chooses on
            `report_on` itself.
        criterion: what the vote's thresholds maximise.
        n_boot: resamples.
        seed: of the resampling.
    """

    tables: dict[str, dict[str, str]]
    choose_on: str = "validation"
    report_on: str = "test"
    criterion: str = "f1"
    n_boot: int = Field(2000, ge=1)
    seed: int = Field(0, ge=0)


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
        verdicts for F1), by the honest protocol.

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
        judged: dict[tuple[str, str], Arm] = {}
        for table, rows in settings.tables.items():
            _check_comparable(of_level, rows, f"{level}, table {table}")
            for source in rows.values():
                for protocol in PROTOCOLS:
                    if (source, protocol) not in judged:
                        judged[source, protocol] = _judge(of_level, source, protocol, settings)
            for row, source in rows.items():
                for protocol in PROTOCOLS:
                    key = {"level": level, "table": table, "row": row, "protocol": protocol}
                    arms += [key | m for m in _arm_rows(judged[source, protocol], settings)]
            for before, row in zip(list(rows)[:-1], list(rows)[1:], strict=True):
                pair = [judged[rows[name], "honest"] for name in (before, row)]
                key = {"level": level, "table": table, "row": row, "against": before}
                steps += [key | m for m in _step_rows(*pair, settings)]
    arms = pd.DataFrame(arms)
    steps = pd.DataFrame(steps, columns=STEP_COLUMNS)
    return {"summary": _summary(arms), "arms": arms, "steps": steps}


def _summary(arms: pd.DataFrame) -> pd.DataFrame:
    """The table for people: a row an arm and protocol, "0.929 [0.886, 0.957]" a metric."""
    key = ["table", "level", "protocol", "row"]
    text = arms.assign(
        text=[
            f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]" if pd.notna(r.value) else "undefined"
            for r in arms.itertuples()
        ]
    )
    wide = text.pivot(index=key, columns="metric", values="text")[list(METRICS)]
    rows = text[key].drop_duplicates().sort_values(key[:3], kind="stable")
    return (
        wide.loc[list(rows.itertuples(index=False, name=None))]
        .rename_axis(columns=None)
        .reset_index()
    )


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
        raise UserError(f"{path}: {error}; run 14_tables again") from None


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


def _judge(
    predictions: pd.DataFrame, source: str, protocol: str, settings: AblationSettings
) -> Arm:
    rows, hop = _runs(predictions, source, source)
    tables = {}
    for seed, of_seed in rows.groupby("seed"):
        truth = study_truth(of_seed)
        part = of_seed.groupby("StudyInstanceUID")["part"].first()
        studies = pd.DataFrame({"part": part, "truth": truth})
        assignments = plan(protocol, studies, settings.choose_on, settings.report_on, settings.seed)
        probs = probs_by_study(of_seed, hop)
        tables[seed] = judge(probs, truth, assignments, settings.criterion).studies
    first = next(iter(tables.values()))
    verdict, score = (
        np.stack([t[name].to_numpy() for t in tables.values()]) for name in ("verdict", "score")
    )
    return Arm(first["truth"].to_numpy(), verdict, score, tuple(int(s) for s in tables))


def _arm_rows(arm: Arm, settings: AblationSettings) -> list[dict]:
    resampled = arm.resampled(settings.n_boot, settings.seed)
    by_seed = arm.by_seed()[0]
    alone = np.full(len(METRICS), np.nan)
    spread = by_seed.std(axis=1, ddof=1) if len(arm.seeds) > 1 else alone
    rows = []
    for k, metric in enumerate(METRICS):
        value, low, high, note = _interval(resampled[:, k])
        row = {"metric": metric, "value": value, "low": low, "high": high, "sd": spread[k]}
        rows.append(row | {"seeds": len(arm.seeds), "note": note})
    return rows


def _step_rows(before: Arm, arm: Arm, settings: AblationSettings) -> list[dict]:
    difference = arm.resampled(settings.n_boot, settings.seed) - before.resampled(
        settings.n_boot, settings.seed
    )
    pairs = range(len(arm.seeds))
    p = {
        "F1": [mcnemar(arm.truth, before.verdict[s], arm.verdict[s]).p for s in pairs],
        "AUROC": [delong(arm.truth, before.score[s], arm.score[s]).p for s in pairs],
    }
    rows = []
    for metric, values in p.items():
        value, low, high, note = _interval(difference[:, METRICS.index(metric)])
        row = {"metric": metric, "difference": value, "low": low, "high": high}
        rows.append(row | {"p_by_seed": " ".join(f"{v:.3f}" for v in values), "note": note})
    return rows


def _interval(values: np.ndarray) -> tuple[float, float, float, str]:
    """The first value and the interval of the others; resamples where it is undefined left out."""
    if np.isnan(values[0]):
        return np.nan, np.nan, np.nan, "undefined for a seed: no study is called so"
    return percentiles(values[0], values[1:][~np.isnan(values[1:])])
