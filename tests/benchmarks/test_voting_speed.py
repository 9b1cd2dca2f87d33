"""The search of the vote at the paper's size, beside brute force: see test_speed.py for how to run.

Brute force tries every mu with every distinct probability as delta, by numpy. All of its 192,000
deltas would take a minute, so a share of them is timed and the rest reckoned in proportion: each
delta costs the same.
"""

import time

import numpy as np
import pytest

from pekit.voting import CRITERIA, FREE, best_vote

STUDIES, SLICES = 836, 230
TIMED_DELTAS = 2000


@pytest.fixture(scope="module")
def cohort():
    rng = np.random.default_rng(0)
    probs = rng.random((STUDIES, SLICES))
    truth = np.arange(STUDIES) % 4 == 0
    probs[truth, :30] **= 0.3  # a clot of 30 slices: the search has something to find
    return probs, truth


def brute_force(probs, truth, deltas):
    """The best F1 over all mu and the given deltas; probs (studies, slices)."""
    mus = np.arange(1, probs.shape[1] + 1)
    best = 0.0
    for delta in deltas:
        called = np.count_nonzero(probs > delta, axis=1)[:, None] >= mus  # (studies, mus)
        tp = called[truth].sum(axis=0)
        fp = called[~truth].sum(axis=0)
        best = max(best, (2 * tp / (tp + fp + truth.sum())).max())
    return best


@pytest.mark.parametrize("criterion", CRITERIA)
def test_search(benchmark, cohort, criterion):
    """At most 0.1 s."""
    probs, truth = cohort
    by_study = {str(i): row for i, row in enumerate(probs)}
    labels = {str(i): bool(label) for i, label in enumerate(truth)}
    at = None if criterion in FREE else 0.9
    benchmark(best_vote, by_study, labels, criterion, at=at)
    assert benchmark.stats["min"] <= 0.1


def test_at_least_a_hundred_times_faster_than_brute_force(benchmark, cohort):
    """Both in the same minute on the same machine."""
    probs, truth = cohort
    deltas = np.unique(probs)
    by_study = {str(i): row for i, row in enumerate(probs)}
    labels = {str(i): bool(label) for i, label in enumerate(truth)}
    benchmark(best_vote, by_study, labels)
    timed = deltas[:: len(deltas) // TIMED_DELTAS]
    start = time.perf_counter()
    brute_force(probs, truth, timed)
    seconds = (time.perf_counter() - start) * len(deltas) / len(timed)
    benchmark.extra_info["brute_force_s"] = seconds
    benchmark.extra_info["times"] = seconds / benchmark.stats["min"]
    assert seconds / benchmark.stats["min"] >= 100
