"""The vote of equation 1 and the exact search of equation 2."""

import time

import numpy as np
import pandas as pd
import pytest

from pekit.common.errors import UserError
from pekit.evaluation.predictions import probs_by_study, study_truth
from pekit.voting import CRITERIA, FREE, Vote, best_vote, study_scores, study_verdicts, vote_study

# Four studies by hand: two positive, the second with one high slice only.
PROBS = {
    "a": np.array([0.1, 0.9, 0.8, 0.2]),
    "b": np.array([0.0, 0.7, 0.3]),
    "c": np.array([0.6, 0.1, 0.0, 0.0]),
    "d": np.array([0.2]),
}
TRUTH = {"a": True, "b": True, "c": False, "d": False}


def random_cohort(rng, n_studies, slices, decimals=None):
    probs = {f"s{i}": rng.random(rng.integers(1, slices + 1)) for i in range(n_studies)}
    if decimals is not None:  # many ties
        probs = {study: values.round(decimals) for study, values in probs.items()}
    truth = {study: bool(rng.random() < 0.4) for study in probs}
    truth["s0"], truth["s1"] = True, False
    return probs, truth


AT = dict.fromkeys(CRITERIA, 0.7) | dict.fromkeys(FREE)


def criterion_of(probs, truth, vote, criterion):
    """The criterion counted by equation 1, one study at a time."""
    verdicts = {study: vote_study(values, vote) for study, values in probs.items()}
    tp = sum(verdicts[s] and truth[s] for s in probs)
    fp = sum(verdicts[s] and not truth[s] for s in probs)
    return worth(tp, fp, sum(truth.values()), len(truth), criterion)


def worth(tp, fp, positives, studies, criterion):
    sensitivity, specificity = tp / positives, 1 - fp / (studies - positives)
    if criterion == "f1":
        return 2 * tp / (tp + fp + positives)
    if criterion == "youden":
        return sensitivity + specificity - 1
    first, second = sensitivity, specificity
    if criterion == "specificity_at_sensitivity":
        first, second = specificity, sensitivity
    # Ties in the first are decided by the second, which is worth less than any step of the first.
    return first + second / 1000 if second >= AT[criterion] - 1e-12 else -1


def brute_force(probs, truth, criterion):
    """The best of all votes: of each mu and each delta that is a probability."""
    deltas = np.unique(np.concatenate([[0.0, 1.0], *probs.values()]))
    longest = max(len(values) for values in probs.values())
    # Slices above each delta, of each study; verdicts (mu, delta, study) by equation 1.
    above = np.stack([(values > deltas[:, None]).sum(1) for values in probs.values()], axis=1)
    verdicts = above >= np.arange(1, longest + 1)[:, None, None]
    positive = np.array([truth[study] for study in probs])
    counts = {
        tuple(map(int, both))
        for both in np.stack(
            [(verdicts & positive).sum(2), (verdicts & ~positive).sum(2)], axis=-1
        ).reshape(-1, 2)
    }
    return max(worth(*both, positive.sum(), len(truth), criterion) for both in counts)


@pytest.mark.parametrize(
    ("mu", "delta", "verdict"),
    [
        (1, 0.9, False),
        (1, 0.89, True),
        (2, 0.79, True),
        (2, 0.8, False),
        (3, 0.2, False),
        (3, 0.19, True),
        (5, 0.0, False),
    ],
)
def test_vote_counts_slices_strictly_above_delta(mu, delta, verdict):
    assert vote_study(PROBS["a"], Vote(mu, delta)) is verdict


def test_score_is_the_mu_th_largest_probability():
    assert study_scores(PROBS, 1).to_dict() == {"a": 0.9, "b": 0.7, "c": 0.6, "d": 0.2}
    assert study_scores(PROBS, 2).to_dict() == {"a": 0.8, "b": 0.3, "c": 0.1, "d": 0.0}
    assert study_scores(PROBS, 9).tolist() == [0, 0, 0, 0]


def test_verdicts_of_scores_equal_equation_1():
    rng = np.random.default_rng(3)
    probs, _ = random_cohort(rng, 30, 12, decimals=1)
    for mu in (1, 2, 5, 13):
        for delta in (0.0, 0.3, 0.55, 1.0):
            vote = Vote(mu, delta)
            one_by_one = {study: vote_study(values, vote) for study, values in probs.items()}
            assert study_verdicts(probs, vote).to_dict() == one_by_one


