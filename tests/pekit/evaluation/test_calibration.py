"""Calibration: hand-computed bins, scikit-learn, a known temperature found again."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss, log_loss

from pekit.common.errors import UserError
from pekit.evaluation.calibration import (
    apply_temperature,
    calibration_metrics,
    fit_temperature,
    reliability,
)


def slices(n_studies=60, n_slices=80, temperature=2.0, seed=0, outside=20):
    """Labels that follow expit(x), and probabilities of a network that is overconfident by the
    factor `temperature`; the last slices of each study lie outside the crop box."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_studies, n_slices)) + rng.normal(size=(n_studies, 1)) - 1
    truth = rng.random(x.shape) < expit(x)
    prob = expit(temperature * x)
    prob[:, n_slices - outside :], truth[:, n_slices - outside :] = 0, False
    study = np.repeat(np.arange(n_studies), n_slices)
    return truth.ravel().astype(int), prob.ravel(), study


def test_reliability_by_hand():
    truth = [0, 1, 0, 0, 1, 1]
    prob = [0.0, 0.05, 0.1, 0.95, 1.0, 0.15]
    table = reliability(truth, prob, list("aabbcc"), n_boot=50)
    assert table["slices"].tolist() == [2, 2, 0, 0, 0, 0, 0, 0, 0, 2]
    seen = table[table["slices"] > 0]
    assert seen["predicted"].tolist() == pytest.approx([0.025, 0.125, 0.975])
    assert seen["value"].tolist() == pytest.approx([0.5, 0.5, 0.5])
    empty = table[table["slices"] == 0]
    assert (empty["note"] == "no slice").all()
    assert empty[["predicted", "value", "low", "high"]].isna().all(axis=None)
    # ECE: 2/6 (0.475 + 0.375 + 0.475), the last gap upwards; Brier by hand.
    metrics = calibration_metrics(truth, prob, list("aabbcc"), n_boot=50)["value"]
    assert metrics["ECE"] == pytest.approx((0.475 + 0.375 + 0.475) / 3)
    squares = 0 + 0.95**2 + 0.1**2 + 0.95**2 + 0 + 0.85**2
    assert metrics["Brier"] == pytest.approx(squares / 6)


def test_curve_and_scores_equal_scikit_learn():
    truth, prob, study = slices()
    table = reliability(truth, prob, study, n_boot=20)
    seen = table[table["slices"] > 0]
    value, predicted = calibration_curve(truth, prob, n_bins=10)
    assert seen["value"].tolist() == pytest.approx(value.tolist())
    assert seen["predicted"].tolist() == pytest.approx(predicted.tolist())
    assert table["slices"].sum() == len(prob)
    assert (seen["low"] <= seen["value"]).all()
    assert (seen["value"] <= seen["high"]).all()
    metrics = calibration_metrics(truth, prob, study, n_boot=200)
    assert metrics.loc["Brier", "value"] == pytest.approx(brier_score_loss(truth, prob))
    clipped = prob.clip(2**-24, 1 - 2**-24)
    assert metrics.loc["NLL", "value"] == pytest.approx(log_loss(truth, clipped))
    assert (metrics["low"] < metrics["high"]).all()


def test_intervals_resample_whole_studies():
    truth, prob, study = slices(20, 30)
    found = calibration_metrics(truth, prob, study, n_boot=100, seed=3).loc["Brier"]
    rng = np.random.default_rng(3)
    values = []
    for _ in range(100):
        drawn = rng.integers(20, size=20)
        rows = np.concatenate([np.flatnonzero(study == s) for s in drawn])
        values.append(brier_score_loss(truth[rows], prob[rows]))
    assert [found.low, found.high] == pytest.approx(np.quantile(values, [0.025, 0.975]).tolist())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_a_known_temperature_is_found_again(temperature):
    truth, prob, study = slices(300, temperature=temperature)
    found = fit_temperature(truth, prob)
    assert found.value == pytest.approx(temperature, rel=0.05)
    assert found.note == ""
    scaled = apply_temperature(prob, found.value)
    before, after = (
        calibration_metrics(truth, p, study, n_boot=5)["value"] for p in (prob, scaled)
    )
    assert after["NLL"] <= before["NLL"] + 1e-12
    assert after["ECE"] < 0.012
    if temperature != 1:
        assert before["ECE"] > 2 * after["ECE"]


def test_temperature_has_the_least_loss_by_another_search():
    truth, prob, _ = slices(seed=4, temperature=1.7)
    inside = prob > 0
    x, y = logit(prob[inside]), truth[inside]
    best = minimize(lambda t: log_loss(y, expit(x / t[0])), [1.0], method="Nelder-Mead")
    assert fit_temperature(truth, prob).value == pytest.approx(best.x[0], rel=1e-3)


def test_slices_outside_the_crop_box_do_not_count_for_the_temperature_and_stay_0():
    truth, prob, _ = slices()
    inside = prob > 0
    assert fit_temperature(truth, prob) == fit_temperature(truth[inside], prob[inside])
    scaled = apply_temperature(prob, 3.0)
    assert (scaled[~inside] == 0).all()
    assert scaled[inside] == pytest.approx(expit(logit(prob[inside]) / 3))
    assert apply_temperature([1.0, 0.0], 2.0)[0] > 0.99
    order = np.argsort(prob[inside], kind="stable")
    assert (np.diff(scaled[inside][order]) >= 0).all()


def test_float32_certainty_has_a_logarithm():
    assert np.isfinite(fit_temperature([1, 0, 1, 0], np.float32([1.0, 1.0, 0.5, 0.2])).value)
    metrics = calibration_metrics([1, 0, 0], [0.0, 1.0, 0.0], list("abc"), n_boot=20)
    assert metrics.loc["NLL", "value"] == pytest.approx(2 / 3 * 24 * np.log(2), rel=1e-6)


def test_a_temperature_at_the_end_of_the_range_is_noted():
    found = fit_temperature([1, 1, 0, 0], [0.7, 0.6, 0.3, 0.4])  # separable: the loss falls with T
    assert found.value == pytest.approx(0.05, rel=0.01)
    assert found.note == "at the end of the search range"


@pytest.mark.parametrize(
    ("truth", "prob", "message"),
    [
        ([1, 0], [0.5, np.nan], "prob has the value nan"),
        ([1, 0], [0.5, 1.5], r"prob has the value 1\.5"),
        ([1, 1], [0.5, 0.4], "all 2 are positive"),
        ([1, 0], [0.5], "lengths differ"),
        ([1, 3], [0.5, 0.4], "truth has the value 3"),
    ],
)
def test_bad_input_is_named(truth, prob, message):
    with pytest.raises(UserError, match=message):
        fit_temperature(truth, prob)
    if len(truth) == len(prob):
        with pytest.raises(UserError, match=message):
            calibration_metrics(truth, prob, ["a", "b"])
    with pytest.raises(UserError, match="all 1 are positive"):
        fit_temperature([1, 0], [0.5, 0.0])  # the other one lies outside the crop
