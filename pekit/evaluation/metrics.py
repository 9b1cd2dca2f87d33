"""Study and slice metrics, each with a 95 % interval.

Proportions have Wilson's interval, all other metrics a bootstrap interval over studies. A metric
that is undefined on these studies is NaN, with the reason in the column `note`. Input that cannot
be evaluated raises an error.
"""

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from pekit.common.errors import UserError
from pekit.dataset.schema import SLICE_LABEL
from pekit.evaluation.bootstrap import (
    Value,
    percentiles,
    proportion,
    resampled_counts,
    resampled_ranking,
)
from pekit.evaluation.checks import Vector, both_classes, checked, require_columns
from pekit.evaluation.predictions import STUDY
from pekit.evaluation.published import PAPER_PREVALENCE

COLUMNS = ("value", "low", "high", "note")
# PPV and F1 at the paper's prevalence, to read beside the paper's.
PPV_AT, F1_AT = (f"{name} at {100 * PAPER_PREVALENCE:.0f} %" for name in ("PPV", "F1"))
# Study metrics that people read, the two of most tables first; the paper has no AUROC.
SUMMARY = ("F1", "AUROC", F1_AT, "sensitivity", "specificity", "PPV", "NPV", PPV_AT)
Q_WEIGHTED = "q-weighted AUROC"


def confusion(truth: Vector, verdict: Vector) -> np.ndarray:
    """Counts of studies `(2, 2)` as scikit-learn lays them out: [[TN, FP], [FN, TP]].

    Args:
        truth: whether each study has PE, 0 or 1.
        verdict: verdict of each study, 0 or 1.

    Raises:
        UserError: different lengths or order, values other than 0 and 1, or no studies.
    """
    return confusion_matrix(*checked(truth=truth, verdict=verdict), labels=[0, 1])


