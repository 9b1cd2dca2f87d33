"""Study and slice metrics, each with a 95 % interval.

Proportions have Wilson's interval; the rest are resampled over studies. A metric that is undefined
on these studies is NaN with the reason beside it in the column `note`; inputs that cannot be judged
at all raise.
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
    resampled_f1,
    resampled_ranking,
)
from pekit.evaluation.checks import Vector, aligned, binary, both_classes, in_unit_interval

COLUMNS = ("value", "low", "high", "note")
# Of studies, in the order of tables I to IV; the paper has no AUROC.
SUMMARY = ("sensitivity", "specificity", "PPV", "NPV", "F1", "AUROC")
Q_WEIGHTED = "q-weighted AUROC"


def confusion(truth: Vector, verdict: Vector) -> np.ndarray:
    """Counts of studies `(2, 2)` as scikit-learn lays them out: [[TN, FP], [FN, TP]].

    Args:
        truth: whether each study has PE, 0 or 1.
        verdict: whether each study is called positive, 0 or 1.

    Raises:
        UserError: different lengths or order, values other than 0 and 1, or no studies.
    """
    truth, verdict = aligned(truth=truth, verdict=verdict)
    return confusion_matrix(binary(truth, "truth"), binary(verdict, "verdict"), labels=[0, 1])


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
        score: study score in [0,1] for AUROC and AP, which are left out without it. Series are
            taken by position and must share their index.
        n_boot: resamples of the studies, for F1, AUROC and AP.
        seed: of the resampling.

    Returns:
        Rows sensitivity, specificity, PPV, NPV, F1, AUROC, AP; columns value, low, high, note.
        A ratio of 0/0 (PPV when no study is called positive) is NaN and its note says why.

    Raises:
        UserError: one class only, different lengths or order, NaN, or values out of range.
    """
    given = {"truth": truth, "verdict": verdict} | ({} if score is None else {"score": score})
    truth, verdict, *scores = aligned(**given)
    truth, verdict = both_classes(binary(truth, "truth")), binary(verdict, "verdict")
    (tn, fp), (fn, tp) = confusion_matrix(truth, verdict, labels=[0, 1])
    resampled = resampled_f1(truth, verdict, n_boot, seed)
    rows = {
        "sensitivity": proportion(tp, tp + fn, "no study has PE"),
        "specificity": proportion(tn, tn + fp, "every study has PE"),
        "PPV": proportion(tp, tp + fp, "no study is called positive"),
        "NPV": proportion(tn, tn + fn, "every study is called positive"),
        "F1": percentiles(2 * tp / (2 * tp + fp + fn), resampled[~np.isnan(resampled)]),
    }
    table = metric_rows(rows)
    if scores:
        table = pd.concat([table, ranking_metrics(truth, scores[0], n_boot=n_boot, seed=seed)])
    return table.rename_axis("metric")


def slice_metrics(
    predictions: pd.DataFrame, hop: str, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Slice-level AUROC, AP and q-weighted AUROC of a hop, studies resampled for the intervals.

    The q-weighted AUROC weighs the images as the competition's log loss does: each image of exam i
    by q_i = m_i / n_i, the share of its images that show PE; a pair of a positive image of exam i
    and a negative one of exam j by q_i q_j. Images of exams without PE have q = 0 and weigh
    nothing, as in the official metric: it says how well the images of exams with PE are told
    apart, not whether an exam has PE. It is scikit-learn's roc_auc_score with q as sample_weight,
    which is what the 6th place's "q-weighted image AUC" (0.966) can mean; their write-up does not
    define it.

    Args:
        predictions: a row a slice: StudyInstanceUID, pe_present_on_image and a column each hop.
        hop: the column to judge, such as "hop2".

    Returns:
        Rows AUROC, AP, q-weighted AUROC; columns value, low, high, note.

    Raises:
        UserError: a missing column, unlabelled slices, one class only, or bad probabilities.
    """
    missing = [c for c in ("StudyInstanceUID", SLICE_LABEL, hop) if c not in predictions]
    if missing:
        raise UserError(f"the predictions lack {', '.join(missing)}: they have {list(predictions)}")
    columns = predictions[SLICE_LABEL], predictions[hop], predictions.StudyInstanceUID
    table = ranking_metrics(*columns, n_boot, seed)
    weighted = metric_rows({Q_WEIGHTED: _q_weighted_auroc(*columns, n_boot, seed)})
    return pd.concat([table, weighted]).rename_axis("metric")


def ranking_metrics(
    truth: Vector,
    score: Vector,
    study: Vector | None = None,
    n_boot: int = 2000,
    seed: int = 0,
) -> pd.DataFrame:
    """AUROC and average precision (AP), with 95 % intervals from resampled studies.

    Resamples without both classes are left out, for neither metric is defined on them.

    Args:
        truth: 0 or 1 for each study or slice.
        score: in [0,1], for each study or slice.
        study: the study that each row belongs to; each row is its own study without it.

    Returns:
        Rows AUROC, AP; columns value, low, high, note.

    Raises:
        UserError: one class only, different lengths or order, NaN, or values out of range.
    """
    given = {"truth": truth, "score": score} | ({} if study is None else {"study": study})
    truth, score, *studies = aligned(**given)
    truth = both_classes(binary(truth, "truth"))
    score = in_unit_interval(score)
    cluster = np.unique(studies[0], return_inverse=True)[1] if studies else np.arange(len(truth))
    auroc, ap = resampled_ranking(truth, score, cluster, n_boot, seed)
    rows = {
        "AUROC": percentiles(roc_auc_score(truth, score), auroc),
        "AP": percentiles(average_precision_score(truth, score), ap),
    }
    return metric_rows(rows)


def summary(metrics: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """A table for people: a row a key, in the given order, "0.929 [0.886, 0.957]" a metric.

    Args:
        metrics: long: the key's columns, metric, value, low, high.
        key: columns that name a row.
    """
    text = metrics.assign(text=with_intervals(metrics))
    rows = text[key].drop_duplicates()
    wide = text.pivot(index=key, columns="metric", values="text")
    wide = wide.loc[list(rows.itertuples(index=False, name=None)), list(SUMMARY)]
    return wide.rename_axis(columns=None).reset_index()


def with_intervals(metrics: pd.DataFrame, digits: int = 3) -> list[str]:
    """ "0.929 [0.886, 0.957]" for each row: value, low, high; "undefined" where there is none."""
    return [
        f"{r.value:.{digits}f} [{r.low:.{digits}f}, {r.high:.{digits}f}]"
        if pd.notna(r.value)
        else "undefined"
        for r in metrics.itertuples()
    ]


def metric_rows(rows: dict[str, Value]) -> pd.DataFrame:
    """Values by metric as a table of columns value, low, high, note."""
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS))
    return table.rename_axis("metric")


def _q_weighted_auroc(
    label: pd.Series, prob: pd.Series, study: pd.Series, n_boot: int, seed: int
) -> Value:
    """As `slice_metrics` defines it, of vectors that `ranking_metrics` has checked."""
    q = label.groupby(study).transform("mean").to_numpy()
    truth, score = label.to_numpy().astype(bool), prob.to_numpy(np.float64)
    if not ((q > 0) & ~truth).any():
        reason = "undefined: every slice of every study with PE shows it"
        return np.nan, np.nan, np.nan, reason
    cluster = np.unique(study, return_inverse=True)[1]
    resampled, _ = resampled_ranking(truth, score, cluster, n_boot, seed, weight=q)
    return percentiles(roc_auc_score(truth, score, sample_weight=q), resampled)
