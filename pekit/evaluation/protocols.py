"""Two protocols for choosing thresholds: the paper's and the held-out one.

`paper`: thresholds are chosen on the studies that are reported, as in the paper (section V-A:
"final performance are all reported on the validation set", on which equation 2 is maximised). The
result is too good; the difference to `held-out` is the optimism.

`held-out`: thresholds are chosen on other studies than those reported: on another part of the
split, or, if both parts are the same, on the other half of its studies, in both directions.

An `Assignment` lists the studies to choose on and the studies to report on. Thresholds of the vote
and temperatures of the calibration use the same assignments.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from pekit.voting import Vote, best_vote, study_scores

PROTOCOLS = ("held-out", "paper")  # in the order of tables: the one to quote first


@dataclass(frozen=True)
class Assignment:
    """Studies to choose thresholds on, and studies to report on.

    Args:
        chosen_on, reported_on: names of both sets for the tables, such as "test, half 1".
        chosen, reported: their StudyInstanceUIDs.
    """

    chosen_on: str
    reported_on: str
    chosen: tuple[str, ...]
    reported: tuple[str, ...]


@dataclass(frozen=True)
class Evaluated:
    """Verdicts of one model by one protocol.

    Args:
        studies: one row per reported study, by StudyInstanceUID: truth, verdict (bool), score in
            [0,1].
        votes: the chosen vote of each assignment.
    """

    studies: pd.DataFrame
    votes: tuple[tuple[Assignment, Vote], ...]

    @property
    def assignments(self) -> tuple[Assignment, ...]:
        """Which studies were chosen on and reported."""
        return tuple(assignment for assignment, _ in self.votes)


def halves(truth: pd.Series, seed: int = 0) -> pd.Series:
    """Two halves of the studies, stratified by class: 0 or 1 by StudyInstanceUID.

    The studies of each class are sorted by the SHA-256 of "seed:UID" and alternate between the
    halves, which therefore depend on the studies and the seed only.

    Raises:
        UserError: fewer than two studies of a class.
    """
    truth = truth.astype(bool)
    half = {}
    for label, kind in ((True, "with PE"), (False, "without PE")):
        of_class = truth.index[truth == label]
        if len(of_class) < 2:
            raise UserError(
                f"{len(of_class)} studies {kind} to report: two halves need at least 2 of them; "
                "choose thresholds on another part"
            )
        ordered = sorted(of_class, key=lambda study: _digest(study, seed))
        half |= {study: i % 2 for i, study in enumerate(ordered)}
    return pd.Series(half, name="half").reindex(truth.index)


def assign(
    protocol: str, studies: pd.DataFrame, choose_on: str, report_on: str, seed: int = 0
) -> tuple[Assignment, ...]:
    """Assign studies to "choose thresholds on" and "report on", by one protocol.

    Args:
        protocol: "paper" or "held-out".
        studies: by StudyInstanceUID: part (of the split) and truth (bool).
        choose_on, report_on: parts of the split.
        seed: random seed of the halves, if `choose_on` is `report_on`.

    Raises:
        UserError: an unknown protocol, a part without studies, or as `halves`.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"protocol {protocol!r} is unknown: choose {' or '.join(PROTOCOLS)}")
    for part in (choose_on, report_on):
        if not (studies["part"] == part).any():
            raise UserError(
                f"no study of part {part!r} has predictions: parts are "
                f"{', '.join(sorted(set(studies['part'])))}"
            )
    reported = studies[studies["part"] == report_on]
    every = tuple(reported.index)
    if protocol == "paper":
        return (Assignment(report_on, report_on, every, every),)
    if choose_on != report_on:
        chosen = tuple(studies.index[studies["part"] == choose_on])
        return (Assignment(choose_on, report_on, chosen, every),)
    half = halves(reported["truth"], seed)
    first, second = (tuple(reported.index[half == k]) for k in (0, 1))
    names = [f"{report_on}, half {k}" for k in (1, 2)]
    return (Assignment(*names, first, second), Assignment(*reversed(names), second, first))


def apply_protocol(
    probs: Mapping[str, np.ndarray],
    truth: pd.Series,
    assignments: tuple[Assignment, ...],
    criterion: str = "f1",
    at: float | None = None,
) -> Evaluated:
    """Choose a vote for each assignment, and apply it to the studies to report on.

    A study's score is its mu-th largest probability. With two assignments, scores of different mu
    and delta are pooled, so each is first rescaled to delta = 0.5. That keeps the order within an
    assignment, and the verdict is score > 0.5.

    Args:
        probs: slice probabilities `(Z,)` of each study.
        truth: whether each study has PE, by StudyInstanceUID.
        assignments: from `assign`.
        criterion, at: as in `pekit.voting.best_vote`.

    Raises:
        UserError: as `best_vote`.
    """
    votes, tables = [], []
    for assignment in assignments:
        chosen, reported = (
            {study: probs[study] for study in studies}
            for studies in (assignment.chosen, assignment.reported)
        )
        vote = best_vote(chosen, truth.loc[list(chosen)], criterion, at=at)
        score = study_scores(reported, vote.mu)
        verdict = score > vote.delta
        if len(assignments) > 1:
            score = _delta_at_half(score, vote.delta)
        table = {"truth": truth.loc[list(reported)].astype(bool), "verdict": verdict}
        tables.append(pd.DataFrame({**table, "score": score}))
        votes.append((assignment, vote))
    studies = pd.concat(tables).sort_index().rename_axis("StudyInstanceUID")
    return Evaluated(studies, tuple(votes))


def _delta_at_half(score: pd.Series, delta: float) -> pd.Series:
    """Scores in [0,1], rescaled so that delta becomes 0.5; their order stays."""
    below = score / (2 * delta) if delta > 0 else score * 0 + 0.5
    above = 1 - (1 - score) / (2 * (1 - delta)) if delta < 1 else score * 0 + 0.5
    return below.where(score <= delta, above)


def _digest(study: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{study}".encode()).hexdigest()
