import numpy as np
import pytest

from pekit.errors import UserError
from pekit.prior import correct_prior


def test_an_undecided_network_says_the_true_prevalence():
    assert correct_prior(0.5, 0.5, 0.1) == pytest.approx(0.1)
    assert correct_prior(0.4, 0.4, 0.02) == pytest.approx(0.02)


def test_odds_are_multiplied_by_the_ratio_of_the_prior_odds():
    # Odds 4; times (0.02 / 0.98) / (0.4 / 0.6) = 0.0306122: 0.122449, a probability of 6 / 55.
    assert correct_prior(0.8, 0.4, 0.02) == pytest.approx(6 / 55)


def test_order_ends_and_shape_stay():
    p = np.array([[0.0, 0.2], [0.9, 1.0]])
    corrected = correct_prior(p, 0.4, 0.02)
    assert corrected.shape == (2, 2)
    assert corrected[0, 0] == 0
    assert corrected[1, 1] == 1
    assert (np.diff(corrected.ravel()) > 0).all()
    np.testing.assert_allclose(correct_prior(p, 0.3, 0.3), p)
    np.testing.assert_allclose(correct_prior(corrected, 0.02, 0.4), p, atol=1e-12)


def test_a_drawn_sample_is_corrected_to_the_frequency_in_the_whole():
    # 1000 negatives and 100 positives in three kinds of slice; all positives are drawn and a tenth
    # of the negatives. A perfect network of the drawn ones, corrected, is one of the whole.
    negative, positive = np.array([900, 80, 20]), np.array([10, 30, 60])
    drawn = positive / (positive + negative / 10)
    corrected = correct_prior(drawn, 100 / 200, 100 / 1100)
    np.testing.assert_allclose(corrected, positive / (positive + negative))


@pytest.mark.parametrize("prevalence", [0.0, 1.0, float("nan")])
def test_impossible_prevalences_are_named(prevalence):
    with pytest.raises(UserError, match="trained_prevalence"):
        correct_prior(0.5, prevalence, 0.1)
    with pytest.raises(UserError, match="true_prevalence"):
        correct_prior(0.5, 0.1, prevalence)


def test_logits_are_refused():
    with pytest.raises(UserError, match="not logits"):
        correct_prior(np.array([0.2, 1.3]), 0.4, 0.02)