def test_best_vote_by_hand():
    # mu=1 separates the scores 0.9, 0.7 from 0.6, 0.2: delta is the middle of 0.6 and 0.7. mu=2
    # separates them too, with a wider gap, but the smaller mu wins.
    vote = best_vote(PROBS, TRUTH)
    assert vote.mu == 1
    assert vote.delta == pytest.approx(0.65)


def test_of_equal_cuts_the_widest_gap_wins():
    # F1 is 2/3 for two cuts: in the gaps 0.9 to 0.8 (0.1 wide) and 0.7 to 0.2 (0.5 wide).
    probs = {"a": [0.9], "c": [0.8], "d": [0.75], "b": [0.7], "e": [0.2]}
    truth = {"a": 1, "b": 1, "c": 0, "d": 0, "e": 0}
    assert criterion_of(probs, truth, Vote(1, 0.85), "f1") == pytest.approx(2 / 3)
    assert criterion_of(probs, truth, Vote(1, 0.45), "f1") == pytest.approx(2 / 3)
    vote = best_vote(probs, truth)
    assert (vote.mu, vote.delta) == (1, pytest.approx(0.45))


@pytest.mark.parametrize("criterion", sorted(CRITERIA))
@pytest.mark.parametrize("decimals", [None, 1])
def test_best_vote_equals_brute_force(criterion, decimals):
    rng = np.random.default_rng(11)
    for _ in range(25):
        probs, truth = random_cohort(rng, int(rng.integers(2, 14)), 8, decimals)
        vote = best_vote(probs, truth, criterion, at=AT[criterion])
        found = criterion_of(probs, truth, vote, criterion)
        assert found == pytest.approx(brute_force(probs, truth, criterion), abs=1e-12)


def test_sensitivity_at_a_given_specificity_by_hand():
    # Scores at mu=1, descending: + + - + - -; two positives first, then one false positive.
    probs = {"a": [0.9], "b": [0.8], "c": [0.7], "d": [0.6], "e": [0.5], "f": [0.4]}
    truth = {"a": 1, "b": 1, "c": 0, "d": 1, "e": 0, "f": 0}
    at = {1.0: 0.75, 0.67: 0.75, 0.66: 0.55, 0.0: 0.55}  # 2 of 3 is below 0.67
    for specificity, delta in at.items():
        vote = best_vote(probs, truth, "sensitivity_at_specificity", at=specificity)
        assert (vote.mu, vote.delta) == (1, pytest.approx(delta)), specificity
    vote = best_vote(probs, truth, "specificity_at_sensitivity", at=2 / 3)
    assert (vote.mu, vote.delta) == (1, pytest.approx(0.75))
    vote = best_vote(probs, truth, "specificity_at_sensitivity", at=0.7)
    assert (vote.mu, vote.delta) == (1, pytest.approx(0.55))


def test_a_bound_that_is_a_decimal_is_met_exactly():
    """19 of 20 is a specificity of 0.95, though 0.07 * 100 is more than 7 in floats."""
    for negatives, of in ((19, 20), (7, 100), (29, 100), (57, 100)):
        scores = np.linspace(0.9, 0.1, of)  # the only positive comes after the false positives
        probs = {f"n{i}": [p] for i, p in enumerate(scores)}
        below = scores[of - negatives - 1] - 0.001
        probs["pos"] = [below]
        truth = dict.fromkeys(probs, 0) | {"pos": 1}
        vote = best_vote(probs, truth, "sensitivity_at_specificity", at=negatives / of)
        assert study_verdicts(probs, vote)["pos"], (negatives, of)


def test_a_sensitivity_that_no_vote_reaches_is_named():
    probs = {"a": [0.9], "b": [0.0], "c": [0.5]}
    with pytest.raises(UserError, match="no vote reaches a sensitivity of 1"):
        best_vote(probs, {"a": 1, "b": 1, "c": 0}, "specificity_at_sensitivity", at=1.0)


def test_order_of_studies_does_not_matter():
    rng = np.random.default_rng(5)
    probs, truth = random_cohort(rng, 40, 20, decimals=2)
    shuffled = {study: probs[study] for study in reversed(probs)}
    assert best_vote(shuffled, truth) == best_vote(probs, pd.Series(truth).sample(frac=1))


