"""Study and slice metrics, each with a 95 % interval.

Proportions have Wilson's interval. The rest are resampled over studies, since the slices of one
study are not independent. A metric that is undefined on these studies is NaN with the reason
beside it in the column `note`; inputs that cannot be judged at all raise.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from pekit.errors import UserError
from pekit.store import SLICE_LABEL

COLUMNS = ("value", "low", "high", "note")
CONFIDENCE = 0.95
# Distinct scores that the bootstrap tells apart. Below it is exact; above, scores are merged into
# bins of equal mass, which moves the ends of an interval by less than 0.001.
BINS = 1024
_BLOCK = 250  # resamples at a time: bounds the memory


def confusion(truth: np.ndarray | pd.Series, verdict: np.ndarray | pd.Series) -> np.ndarray:
    """Counts of studies `(2, 2)` as scikit-learn lays them out: [[TN, FP], [FN, TP]].

    Args:
        truth: whether each study has PE, 0 or 1.
        verdict: whether each study is called positive, 0 or 1.

    Raises:
        UserError: different lengths or order, values other than 0 and 1, or no studies.
    """
    truth, verdict = _aligned(truth=truth, verdict=verdict)
    return confusion_matrix(_binary(truth, "truth"), _binary(verdict, "verdict"), labels=[0, 1])


def study_metrics(
    truth: np.ndarray | pd.Series,
    verdict: np.ndarray | pd.Series,
    score: np.ndarray | pd.Series | None = None,
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
    truth, verdict, *scores = _aligned(**given)
    truth, verdict = _both_classes(_binary(truth, "truth")), _binary(verdict, "verdict")
    (tn, fp), (fn, tp) = confusion_matrix(truth, verdict, labels=[0, 1])
    rows = {
        "sensitivity": _proportion(tp, tp + fn, "no study has PE"),
        "specificity": _proportion(tn, tn + fp, "every study has PE"),
        "PPV": _proportion(tp, tp + fp, "no study is called positive"),
        "NPV": _proportion(tn, tn + fn, "every study is called positive"),
        "F1": _f1(truth, verdict, n_boot, seed),
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS))
    if scores:
        table = pd.concat([table, ranking_metrics(truth, scores[0], n_boot=n_boot, seed=seed)])
    return table.rename_axis("metric")


def slice_metrics(
    predictions: pd.DataFrame, hop: str, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Slice-level AUROC and AP of a hop, with 95 % intervals from resampled studies.

    Args:
        predictions: a row a slice: StudyInstanceUID, pe_present_on_image and a column each hop.
        hop: the column to judge, such as "hop2".

    Returns:
        Rows AUROC, AP; columns value, low, high, note.

    Raises:
        UserError: a missing column, unlabelled slices, one class only, or bad probabilities.
    """
    missing = [c for c in ("StudyInstanceUID", SLICE_LABEL, hop) if c not in predictions]
    if missing:
        raise UserError(f"the predictions lack {', '.join(missing)}: they have {list(predictions)}")
    return ranking_metrics(
        predictions[SLICE_LABEL], predictions[hop], predictions.StudyInstanceUID, n_boot, seed
    )