def study_metrics(
    truth: Vector,
    verdict: Vector,
    score: Vector | None = None,
    n_boot: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """Study-level metrics with 95 % intervals, as in tables I to IV of the paper.

    Args:
        truth: whether each study has PE, 0 or 1.
        verdict: the vote's verdict of each study, 0 or 1.
        score: study score in [0,1], for AUROC and AP; without it they are left out. Series must
            share their index.
        n_boot: bootstrap resamples of the studies, for all but the proportions.
        seed: random seed of the resampling.

    Returns:
        Rows sensitivity, specificity, PPV, NPV, F1, PPV and F1 at the paper's prevalence, AUROC,
        AP; columns value, low, high, note. A ratio of 0/0 (PPV where no verdict is positive) is
        NaN, and its note says why.

    Raises:
        UserError: one class only, different lengths or order, NaN, or values out of range.
    """
    given = {"truth": truth, "verdict": verdict} | ({} if score is None else {"score": score})
    truth, verdict, *scores = checked(**given)
    both_classes(truth)
    tn, fp, fn, tp = counts = confusion_matrix(truth, verdict, labels=[0, 1]).ravel()
    value = count_metrics(*counts)
    resampled = count_metrics(*resampled_counts(truth, verdict, n_boot, seed))
    rows = {
        "sensitivity": proportion(tp, tp + fn, "no study has PE"),
        "specificity": proportion(tn, tn + fp, "every study has PE"),
        "PPV": proportion(tp, tp + fp, "no verdict is positive"),
        "NPV": proportion(tn, tn + fn, "every verdict is positive"),
    }
    for name in ("F1", PPV_AT, F1_AT):
        defined = resampled[name][~np.isnan(resampled[name])]
        undefined = np.nan, np.nan, np.nan, "undefined: no verdict is positive"
        rows[name] = undefined if np.isnan(value[name]) else percentiles(value[name], defined)
    if scores:
        rows |= _ranking(truth, scores[0], np.arange(len(truth)), n_boot, seed)
    return metric_rows(rows)


def count_metrics(
    tn: np.ndarray, fp: np.ndarray, fn: np.ndarray, tp: np.ndarray
) -> dict[str, np.ndarray]:
    """Metrics by name from counts of studies, numbers or arrays of one shape; NaN for 0/0."""
    tn, fp, fn, tp = (np.asarray(count, np.float64) for count in (tn, fp, fn, tp))
    with np.errstate(invalid="ignore"):
        sensitivity, specificity = tp / (tp + fn), tn / (tn + fp)
        ppv_at, f1_at = at_prevalence(sensitivity, specificity, PAPER_PREVALENCE)
        return {
            "sensitivity": sensitivity,
            "specificity": specificity,
            "PPV": tp / (tp + fp),
            "NPV": tn / (tn + fn),
            "F1": 2 * tp / (2 * tp + fp + fn),
            PPV_AT: ppv_at,
            F1_AT: f1_at,
        }


def at_prevalence(
    sensitivity: np.ndarray, specificity: np.ndarray, prevalence: float
) -> tuple[np.ndarray, np.ndarray]:
    """PPV and F1 that a sensitivity and a specificity give at another prevalence.

    Sensitivity and specificity do not depend on the share of studies with PE; PPV and F1 do. Per
    study, true positives are sensitivity * prevalence, and false positives
    (1 - specificity) * (1 - prevalence).

    Args:
        sensitivity, specificity: in [0,1], numbers or arrays of one shape.
        prevalence: share of studies with PE, in (0,1).

    Returns:
        PPV (NaN where no verdict is positive) and F1.

    Raises:
        UserError: a prevalence that is not in (0,1).
    """
    if not 0 < prevalence < 1:
        raise UserError(f"prevalence {prevalence}: give the share of studies with PE, in (0,1)")
    tp = np.asarray(sensitivity) * prevalence
    fp = (1 - np.asarray(specificity)) * (1 - prevalence)
    with np.errstate(invalid="ignore"):
        return tp / (tp + fp), 2 * tp / (tp + fp + prevalence)


def slice_metrics(
    predictions: pd.DataFrame, hop: str, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Slice AUROC, AP and q-weighted AUROC of a hop, with bootstrap intervals over studies.

    The q-weighted AUROC weights the slices as the competition's log loss does: each slice of study
    i by q_i = m_i / n_i, the share of its slices that show PE; a pair of a positive slice of study
    i and a negative one of study j by q_i q_j. Slices of studies without PE have q = 0 and do not
    count, as in the official metric: it measures how well slices are separated within studies with
    PE, not whether a study has PE. It is scikit-learn's roc_auc_score with q as sample_weight.
    The 6th place's "q-weighted image AUC" (0.966) probably is the same; their write-up does not
    define it.

    Args:
        predictions: one row per slice: StudyInstanceUID, pe_present_on_image, one column per hop.
        hop: the column to evaluate, such as "hop2".

    Returns:
        Rows AUROC, AP, q-weighted AUROC; columns value, low, high, note.

    Raises:
        UserError: a missing column, unlabelled slices, one class only, or bad probabilities.
    """
    require_columns(predictions, (STUDY, SLICE_LABEL, hop))
    label, prob, study = (predictions[name] for name in (SLICE_LABEL, hop, STUDY))
    truth, score, cluster = checked(truth=label, score=prob, study=study)
    both_classes(truth)
    q = label.groupby(study).transform("mean").to_numpy()
    rows = _ranking(truth, score, cluster, n_boot, seed)
    return metric_rows(rows | {Q_WEIGHTED: _weighted_auroc(truth, score, cluster, q, n_boot, seed)})


def ranking_metrics(
    truth: Vector,
    score: Vector,
    study: Vector | None = None,
    n_boot: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """AUROC and average precision (AP), with 95 % bootstrap intervals over studies.

    Resamples without both classes are left out, because neither metric is defined on them.

    Args:
        truth: 0 or 1 for each study or slice.
        score: in [0,1], for each study or slice.
        study: the study of each row; without it, each row is a study of its own.

    Returns:
        Rows AUROC, AP; columns value, low, high, note.

    Raises:
        UserError: one class only, different lengths or order, NaN, or values out of range.
    """
    given = {"truth": truth, "score": score} | ({} if study is None else {"study": study})
    truth, score, *clusters = checked(**given)
    both_classes(truth)
    cluster = clusters[0] if clusters else np.arange(len(truth))
    return metric_rows(_ranking(truth, score, cluster, n_boot, seed))


def summary(metrics: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """A table to read: one row per key in the given order, one column per metric, as text.

    Args:
        metrics: long table: the key's columns, metric, value, low, high.
        key: the columns that identify a row.

    Returns:
        The key's columns and `SUMMARY`, such as "0.929 [0.886, 0.957]".
    """
    text = metrics.assign(text=with_intervals(metrics))
    rows = text[key].drop_duplicates()
    wide = text.pivot(index=key, columns="metric", values="text")[list(SUMMARY)]
    return rows.merge(wide.rename_axis(columns=None).reset_index(), on=key)


def with_intervals(metrics: pd.DataFrame, digits: int = 3) -> list[str]:
    """Value, low and high of each row as "0.929 [0.886, 0.957]"; "undefined" for NaN."""
    return [
        f"{r.value:.{digits}f} [{r.low:.{digits}f}, {r.high:.{digits}f}]"
        if pd.notna(r.value)
        else "undefined"
        for r in metrics.itertuples()
    ]


def metric_rows(rows: dict[str, Value]) -> pd.DataFrame:
    """Values by metric as a table with the columns value, low, high, note."""
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS))
    return table.rename_axis("metric")


def _ranking(
    truth: np.ndarray, score: np.ndarray, cluster: np.ndarray, n_boot: int, seed: int
) -> dict[str, Value]:
    auroc, ap = resampled_ranking(truth, score, cluster, n_boot, seed)
    return {
        "AUROC": percentiles(roc_auc_score(truth, score), auroc),
        "AP": percentiles(average_precision_score(truth, score), ap),
    }


def _weighted_auroc(
    truth: np.ndarray, score: np.ndarray, cluster: np.ndarray, q: np.ndarray, n_boot: int, seed: int
) -> Value:
    if not ((q > 0) & ~truth).any():
        reason = "undefined: every slice of every study with PE shows it"
        return np.nan, np.nan, np.nan, reason
    resampled, _ = resampled_ranking(truth, score, cluster, n_boot, seed, weight=q)
    return percentiles(roc_auc_score(truth, score, sample_weight=q), resampled)