def test_max_mu_bounds_the_search():
    # One slice of each negative study is as high as any: only mu >= 2 separates.
    probs = {
        "a": [0.9, 0.8, 0.7],
        "b": [0.9, 0.6, 0.1],
        "c": [0.95, 0.2, 0.1],
        "d": [0.9, 0.1, 0.1],
    }
    truth = {"a": 1, "b": 1, "c": 0, "d": 0}
    vote = best_vote(probs, truth)
    assert (vote.mu, vote.delta) == (2, pytest.approx(0.4))
    assert best_vote(probs, truth, max_mu=1).mu == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neighbouring_probabilities_stay_apart(dtype):
    low = dtype(0.7)
    for _ in range(4):  # the middle rounds down or up, to the even neighbour
        high = np.nextafter(low, dtype(1))
        probs = {"a": np.array([high]), "b": np.array([low])}
        vote = best_vote(probs, {"a": 1, "b": 0})
        assert study_verdicts(probs, vote).tolist() == [True, False]
        assert vote_study(probs["a"], vote)
        assert not vote_study(probs["b"], vote)
        low = high


def test_search_is_fast_at_the_papers_size():
    rng = np.random.default_rng(0)
    probs = {f"s{i}": rng.random(230) for i in range(836)}
    truth = {study: i % 4 == 0 for i, study in enumerate(probs)}
    best_vote(probs, truth)
    times = []
    for _ in range(5):
        start = time.process_time()  # CPU time: other load does not count
        best_vote(probs, truth)
        times.append(time.process_time() - start)
    assert min(times) <= 0.1


def test_probs_and_truth_come_from_a_predictions_table():
    table = pd.DataFrame(
        {
            "StudyInstanceUID": ["b", "a", "a", "b"],
            "z": [1, 1, 0, 0],
            "hop1": [0.4, 0.2, 0.1, 0.3],
            "pe_present_on_image": [1, 0, 0, 0],
        }
    )
    probs = probs_by_study(table, "hop1")
    assert {study: values.tolist() for study, values in probs.items()} == {
        "a": [0.1, 0.2],
        "b": [0.3, 0.4],
    }
    assert study_truth(table).to_dict() == {"a": False, "b": True}
    with pytest.raises(UserError, match="hop2"):
        probs_by_study(table, "hop2")
    with pytest.raises(UserError, match=r"study b.*twice"):
        probs_by_study(pd.concat([table, table.iloc[:1]]), "hop1")
    with pytest.raises(UserError, match=r"study b.*without a label"):
        study_truth(table.assign(pe_present_on_image=[-1, 0, 0, 0]))


@pytest.mark.parametrize(
    ("probs", "truth", "message"),
    [
        ({}, {}, "empty"),
        ({"a": [0.5], "b": []}, TRUTH, "study b"),
        ({"a": [0.5], "b": [0.1, np.nan]}, {"a": 1, "b": 0}, r"study b.*nan"),
        ({"a": [0.5, 1.5], "b": [0.1]}, {"a": 1, "b": 0}, r"study a.*1\.5"),
        ({"a": [0.5], "b": [-0.1]}, {"a": 1, "b": 0}, r"study b.*-0\.1"),
        ({"a": [0.5], "b": [0.1]}, {"a": 1, "b": 1}, "all 2 studies are positive"),
        ({"a": [0.5], "b": [0.1]}, {"a": 0, "b": 0}, "all 2 studies are negative"),
        ({"a": [0.5], "b": [0.1]}, {"a": 1}, "other studies.*'b'"),
        ({"a": [0.5], "b": [0.1]}, {"a": 1, "b": 2}, "study b.*neither 0 nor 1"),
    ],
)
def test_bad_input_is_named(probs, truth, message):
    with pytest.raises(UserError, match=message):
        best_vote(probs, truth)


def test_bad_options_are_named():
    with pytest.raises(UserError, match=r"criterion 'F1': did you mean f1\?"):
        best_vote(PROBS, TRUTH, "F1")
    for at in (None, -0.1, 1.1, float("nan")):
        with pytest.raises(UserError, match=r"needs a target specificity in \[0,1\], got"):
            best_vote(PROBS, TRUTH, "sensitivity_at_specificity", at=at)
    with pytest.raises(UserError, match=r"leave at=0\.9 out"):
        best_vote(PROBS, TRUTH, "f1", at=0.9)
    with pytest.raises(UserError, match="mu=0"):
        best_vote(PROBS, TRUTH, max_mu=0)
    with pytest.raises(UserError, match="delta=nan"):
        Vote(1, float("nan"))
    with pytest.raises(UserError, match=r"nan is not in \[0,1\]"):
        vote_study(np.array([np.nan]), Vote(1, 0.5))
