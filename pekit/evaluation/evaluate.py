"""Every table of an evaluation from its predictions, by one pure function.

31_evaluate calls `evaluate` and writes what it was given beside what it got:

    predictions.parquet  a row a model and slice: model, StudyInstanceUID, SOPInstanceUID, z, part,
                         pe_present_on_image, prob
    studies.parquet      the exam labels of these studies
    evaluation.json      the settings
    tables/<name>.csv    the tables

So whoever has the folder can call `evaluate(*read_inputs(folder))` and compare every number: the
same inputs give the same tables.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import pandas as pd
from pydantic import Field

from pekit.common.errors import UserError
from pekit.common.files import read_json, read_table, write_json, write_table
from pekit.common.settings import Settings
from pekit.dataset.schema import EXAM_LABELS, SLICE_LABEL
from pekit.evaluation import tables
from pekit.evaluation.metrics import summary
from pekit.evaluation.predictions import LONG, STUDY, check_long, probs_by_study, study_truth
from pekit.evaluation.protocols import PROTOCOLS, Assignment, Judged, assign, judge
from pekit.voting import Vote, best_vote, named_criterion


class EvaluationSettings(Settings):
    """How predictions are judged.

    `choose_on`, `report_on`: parts of the split; where they are the same, the held-out protocol
    halves it. `criterion`, `at`: what the vote is chosen for (`pekit.voting`). `n_boot` resamples
    of the studies make an interval; `seed` is that of the resamples and of the halves.
    """

    choose_on: str = "validation"
    report_on: str = "test"
    criterion: Literal[
        "f1", "youden", "sensitivity_at_specificity", "specificity_at_sensitivity"
    ] = "f1"
    at: float | None = Field(None, ge=0, le=1)
    n_boot: int = Field(2000, ge=1)
    seed: int = 0

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that are used, each once."""
        return tuple(dict.fromkeys((self.choose_on, self.report_on)))


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Args:
        tables: by name, everything that is shown; protocol is "paper", "held-out", or "both" where
            nothing is chosen and both are the same.
        votes: each model's vote as chosen on all studies of `choose_on`: for thresholds.json.
    """

    tables: dict[str, pd.DataFrame]
    votes: dict[str, Vote]


def evaluate(
    predictions: pd.DataFrame, studies: pd.DataFrame, settings: EvaluationSettings
) -> Evaluation:
    """Judge the models by both protocols.

    Args:
        predictions: a row a model and slice: model, StudyInstanceUID, z, part,
            pe_present_on_image, prob. The first model is the one that others are compared with.
        studies: exam labels of these studies, for the subgroups; may have no rows.
        settings: parts, criterion, resamples.

    Returns:
        Tables thresholds, study_metrics, optimism, summary, confusion, paired, slice_metrics,
        temperatures, calibration, reliability, subgroups, verdicts.

    Raises:
        UserError: predictions that cannot be judged (`check_long`), missing exam
            labels, or a criterion that lacks its bound.
    """
    named_criterion(settings.criterion, settings.at)
    check_long(predictions, settings.parts)
    models = list(dict.fromkeys(predictions["model"]))
    slices = {name: predictions[predictions["model"] == name] for name in models}
    first = slices[models[0]]
    truth = study_truth(first)
    cohort = pd.DataFrame({"part": first.groupby(STUDY)["part"].first(), "truth": truth})
    plans = {
        protocol: assign(protocol, cohort, settings.choose_on, settings.report_on, settings.seed)
        for protocol in PROTOCOLS
    }
    probs = {name: probs_by_study(slices[name], "prob") for name in models}
    judged = {
        (protocol, name): judge(
            probs[name], truth, plans[protocol], settings.criterion, settings.at
        )
        for protocol, name in product(PROTOCOLS, models)
    }
    chosen = cohort.index[cohort["part"] == settings.choose_on]
    votes = {
        name: best_vote(
            {study: probs[name][study] for study in chosen},
            truth.loc[chosen],
            settings.criterion,
            at=settings.at,
        )
        for name in models
    }
    return Evaluation(dict(_tables(slices, studies, settings, plans, judged)), votes)


def _tables(
    slices: dict[str, pd.DataFrame],
    studies: pd.DataFrame,
    settings: EvaluationSettings,
    plans: dict[str, tuple[Assignment, ...]],
    judged: dict[tuple[str, str], Judged],
) -> Iterator[tuple[str, pd.DataFrame]]:
    resampling = settings.n_boot, settings.seed
    by_study = {key: found.studies for key, found in judged.items()}
    yield "thresholds", tables.thresholds(judged)
    metrics = tables.study_level(by_study, *resampling)
    yield "study_metrics", metrics
    yield "optimism", tables.optimism(metrics)
    yield "summary", summary(metrics, tables.KEYS)
    yield "confusion", tables.confusions(by_study)
    reported = {name: t[t["part"] == settings.report_on] for name, t in slices.items()}
    yield "paired", tables.paired(by_study, reported, *resampling)
    yield "slice_metrics", tables.slice_level(reported, *resampling)
    yield from tables.calibrations(slices, reported, plans, *resampling).items()
    positive = next(iter(reported.values())).groupby(STUDY)[SLICE_LABEL].sum()
    yield "subgroups", tables.subgroups(by_study, positive, studies)
    yield "verdicts", tables.verdicts(by_study)


def write_inputs(
    folder: Path, predictions: pd.DataFrame, studies: pd.DataFrame, settings: EvaluationSettings
) -> None:
    """Write what `evaluate` was given, so that `read_inputs` gives the same again."""
    folder = Path(folder)
    write_table(folder / "predictions.parquet", predictions[list(LONG)])
    write_table(folder / "studies.parquet", studies)
    write_json(folder / "evaluation.json", settings.model_dump())


def read_inputs(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, EvaluationSettings]:
    """What `evaluate` was given, out of the folder of an evaluation.

    Raises:
        UserError: a file missing, unreadable, or of another version.
    """
    folder = Path(folder)
    predictions = read_table(folder / "predictions.parquet", LONG)
    studies = read_table(folder / "studies.parquet", (STUDY, *EXAM_LABELS))
    path = folder / "evaluation.json"
    content = read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} does not hold settings: run 31_evaluate again")
    try:
        return predictions, studies, EvaluationSettings(**content)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
