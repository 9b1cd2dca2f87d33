"""Paired tests: hand-computed tables, statsmodels, scikit-learn, and the definitions by loops."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests

from pekit.common.errors import UserError
from pekit.evaluation.paired import delong, f1_difference, holm, mcnemar, slice_differences


def cohort(seed, n=80, decimals=6):
    rng = np.random.default_rng(seed)
    truth = rng.random(n) < 0.4
    truth[:2] = True, False
    signal = rng.normal(size=n)
    scores = [1 / (1 + np.exp(-(signal + rng.normal(size=n) + k * truth - 1))) for k in (1.0, 2.0)]
    return truth, *(score.round(decimals) for score in scores)


def test_mcnemar_by_hand():
    # 10 studies: a alone is right on 1, b alone on 6, both on 2, none on 1.
    truth = np.array([1, 1, 1, 1, 0, 0, 0, 1, 0, 1])
    right_a = np.array([1, 0, 0, 0, 0, 0, 0, 1, 1, 0], bool)
    right_b = np.array([0, 1, 1, 1, 1, 1, 1, 1, 1, 0], bool)
    a, b = np.where(right_a, truth, 1 - truth), np.where(right_b, truth, 1 - truth)
    found = mcnemar(truth, a, b)
    assert found.difference == pytest.approx(5 / 10)
    # Two-sided binomial of 1 in 7: 2 * (1 + 7) / 2^7.
    assert found.p == pytest.approx(2 * 8 / 128)
    # Agresti and Min: 5/12 +- 1.96 sqrt(8 - 25/12) / 12.
    half = 1.959964 * np.sqrt(8 - 25 / 12) / 12
    assert (found.low, found.high) == pytest.approx((5 / 12 - half, 5 / 12 + half), abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_mcnemar_equals_statsmodels_and_scipy(seed):
    truth, score_a, score_b = cohort(seed)
    a, b = score_a > 0.5, score_b > 0.5
    table = pd.crosstab(a == truth, b == truth).reindex(
        index=[True, False], columns=[True, False], fill_value=0
    )
    found = mcnemar(truth, a, b)
    assert found.p == pytest.approx(reference_mcnemar(table.to_numpy(), exact=True).pvalue)
    only_a, only_b = table.loc[True, False], table.loc[False, True]
    assert found.p == pytest.approx(binomtest(only_a, only_a + only_b).pvalue)
    assert found.difference == pytest.approx((b == truth).mean() - (a == truth).mean())
    assert found.low < found.difference < found.high
    back = mcnemar(truth, b, a)
    assert (back.difference, back.p) == pytest.approx((-found.difference, found.p))


def test_equal_models_have_no_difference():
    truth, score, _ = cohort(3)
    verdict = score > 0.5
    same = mcnemar(truth, verdict, verdict)
    assert (same.difference, same.p) == (0, 1)
    assert same.note == "both models give every study the same verdict"
    assert same.low == -same.high < 0
    same = delong(truth, score, score)
    assert same.difference == 0
    assert np.isnan([same.p, same.low, same.high]).all()
    assert same.note.startswith("undefined: no study is ranked differently")


def delong_by_definition(truth, score_a, score_b):
    """The structural components by comparing all pairs (DeLong et al. 1988)."""
    parts = []
    for score in (score_a, score_b):
        pos, neg = score[truth], score[~truth]
        pairs = (pos[:, None] > neg) + 0.5 * (pos[:, None] == neg)
        parts.append((pairs.mean(axis=1), pairs.mean(axis=0)))
    (v10_a, v01_a), (v10_b, v01_b) = parts
    s10, s01 = np.cov(v10_a, v10_b), np.cov(v01_a, v01_b)
    s = s10 / len(v10_a) + s01 / len(v01_a)
    difference = v10_b.mean() - v10_a.mean()
    z = difference / np.sqrt(s[0, 0] + s[1, 1] - 2 * s[0, 1])
    return difference, 2 * norm.sf(abs(z))


@pytest.mark.parametrize("decimals", [1, 6])
@pytest.mark.parametrize("seed", range(4))
def test_delong_equals_its_definition(seed, decimals):
    truth, score_a, score_b = cohort(seed, decimals=decimals)
    found = delong(truth, score_a, score_b)
    difference, p = delong_by_definition(truth, score_a, score_b)
    assert found.difference == pytest.approx(difference)
    assert found.difference == pytest.approx(
        roc_auc_score(truth, score_b) - roc_auc_score(truth, score_a)
    )
    assert found.p == pytest.approx(p)
    assert (found.low + found.high) / 2 == pytest.approx(found.difference)
    assert (found.low > 0 or found.high < 0) == (found.p < 0.05)


def test_delong_by_hand():
    # Positives a 0.8, 0.6, b 0.9, 0.3; negatives 0.7, 0.1 and 0.5, 0.2.
    # a: shares of negatives below each positive 1, 1/2, of positives above each negative 1/2, 1;
    # b: 1, 1/2 and 1/2, 1. AUROC 3/4 twice, no component differs.
    found = delong([1, 1, 0, 0], [0.8, 0.6, 0.7, 0.1], [0.9, 0.3, 0.5, 0.2])
    assert found.difference == 0
    assert np.isnan(found.p)
    # b' ranks all correctly: components 1, 1 and 1, 1; differences 0, 1/2 and 1/2, 0, variance 1/8
    # each, of the mean 1/16 each: z = (1/4) / sqrt(1/8) = 0.7071.
    found = delong([1, 1, 0, 0], [0.8, 0.6, 0.7, 0.1], [0.9, 0.8, 0.5, 0.2])
    assert found.difference == pytest.approx(0.25)
    assert found.p == pytest.approx(2 * norm.sf(0.25 / np.sqrt(0.125)))


def test_p_values_are_uniform_where_models_are_equal():
    """Two scores of the same quality: about 5 % of the tests are below 0.05."""
    rng = np.random.default_rng(1)
    below = 0
    for _ in range(400):
        truth = rng.random(120) < 0.4
        base = rng.normal(size=120) + truth
        a, b = (1 / (1 + np.exp(-(base + rng.normal(size=120)))) for _ in range(2))
        below += delong(truth, a, b).p < 0.05
    assert 8 <= below <= 34


def test_f1_difference_resamples_both_models_together():
    truth, score_a, score_b = cohort(2)
    a, b = score_a > 0.5, score_b > 0.5
    found = f1_difference(truth, a, b)
    assert found.difference == pytest.approx(f1_score(truth, b) - f1_score(truth, a))
    assert found.low < found.difference < found.high
    assert np.isnan(found.p)
    assert found.note
    # The same verdicts differ by 0 in every resample, unless each model is resampled on its own.
    same = f1_difference(truth, a, a)
    assert (same.low, same.difference, same.high) == (0, 0, 0)


def test_slices_of_a_study_are_resampled_together_for_both_models():
    rng = np.random.default_rng(5)
    study = np.repeat(np.arange(12), 15)
    truth = (rng.random(180) < 0.3).astype(int)
    noise = rng.normal(size=180)
    a, b = (1 / (1 + np.exp(-(noise + rng.normal(size=180) + k * truth))) for k in (1, 2))
    a, b = a.round(3), b.round(3)
    found = slice_differences(truth, a, b, study, n_boot=60, seed=2)
    scores = {"slice AUROC": roc_auc_score, "slice AP": average_precision_score}
    rng = np.random.default_rng(2)
    drawn = [rng.integers(12, size=(60, 12))]  # as pekit.evaluation.bootstrap draws them: one block
    rows = [np.concatenate([np.flatnonzero(study == s) for s in d]) for d in drawn[0]]
    for name, score in scores.items():
        difference = found[name]
        assert difference.difference == pytest.approx(score(truth, b) - score(truth, a))
        loop = [score(truth[r], b[r]) - score(truth[r], a[r]) for r in rows]
        low, high = np.quantile(loop, [0.025, 0.975])
        assert (difference.low, difference.high) == pytest.approx((low, high))
        assert np.isnan(difference.p)


def test_holm_equals_statsmodels_and_keeps_nan():
    rng = np.random.default_rng(0)
    for n in (1, 2, 5):
        p = rng.random(n) ** 2
        expected = multipletests(p, method="holm")[1]
        assert holm(pd.Series(p)).tolist() == pytest.approx(expected.tolist())
    by_hand = holm(pd.Series([0.04, np.nan, 0.01, 0.9]))
    assert by_hand.dropna().tolist() == pytest.approx([0.08, 0.03, 0.9])
    assert np.isnan(by_hand[1])


@pytest.mark.parametrize(
    ("test", "vectors", "message"),
    [
        (mcnemar, ([1, 0], [1, 0], [1]), "lengths differ"),
        (mcnemar, ([1, 0], [1, 2], [1, 0]), "verdict_a has the value 2"),
        (mcnemar, ([], [], []), "empty"),
        (delong, ([1, 1], [0.1, 0.2], [0.1, 0.2]), "all 2 are positive"),
        (delong, ([1, 0], [0.1, np.nan], [0.1, 0.2]), "score_a has the value nan"),
        (delong, ([1, 0], [0.1, 0.2], [0.1, 1.2]), r"score_b has the value 1\.2"),
        (f1_difference, ([0, 0], [0, 1], [0, 1]), "all 2 are negative"),
    ],
)
def test_bad_input_is_named(test, vectors, message):
    with pytest.raises(UserError, match=message):
        test(*vectors)


def test_studies_in_another_order_are_refused():
    truth = pd.Series([1, 0], index=["a", "b"])
    other = pd.Series([0.1, 0.2], index=["b", "a"])
    with pytest.raises(UserError, match="truth and score_b have other studies"):
        delong(truth, truth.astype(float), other)