def ranking_metrics(
    truth: np.ndarray | pd.Series,
    score: np.ndarray | pd.Series,
    study: np.ndarray | pd.Series | None = None,
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
    truth, score, *studies = _aligned(**given)
    truth = _both_classes(_binary(truth, "truth"))
    score = score.astype(np.float64)
    if not ((score >= 0) & (score <= 1)).all():
        bad = score[~((score >= 0) & (score <= 1))][0]
        raise UserError(f"score {bad} is not in [0,1]: predict these studies again")
    cluster = np.unique(studies[0], return_inverse=True)[1] if studies else np.arange(len(truth))
    auroc, ap = _resampled_ranking(truth, score, cluster, n_boot, seed)
    rows = {
        "AUROC": _interval(roc_auc_score(truth, score), auroc),
        "AP": _interval(average_precision_score(truth, score), ap),
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=list(COLUMNS))
    return table.rename_axis("metric")


def _proportion(hits: int, of: int, undefined: str) -> tuple[float, float, float, str]:
    if of == 0:
        return np.nan, np.nan, np.nan, f"undefined: {undefined}"
    wilson = binomtest(int(hits), int(of)).proportion_ci(CONFIDENCE, method="wilson")
    return hits / of, wilson.low, wilson.high, ""


def _interval(value: float, resampled: np.ndarray) -> tuple[float, float, float, str]:
    """Percentile interval of the resampled values."""
    if not len(resampled):
        raise UserError("no resample of the studies has both classes: give more studies or n_boot")
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    # A perfect metric is perfect in every resample: its interval says nothing of new studies.
    note = "every resample gives the same value" if low == high else ""
    return float(value), float(low), float(high), note


def _f1(
    truth: np.ndarray, verdict: np.ndarray, n_boot: int, seed: int
) -> tuple[float, float, float, str]:
    counts = np.stack([truth & verdict, truth ^ verdict], axis=1).astype(np.float64)
    tp, wrong = counts.sum(axis=0)
    resampled = np.concatenate([weights @ counts for weights in _weights(len(truth), n_boot, seed)])
    total = 2 * resampled[:, 0] + resampled[:, 1]
    defined = total > 0
    values = 2 * resampled[defined, 0] / total[defined]
    return _interval(2 * tp / (2 * tp + wrong), values)


def _resampled_ranking(
    truth: np.ndarray, score: np.ndarray, cluster: np.ndarray, n_boot: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and AP of each resample of the clusters that has both classes.

    Each study becomes a histogram of its scores, by class; a resample is then a weighted sum of
    histograms, whatever the number of slices.
    """
    bins, n_bins = _score_bins(truth, score)
    n_clusters = int(cluster.max()) + 1
    cells = cluster * n_bins + bins
    histograms = [
        np.bincount(cells, weights=of_class, minlength=n_clusters * n_bins).reshape(-1, n_bins)
        for of_class in (truth, ~truth)
    ]
    auroc, ap = [], []
    for weights in _weights(n_clusters, n_boot, seed):
        # Highest scores first, so that a running sum counts what lies above a threshold.
        pos, neg = ((weights @ histogram)[:, ::-1] for histogram in histograms)
        n_pos, n_neg = pos.sum(axis=1), neg.sum(axis=1)
        both = (n_pos > 0) & (n_neg > 0)
        pos, neg, n_pos, n_neg = pos[both], neg[both], n_pos[both], n_neg[both]
        tp, fp = np.cumsum(pos, axis=1), np.cumsum(neg, axis=1)
        below = n_neg[:, None] - fp + neg / 2  # ties count half
        auroc.append((pos * below).sum(axis=1) / (n_pos * n_neg))
        ap.append((pos * tp / np.maximum(tp + fp, 1)).sum(axis=1) / n_pos)
    return np.concatenate(auroc), np.concatenate(ap)


def _score_bins(truth: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, int]:
    """Bin of each score, in the scores' order, and the number of bins: at most BINS."""
    distinct, rank = np.unique(score, return_inverse=True)
    if len(distinct) <= BINS:
        return rank, len(distinct)
    # Bins of equal mass with both classes weighing the same: positive slices are rare.
    mass = sum(
        np.bincount(rank, of_class, len(distinct)) / of_class.sum() / 2
        for of_class in (truth, ~truth)
    )
    bins = ((np.cumsum(mass) - mass / 2) * BINS).astype(np.int64).clip(0, BINS - 1)
    return bins[rank], BINS


def _weights(n: int, n_boot: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks `(resamples, n)` of how often each of n studies is drawn in a resample of n."""
    if n_boot < 1:
        raise UserError(f"n_boot={n_boot}: an interval needs resamples, 2000 are usual")
    rng = np.random.default_rng(seed)
    for start in range(0, n_boot, _BLOCK):
        rows = min(_BLOCK, n_boot - start)
        drawn = rng.integers(n, size=(rows, n)) + np.arange(rows)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(np.float64)


def _aligned(**arrays: np.ndarray | pd.Series) -> list[np.ndarray]:
    """The values of each array, known to be of the same rows in the same order."""
    series = {name: a for name, a in arrays.items() if isinstance(a, pd.Series)}
    first = next(iter(series), None)
    for name, values in series.items():
        if not values.index.equals(series[first].index):
            raise UserError(
                f"{first} and {name} are of other studies or in another order: "
                f"reindex {name} like {first}"
            )
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise UserError(f"lengths differ: {lengths}; give one value a row")
    if not min(lengths.values()):
        raise UserError("no studies to judge: the predictions are empty")
    return [np.asarray(values) for values in arrays.values()]


def _binary(values: np.ndarray, name: str) -> np.ndarray:
    if not np.isin(values, (0, 1)).all():
        bad = values[~np.isin(values, (0, 1))][0]
        raise UserError(f"{name} has the value {bad}: only 0 and 1 can be judged")
    return values.astype(bool)


def _both_classes(truth: np.ndarray) -> np.ndarray:
    if truth.all() or not truth.any():
        kind = "positive" if truth.all() else "negative"
        raise UserError(f"all {len(truth)} are {kind}: metrics need both classes")
    return truth
