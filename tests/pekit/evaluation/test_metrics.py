"""Metrics with intervals: the paper's row, hand-computed cases, and plain resampling loops."""

import time

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from pekit.common.errors import UserError
from pekit.evaluation import bootstrap as resampling
from pekit.evaluation.metrics import (
    at_prevalence,
    confusion,
    ranking_metrics,
    slice_metrics,
    study_metrics,
    summary,
)
from pekit.evaluation.published import published


def studies_of(tp, fp, fn, tn):
    truth = np.repeat([1, 0, 1, 0], [tp, fp, fn, tn])
    verdict = np.repeat([1, 1, 0, 0], [tp, fp, fn, tn])
    return truth, verdict


def slices_of(n_studies, slices, seed=0, decimals=6):
    rng = np.random.default_rng(seed)
    rows = []
    for study in range(n_studies):
        label = np.zeros(slices, int)
        if study % 3 == 0:
            label[: rng.integers(1, slices // 2)] = 1
        score = 1 / (1 + np.exp(-(rng.normal() + rng.normal(size=slices) + 2 * label - 1)))
        rows.append(
            pd.DataFrame(
                {"StudyInstanceUID": f"s{study}", "pe_present_on_image": label, "hop1": score}
            )
        )
    return pd.concat(rows, ignore_index=True).round(decimals)


def test_the_papers_counts_give_its_printed_row():
    """196, 24, 15, 601 are the paper's; by hand 196/211, 601/625, 196/220, 601/616, 392/431."""
    table = study_metrics(*studies_of(tp=196, fp=24, fn=15, tn=601))
    exact = {
        "sensitivity": 0.928910,
        "specificity": 0.961600,
        "PPV": 0.890909,
        "NPV": 0.975649,
        "F1": 0.909513,
        # The paper's studies have the paper's prevalence.
        "PPV at 25 %": 0.890909,
        "F1 at 25 %": 0.909513,
    }
    assert table.value.to_dict() == pytest.approx(exact, abs=1e-6)
    rows = published("III").query("row == 'hop 2'")
    printed = rows.set_index("metric")["value"]
    # The paper rounds three of its five values; it truncates specificity and NPV to three digits.
    rounded, cut = table.value.round(3), np.floor(table.value * 1000) / 1000
    for name in ("sensitivity", "PPV", "F1"):
        assert rounded[name] == printed[name]
    for name in ("specificity", "NPV"):
        assert cut[name] == printed[name]
        assert rounded[name] == pytest.approx(printed[name] + 0.001)


def test_ppv_and_f1_at_the_papers_prevalence_by_hand():
    """Sensitivity 0.8 and specificity 0.7 among 10 and 10 studies, brought to 211 and 625.

    TP = 168.8, FP = 187.5, FN = 42.2: PPV = 168.8 / 356.3, F1 = 337.6 / 567.3.
    """
    table = study_metrics(*studies_of(tp=8, fp=3, fn=2, tn=7))
    assert table.loc["PPV", "value"] == pytest.approx(8 / 11)
    assert table.loc["PPV at 25 %", "value"] == pytest.approx(168.8 / 356.3)
    assert table.loc["F1 at 25 %", "value"] == pytest.approx(337.6 / 567.3)
    for name in ("PPV at 25 %", "F1 at 25 %"):
        low, value, high = table.loc[name, ["low", "value", "high"]]
        assert low < value < high
    ten_times = study_metrics(*studies_of(tp=8, fp=30, fn=2, tn=70))
    assert ten_times.loc["F1 at 25 %", "value"] == pytest.approx(337.6 / 567.3)
    assert ten_times.loc["F1", "value"] == pytest.approx(16 / 48)


def test_another_prevalence_by_hand():
    # Of 1000 studies 100 have PE: TP 90, FP 45, FN 10.
    ppv, f1 = at_prevalence(0.9, 0.95, 0.1)
    assert ppv == pytest.approx(90 / 135)
    assert f1 == pytest.approx(180 / 235) == 2 * ppv * 0.9 / (ppv + 0.9)
    ppv, f1 = at_prevalence(np.array([1.0, 0.0]), np.array([0.0, 1.0]), 0.25)
    assert ppv[0] == 0.25
    assert np.isnan(ppv[1])
    assert f1.tolist() == pytest.approx([2 * 0.25 / 1.25, 0])
    for prevalence in (0, 1, 25.2):
        with pytest.raises(UserError, match="share of studies with PE"):
            at_prevalence(0.9, 0.95, prevalence)


def test_confusion_is_laid_out_as_in_scikit_learn():
    truth, verdict = studies_of(tp=3, fp=2, fn=1, tn=4)
    assert confusion(truth, verdict).tolist() == [[4, 2], [1, 3]]
    assert confusion([1, 1], [1, 1]).tolist() == [[0, 0], [0, 2]]


def test_wilson_interval_by_hand():
    # 8 of 10 by Wilson's formula, z = 1.959964: centre (0.8 + z2/20) / (1 + z2/10),
    # half width z sqrt(0.16/10 + z2/400) / (1 + z2/10).
    table = study_metrics(*studies_of(tp=8, fp=3, fn=2, tn=7))
    assert table.loc["sensitivity", "low"] == pytest.approx(0.490162, abs=1e-6)
    assert table.loc["sensitivity", "high"] == pytest.approx(0.943318, abs=1e-6)


def test_auroc_and_ap_by_hand():
    # Positives 0.8, 0.5; negatives 0.5, 0.1. Pairs: 1, 1, 0.5, 1 of 4. Precision 1 at recall 1/2,
    # 2/3 at recall 1.
    table = study_metrics([1, 1, 0, 0], [1, 0, 0, 0], [0.8, 0.5, 0.5, 0.1])
    assert table.loc["AUROC", "value"] == pytest.approx(3.5 / 4)
    assert table.loc["AP", "value"] == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert list(table.columns) == ["value", "low", "high", "note"]


def test_q_weighted_auroc_by_hand():
    # a: 1 of 2 images positive, q = 1/2; b: 1 of 4, q = 1/4; c without PE weighs nothing.
    # Pairs (positive, negative), weight q_i q_j, right where the positive is higher:
    # a's 0.8 above a's 0.5 (1/4) and b's 0.9 (no), 0.1, 0.2 (1/8 each): 1/4 + 2/8 of 1/4 + 3/8;
    # b's 0.5 ties a's 0.5 (half of 1/8), below 0.9, above 0.1 and 0.2 (1/16 each), of 1/8 + 3/16.
    table = pd.DataFrame(
        {
            "StudyInstanceUID": list("aabbbbcc"),
            "pe_present_on_image": [1, 0, 1, 0, 0, 0, 0, 0],
            "hop1": [0.8, 0.5, 0.5, 0.9, 0.1, 0.2, 0.99, 0.99],
        }
    )
    found = slice_metrics(table, "hop1", n_boot=50)
    assert found.index.tolist() == ["AUROC", "AP", "q-weighted AUROC"]
    by_hand = (1 / 4 + 2 / 8 + 1 / 16 + 2 / 16) / (1 / 4 + 3 / 8 + 1 / 8 + 3 / 16)
    assert found.loc["q-weighted AUROC", "value"] == pytest.approx(by_hand)
    without_c = slice_metrics(table[table.StudyInstanceUID != "c"], "hop1", n_boot=50)
    assert without_c.loc["q-weighted AUROC", "value"] == pytest.approx(by_hand)
    assert without_c.loc["AUROC", "value"] > found.loc["AUROC", "value"]


def test_q_weighted_auroc_is_undefined_where_positive_exams_have_no_negative_image():
    table = pd.DataFrame(
        {"StudyInstanceUID": list("aab"), "pe_present_on_image": [1, 1, 0], "hop1": [0.8, 0.5, 0.3]}
    )
    row = slice_metrics(table, "hop1", n_boot=50).loc["q-weighted AUROC"]
    assert np.isnan(row.value)
    assert row.note == "undefined: every slice of every study with PE shows it"


def resampled_by_loop(table, n_boot, seed):
    """The definition: resample studies, pool their slices, score them with scikit-learn."""
    rng = np.random.default_rng(seed)
    groups = [group for _, group in table.groupby("StudyInstanceUID")]
    values = []
    for _ in range(n_boot):
        drawn = pd.concat([groups[i] for i in rng.integers(len(groups), size=len(groups))])
        truth, q = drawn.pe_present_on_image, drawn.q
        if truth.nunique() == 2:
            values.append(
                (
                    roc_auc_score(truth, drawn.hop1),
                    average_precision_score(truth, drawn.hop1),
                    roc_auc_score(truth, drawn.hop1, sample_weight=q),
                )
            )
    return np.quantile(values, [0.025, 0.975], axis=0)


@pytest.mark.parametrize("decimals", [1, 6])
def test_intervals_equal_a_loop_over_resamples(decimals):
    table = slices_of(12, 20, decimals=decimals)
    # Group keys sort as s0, s1, s10, s11, s2 in both, so that the same draws are the same studies.
    found = slice_metrics(table, "hop1", n_boot=60, seed=4)
    table["q"] = table.groupby("StudyInstanceUID").pe_present_on_image.transform("mean")
    low, high = resampled_by_loop(table, n_boot=60, seed=4)
    assert found.low.tolist() == pytest.approx(low, abs=1e-9)
    assert found.high.tolist() == pytest.approx(high, abs=1e-9)


def test_merged_bins_keep_the_interval(monkeypatch):
    table = slices_of(40, 100, seed=2)
    merged = slice_metrics(table, "hop1", seed=1)
    monkeypatch.setattr(resampling, "BINS", 10**6)
    exact = slice_metrics(table, "hop1", seed=1)
    assert table.hop1.nunique() > 3000
    for column in ("low", "high"):
        assert merged[column].tolist() == pytest.approx(exact[column].tolist(), abs=1e-3)


def test_slices_of_a_study_are_resampled_together():
    table = slices_of(30, 60, seed=7)
    together = slice_metrics(table, "hop1").loc["AUROC"]
    apart = ranking_metrics(table.pe_present_on_image, table.hop1).loc["AUROC"]
    assert together.value == apart.value == roc_auc_score(table.pe_present_on_image, table.hop1)
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


def test_intervals_cover_the_truth():
    # F1 of verdicts right with probability 0.9 at prevalence 0.4: precision 0.857, F1 0.878.
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        truth = rng.random(200) < 0.4
        verdict = truth ^ (rng.random(200) < 0.1)
        row = study_metrics(truth, verdict, n_boot=300).loc["F1"]
        covered += row.low <= 0.8780 <= row.high
    assert 88 <= covered <= 100


def test_no_metric_is_silently_nan():
    table = study_metrics([1, 1, 0, 0], [0, 0, 0, 0], [0.4, 0.3, 0.2, 0.1])
    assert table.loc["PPV", ["value", "low", "high"]].isna().all()
    assert table.loc["PPV", "note"] == "undefined: no verdict is positive"
    assert table.loc["PPV at 25 %", "note"] == "undefined: no verdict is positive"
    assert table.drop(index=["PPV", "PPV at 25 %"])[["value", "low", "high"]].notna().all(axis=None)
    table = study_metrics([1, 0], [1, 1])
    assert table.loc["NPV", "note"] == "undefined: every verdict is positive"
    # A perfect AUROC on few studies must not look certain.
    perfect = study_metrics([1, 1, 0, 0], [1, 1, 0, 0], [0.9, 0.8, 0.2, 0.1]).loc["AUROC"]
    assert (perfect.value, perfect.note) == (1, "every resample gives the same value")


def test_same_seed_same_interval():
    truth, verdict = studies_of(20, 5, 4, 40)
    first, second = (study_metrics(truth, verdict, seed=s).loc["F1"] for s in (3, 4))
    again = study_metrics(truth, verdict, seed=3).loc["F1"]
    assert (first.low, first.high) == (again.low, again.high)
    assert (first.low, first.high) != (second.low, second.high)


def test_fast_at_the_papers_size():
    table = slices_of(836, 230)
    start = time.perf_counter()
    slice_metrics(table, "hop1")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("truth", "verdict", "score", "message"),
    [
        ([1, 1], [1, 0], None, "all 2 are positive"),
        ([0, 0], [1, 0], None, "all 2 are negative"),
        ([1, 0, 0], [1, 0], None, "lengths differ"),
        ([], [], None, "empty"),
        ([1, 2], [1, 0], None, "truth has the value 2"),
        ([1, -1], [1, 0], None, "truth has the value -1"),
        ([1, 0], [1, np.nan], None, "verdict has the value nan"),
        ([1, 0], [1, 0], [0.5, np.nan], "score has the value nan"),
        ([1, 0], [1, 0], [0.5, 1.2], r"score has the value 1\.2"),
    ],
)
def test_bad_input_is_named(truth, verdict, score, message):
    with pytest.raises(UserError, match=message):
        study_metrics(truth, verdict, score)


def test_series_in_another_order_are_refused():
    truth = pd.Series([1, 0], index=["a", "b"])
    with pytest.raises(UserError, match="truth and verdict have other studies or another order"):
        study_metrics(truth, pd.Series([0, 1], index=["b", "a"]))
    assert study_metrics(truth, pd.Series([1, 0], index=["a", "b"])).loc["F1", "value"] == 1


def test_bad_predictions_are_named():
    table = slices_of(6, 10)
    with pytest.raises(UserError, match="lack hop2"):
        slice_metrics(table, "hop2")
    with pytest.raises(UserError, match="truth has the value -1"):
        slice_metrics(table.assign(pe_present_on_image=-1), "hop1")
    with pytest.raises(UserError, match="n_boot=0"):
        slice_metrics(table, "hop1", n_boot=0)


@pytest.mark.parametrize("key", [["model"], ["protocol", "model"]])
def test_a_summary_keeps_the_order_of_its_rows(key):
    truth, verdict = studies_of(3, 2, 1, 4)
    of = study_metrics(truth, verdict, verdict.astype(float), n_boot=20).reset_index()
    rows = [of.assign(protocol="paper", model=model) for model in ("hop 2", "hop 1")]
    table = summary(pd.concat(rows), key)
    assert table["model"].tolist() == ["hop 2", "hop 1"]
    assert list(table)[: len(key)] == key
    assert table["sensitivity"].str.startswith("0.750 [").all()
