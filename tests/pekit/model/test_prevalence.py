import numpy as np
import pytest

from pekit.common.errors import UserError
from pekit.model.prevalence import Prevalence, check_prevalence, correct_hops, correct_prevalence
from pekit.voting import Vote, best_vote, study_verdicts


def test_the_training_prevalence_becomes_the_true_prevalence():
    assert correct_prevalence(0.5, 0.5, 0.1) == pytest.approx(0.1)
    assert correct_prevalence(0.4, 0.4, 0.02) == pytest.approx(0.02)


def test_odds_are_multiplied_by_the_ratio_of_the_prior_odds():
    # Odds 4; times (0.02 / 0.98) / (0.4 / 0.6) = 0.0306122: 0.122449, a probability of 6 / 55.
    assert correct_prevalence(0.8, 0.4, 0.02) == pytest.approx(6 / 55)


def test_order_zero_one_and_shape_do_not_change():
    p = np.array([[0.0, 0.2], [0.9, 1.0]])
    corrected = correct_prevalence(p, 0.4, 0.02)
    assert corrected.shape == (2, 2)
    assert corrected[0, 0] == 0
    assert corrected[1, 1] == 1
    assert (np.diff(corrected.ravel()) > 0).all()
    np.testing.assert_allclose(correct_prevalence(p, 0.3, 0.3), p)
    np.testing.assert_allclose(correct_prevalence(corrected, 0.02, 0.4), p, atol=1e-12)


def test_a_sampled_part_is_corrected_to_the_frequency_in_the_whole():
    # 1000 negatives and 100 positives in three kinds of slice; all positives and a tenth of the
    # negatives are sampled. A perfect network for the sample, corrected, is perfect for the whole.
    negative, positive = np.array([900, 80, 20]), np.array([10, 30, 60])
    drawn = positive / (positive + negative / 10)
    corrected = correct_prevalence(drawn, 100 / 200, 100 / 1100)
    np.testing.assert_allclose(corrected, positive / (positive + negative))


@pytest.mark.parametrize("prevalence", [0.0, 1.0, float("nan")])
def test_impossible_prevalences_are_named(prevalence):
    with pytest.raises(UserError, match="trained_prevalence"):
        correct_prevalence(0.5, prevalence, 0.1)
    with pytest.raises(UserError, match="true_prevalence"):
        correct_prevalence(0.5, 0.1, prevalence)


def test_logits_are_refused():
    with pytest.raises(UserError, match="not logits"):
        correct_prevalence(np.array([0.2, 1.3]), 0.4, 0.02)


HALF, TENTH = Prevalence(0.5, 0.1), Prevalence(0.4, 0.1)


def test_each_hop_is_corrected_from_its_own_prevalence():
    # A probability equal to the training prevalence becomes the target prevalence.
    said = np.array([[0.5, 0.4]], dtype=np.float32)
    hops = [HALF, TENTH]
    np.testing.assert_allclose(correct_hops(said, hops, "natural"), [[0.1, 0.1]], rtol=1e-6)
    np.testing.assert_allclose(correct_hops(said, hops, 0.02), [[0.02, 0.02]], rtol=1e-6)
    assert (correct_hops(said, [None, None], "training") == said).all()


@pytest.mark.parametrize("target", ["natural", 0.9])
def test_verdicts_stay_with_thresholds_corrected_alike(target):
    """Even adjacent floats near 0 and near 1 stay different."""
    rng = np.random.default_rng(0)
    ends = np.float32([0, 1e-30, 1e-7, 0.5, 1 - 1e-7, 1])
    near = np.concatenate([np.nextafter(ends, np.float32(0)), ends])
    table = np.concatenate([rng.random(500, dtype=np.float32), near[near >= 0]])
    corrected = correct_hops(table[:, None], [TENTH], target)[:, 0]
    order = np.argsort(table, kind="stable")
    assert ((np.diff(table[order]) > 0) == (np.diff(corrected[order]) > 0)).all()
    probs = {f"s{i}": part for i, part in enumerate(np.array_split(table, 40))}
    after = {f"s{i}": part for i, part in enumerate(np.array_split(corrected, 40))}
    for delta in (0.9, 0.97):
        moved = correct_hops(np.array([[delta]]), [TENTH], target).item()
        verdicts = study_verdicts(probs, Vote(2, delta))
        assert 0 < verdicts.sum() < 40
        assert (verdicts == study_verdicts(after, Vote(2, moved))).all()


def test_the_best_vote_separates_the_same_studies():
    probs = {"a": [0.9, 0.2], "b": [0.7, 0.1], "c": [0.6, 0.5], "d": [0.3, 0.1], "e": [0.65, 0.2]}
    truth = {"a": True, "b": True, "c": False, "d": False, "e": False}
    after = {
        s: correct_hops(np.array(p)[:, None], [TENTH], "natural")[:, 0] for s, p in probs.items()
    }
    verdicts = study_verdicts(after, best_vote(after, truth))
    assert verdicts.to_dict() == study_verdicts(probs, best_vote(probs, truth)).to_dict() == truth


def test_a_number_may_come_as_text():
    assert check_prevalence("0.02", [TENTH]) == 0.02 == check_prevalence(0.02, [TENTH])
    assert check_prevalence("training", [None]) == "training"


@pytest.mark.parametrize("target", ["naturel", "0", 1.0, "nan", None])
def test_invalid_prevalences_are_refused(target):
    with pytest.raises(UserError, match="must be natural, training, or the fraction"):
        check_prevalence(target, [TENTH])


def test_a_hop_of_unknown_prevalence_is_named():
    with pytest.raises(UserError, match="hop 2 does not say at which prevalence"):
        check_prevalence("natural", [TENTH, None])
