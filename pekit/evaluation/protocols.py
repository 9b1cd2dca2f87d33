"""Two protocols for thresholds: the paper's, on the very studies reported, and a held-out one.

`paper`: chosen on the studies that are reported, as in the paper (section V-A: "final performance
are all reported on the validation set", on which equation 2 is maximised). Too good by the
optimism, which is what `held-out` takes off it.

`held-out`: chosen on other studies than those reported. Where the part to choose on is another part
of the split, that is all; where it is the reported part itself, its studies fall into two halves,
and each is judged by the thresholds of the other, both directions together.

A plan says so in studies: what is chosen on which, and judged on which. Thresholds of the vote and
temperatures of the calibration follow the same plan.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from pekit.voting import Vote, best_vote, study_scores

PROTOCOLS = ("paper", "held-out")


@dataclass(frozen=True)
class Assignment:
    """Studies to choose on, and studies to judge by what was chosen.

    Args:
        chosen_on, reported_on: both in words, for the tables.
        chosen, reported: their StudyInstanceUIDs.
    """

    chosen_on: str
    reported_on: str
    chosen: tuple[str, ...]
    reported: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """One model's verdicts by one protocol.

    Args:
        studies: a row a reported study, by StudyInstanceUID: truth, verdict (bool), score in [0,1].
        votes: the votes that were chosen, in the order of the plan.
    """

    studies: pd.DataFrame
    votes: tuple[tuple[Assignment, Vote], ...]


def halves(truth: pd.Series, seed: int = 0) -> pd.Series:
    """Two halves of the studies with as many of each class: 0 or 1 by StudyInstanceUID.

    The studies of a class are put in the order of the SHA-256 of "seed:UID" and dealt out in turn,
    so that the halves depend on the studies and the seed alone, not on models or rows.

    Raises:
        UserError: fewer than two studies of a class.
    """
    truth = truth.astype(bool)
    dealt = {}
    for label, kind in ((True, "with PE"), (False, "without PE")):
        of_class = truth.index[truth == label]
        if len(of_class) < 2:
            raise UserError(
                f"{len(of_class)} studies {kind} to report: two halves need at least 2 of them; "
                "choose thresholds on another part"
            )
        ordered = sorted(of_class, key=lambda study: _digest(study, seed))
        dealt |= {study: i % 2 for i, study in enumerate(ordered)}
    return pd.Series(dealt, name="half").reindex(truth.index)


def assign(
    protocol: str, studies: pd.DataFrame, choose_on: str, report_on: str, seed: int = 0
) -> tuple[Assignment, ...]:
    """Which studies are chosen on and which are judged.

    Args:
        protocol: "paper" or "held-out".
        studies: by StudyInstanceUID: part (of the split) and truth (bool).
        choose_on, report_on: parts.
        seed: of the halves, where `choose_on` is `report_on`.

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
    everyone = tuple(reported.index)
    if protocol == "paper":
        return (Assignment(report_on, report_on, everyone, everyone),)
    if choose_on != report_on:
        chosen = tuple(studies.index[studies["part"] == choose_on])
        return (Assignment(choose_on, report_on, chosen, everyone),)
    half = halves(reported["truth"], seed)
    first, second = (tuple(reported.index[half == k]) for k in (0, 1))
    names = [f"{report_on}, half {k}" for k in (1, 2)]
    return (Assignment(*names, first, second), Assignment(*reversed(names), second, first))


def judge(
    probs: Mapping[str, np.ndarray],
    truth: pd.Series,
    assignments: tuple[Assignment, ...],
    criterion: str = "f1",
    at: float | None = None,
) -> Judged:
    """Choose a vote for each assignment and judge its reported studies by it.

    A study's score is its mu-th largest probability. Where the plan has several votes, scores of
    different mu and delta come together, so each is first brought to one scale on which every
    delta is 0.5; that keeps their order within an assignment, and the verdict is score > 0.5.

    Args:
        probs: slice probabilities `(Z,)` of each study.
        truth: whether each study has PE, by StudyInstanceUID.
        assignments: of `plan`.
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
    return Judged(studies, tuple(votes))


def _delta_at_half(score: pd.Series, delta: float) -> pd.Series:
    """Scores in [0,1] stretched so that delta comes to lie at 0.5, their order kept."""
    below = score / (2 * delta) if delta > 0 else score * 0 + 0.5
    above = 1 - (1 - score) / (2 * (1 - delta)) if delta < 1 else score * 0 + 0.5
    return below.where(score <= delta, above)


def _digest(study: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}:{study}".encode()).hexdigest()
