"""The tables of an evaluation, one function each: long tables that start with protocol and model.

`evaluated` maps (protocol, model) to a table with one row per study: truth, verdict, score.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict

import pandas as pd

from pekit.dataset.schema import SLICE_LABEL
from pekit.evaluation.calibration import (
    apply_temperature,
    calibration_metrics,
    fit_temperature,
    reliability,
)
from pekit.evaluation.metrics import confusion, slice_metrics, study_metrics, summary
from pekit.evaluation.paired import (
    Difference,
    delong,
    f1_difference,
    holm,
    mcnemar,
    slice_differences,
)
from pekit.evaluation.predictions import STUDY
from pekit.evaluation.protocols import Assignment, Evaluated
from pekit.evaluation.subgroups import subgroup_metrics

KEYS = ["protocol", "model"]
BOTH = "both"  # nothing is chosen, so both protocols give the same
# The trivial model that calls every study positive: what F1 and PPV give for nothing.
ALL_POSITIVE = "all positive"
ByStudy = Mapping[tuple[str, str], pd.DataFrame]


def study_tables(
    evaluated: Mapping[tuple[str, str], Evaluated], n_boot: int, seed: int
) -> dict[str, pd.DataFrame]:
    """Tables thresholds, study_metrics, optimism, summary (as text, to read), confusion, verdicts.

    Args:
        evaluated: verdicts by (protocol, model), from `pekit.evaluation.evaluate.by_protocol`.
        n_boot, seed: bootstrap resamples of the studies and their random seed.
    """
    by_study = {key: found.studies for key, found in evaluated.items()}
    metrics = study_level(by_study, n_boot, seed)
    return {
        "thresholds": thresholds(evaluated),
        "study_metrics": metrics,
        "optimism": optimism(metrics),
        "summary": summary(metrics, KEYS),
        "confusion": confusions(by_study),
        "verdicts": verdicts(by_study),
    }


def thresholds(evaluated: Mapping[tuple[str, str], Evaluated]) -> pd.DataFrame:
    """The chosen votes: chosen_on, reported_on, number of studies of each, mu (slices), delta."""
    rows = [
        {
            "protocol": protocol,
            "model": model,
            "chosen_on": assignment.chosen_on,
            "chosen_studies": len(assignment.chosen),
            "reported_on": assignment.reported_on,
            "reported_studies": len(assignment.reported),
            "mu": vote.mu,
            "delta": vote.delta,
        }
        for (protocol, model), found in evaluated.items()
        for assignment, vote in found.votes
    ]
    return pd.DataFrame(rows)


def study_level(evaluated: ByStudy, n_boot: int, seed: int) -> pd.DataFrame:
    """Columns metric, value, low, high, note, from `pekit.evaluation.metrics.study_metrics`.

    The last model is `ALL_POSITIVE`, with the protocol "both".
    """
    first = next(iter(evaluated.values()))
    trivial = {(BOTH, ALL_POSITIVE): first.assign(verdict=True, score=1.0)}
    return _stacked(
        {
            key: study_metrics(t["truth"], t["verdict"], t["score"], n_boot, seed)
            for key, t in {**evaluated, **trivial}.items()
        }
    )


def optimism(metrics: pd.DataFrame) -> pd.DataFrame:
    """Value of each metric by both protocols, and the optimism: paper minus held-out."""
    metrics = metrics[metrics["protocol"] != BOTH]
    wide = metrics.pivot(index=["model", "metric"], columns="protocol", values="value")
    order = metrics[["model", "metric"]].drop_duplicates()
    wide = wide.loc[list(order.itertuples(index=False, name=None)), ["paper", "held-out"]]
    wide["optimism"] = wide["paper"] - wide["held-out"]
    wide["note"] = wide["optimism"].isna().map({True: "undefined by a protocol", False: ""})
    return wide.rename_axis(columns=None).reset_index()


def confusions(evaluated: ByStudy) -> pd.DataFrame:
    """Counts of studies: TN, FP, FN, TP."""
    rows = []
    for (protocol, model), table in evaluated.items():
        (tn, fp), (fn, tp) = confusion(table["truth"], table["verdict"]).tolist()
        rows.append((protocol, model, tn, fp, fn, tp))
    return pd.DataFrame(rows, columns=[*KEYS, "TN", "FP", "FN", "TP"])


def paired(
    evaluated: ByStudy, reported: Mapping[str, pd.DataFrame], n_boot: int, seed: int
) -> pd.DataFrame:
    """Each model compared with the first one on the same studies; no rows for a single model.

    Columns against, measure, test, difference (model - against), low, high, p, p_holm (Holm's
    correction over the models, for each protocol and measure), note.
    """
    rows, first = [], next(iter(reported))
    for (protocol, model), table in evaluated.items():
        if model != first:
            found = _differences(evaluated[protocol, first], table, n_boot, seed)
            rows += [(protocol, model, *difference) for difference in found]
    for model in list(reported)[1:]:
        found = _slice_differences(reported[first], reported[model], n_boot, seed)
        rows += [(BOTH, model, *difference) for difference in found]
    rows = [
        {"protocol": protocol, "model": model, "against": first, "measure": measure, "test": test}
        | asdict(difference)
        for protocol, model, measure, test, difference in rows
    ]
    columns = [*KEYS, "against", "measure", "test", "difference", "low", "high", "p", "note"]
    table = pd.DataFrame(rows, columns=columns)
    corrected = table.groupby(["protocol", "measure"])["p"].transform(holm)
    table.insert(columns.index("note"), "p_holm", corrected)
    return table


def slice_level(reported: Mapping[str, pd.DataFrame], n_boot: int, seed: int) -> pd.DataFrame:
    """Columns metric, value, low, high, note, from `pekit.evaluation.metrics.slice_metrics`."""
    return _stacked(
        {(BOTH, model): slice_metrics(t, "prob", n_boot, seed) for model, t in reported.items()}
    )


def calibrations(
    slices: Mapping[str, pd.DataFrame],
    reported: Mapping[str, pd.DataFrame],
    assignments: Mapping[str, tuple[Assignment, ...]],
    n_boot: int,
    seed: int,
) -> dict[str, pd.DataFrame]:
    """Tables temperatures, calibration (Brier, ECE, NLL) and reliability (the curve).

    `forecast` is "raw" (the network's probabilities) or "scaled" by the temperature, which each
    protocol fits on its studies to choose on.
    """
    fitted, scores, curves = [], {}, {}
    for model, table in slices.items():
        forecasts = {(BOTH, "raw"): reported[model]}
        for protocol, of_protocol in assignments.items():
            pieces = []
            for assignment in of_protocol:
                chosen, rest = (
                    table[table[STUDY].isin(names)]
                    for names in (assignment.chosen, assignment.reported)
                )
                t = fit_temperature(chosen[SLICE_LABEL], chosen["prob"])
                on = assignment.chosen_on, assignment.reported_on
                fitted.append((protocol, model, *on, t.value, t.note))
                pieces.append(rest.assign(prob=apply_temperature(rest["prob"], t.value)))
            forecasts[protocol, "scaled"] = pd.concat(pieces)
        for (protocol, forecast), t in forecasts.items():
            columns = t[SLICE_LABEL], t["prob"], t[STUDY]
            key = protocol, model, forecast
            scores[key] = calibration_metrics(*columns, n_boot, seed)
            curves[key] = reliability(*columns, n_boot, seed)
    columns = [*KEYS, "chosen_on", "reported_on", "temperature", "note"]
    keys = [*KEYS, "forecast"]
    return {
        "temperatures": pd.DataFrame(fitted, columns=columns),
        "calibration": _stacked(scores, keys),
        "reliability": pd.concat(curves, names=keys).droplevel(-1).reset_index(),
    }


def subgroups(evaluated: ByStudy, positive_slices: pd.Series, labels: pd.DataFrame) -> pd.DataFrame:
    """Columns of `pekit.evaluation.subgroups.subgroup_metrics`."""
    found = {key: subgroup_metrics(t, positive_slices, labels) for key, t in evaluated.items()}
    return pd.concat(found, names=KEYS).droplevel(-1).reset_index()


def verdicts(evaluated: ByStudy) -> pd.DataFrame:
    """One row per study: StudyInstanceUID, truth, verdict (0 or 1), score."""
    table = pd.concat(evaluated, names=KEYS).reset_index()
    return table.astype({"truth": int, "verdict": int})


def _differences(
    a: pd.DataFrame, b: pd.DataFrame, n_boot: int, seed: int
) -> Iterator[tuple[str, str, Difference]]:
    truth = a["truth"]
    verdicts = a["verdict"], b["verdict"]
    yield "F1", "resampled", f1_difference(truth, *verdicts, n_boot, seed)
    yield "AUROC", "DeLong", delong(truth, a["score"], b["score"])
    for measure, rows in (
        ("sensitivity", truth),
        ("specificity", ~truth),
        ("accuracy", truth | ~truth),
    ):
        yield measure, "McNemar", mcnemar(truth[rows], *(v[rows] for v in verdicts))


def _slice_differences(
    a: pd.DataFrame, b: pd.DataFrame, n_boot: int, seed: int
) -> Iterator[tuple[str, str, Difference]]:
    a, b = (t.set_index([STUDY, "z"]).sort_index() for t in (a, b))
    studies = a.index.get_level_values(STUDY).to_series(index=a.index)
    found = slice_differences(a[SLICE_LABEL], a["prob"], b["prob"], studies, n_boot, seed)
    for measure, difference in found.items():
        yield measure, "resampled", difference


def _stacked(found: Mapping[tuple[str, ...], pd.DataFrame], keys: list[str] = KEYS) -> pd.DataFrame:
    """Metrics by key as one long table."""
    return pd.concat(found, names=keys).reset_index()
