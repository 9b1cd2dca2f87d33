"""All tables of an evaluation from its predictions, by one pure function.

31_evaluate calls `evaluate` and writes its inputs beside its tables:

    predictions.parquet  one row per model and slice: model, StudyInstanceUID, SOPInstanceUID, z,
                         part, pe_present_on_image, prob
    studies.parquet      the exam labels of these studies
    evaluation.json      the settings
    tables/<name>.csv    the tables

The same inputs give the same tables, so anyone with the folder can call
`evaluate(*read_inputs(folder))` and compare every number.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import Field

from pekit.common.errors import UserError
from pekit.common.files import read_json, read_table, write_json, write_table
from pekit.common.settings import Settings
from pekit.dataset.schema import EXAM_LABELS, SLICE_LABEL
from pekit.evaluation import tables
from pekit.evaluation.predictions import LONG, STUDY, check_long, cohort, probs_by_study
from pekit.evaluation.protocols import PROTOCOLS, Evaluated, apply_protocol, assign
from pekit.voting import Vote, best_vote, named_criterion


class EvaluationSettings(Settings):
    """How predictions are evaluated.

    `choose_on`, `report_on`: parts of the split; if both are the same, the held-out protocol halves
    it. `criterion`, `at`: criterion of the vote and its target (`pekit.voting`). `n_boot`:
    resamples of the studies for each interval. `seed`: of the resamples and of the halves.
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
        """The parts in use, each once."""
        return tuple(dict.fromkeys((self.choose_on, self.report_on)))


@dataclass(frozen=True)
class Evaluation:
    """Tables and votes of an evaluation.

    Args:
        tables: by name; the column protocol is "paper", "held-out", or "both" where nothing is
            chosen, so that both protocols give the same.
        votes: each model's vote, chosen on all studies of `choose_on`: for thresholds.json.
    """

    tables: dict[str, pd.DataFrame]
    votes: dict[str, Vote]


def evaluate(
    predictions: pd.DataFrame, studies: pd.DataFrame, settings: EvaluationSettings
) -> Evaluation:
    """Evaluate the models by both protocols.

    Args:
        predictions: one row per model and slice: model, StudyInstanceUID, z, part,
            pe_present_on_image, prob. The others are compared with the first model.
        studies: exam labels of these studies, for the subgroups; may have no rows.
        settings: parts, criterion, resamples.

    Returns:
        Tables thresholds, study_metrics, optimism, summary, confusion, verdicts, paired,
        slice_metrics, temperatures, calibration, reliability, subgroups.

    Raises:
        UserError: predictions that cannot be evaluated (`check_long`), missing exam labels, or a
            criterion without its target.
    """
    named_criterion(settings.criterion, settings.at)
    check_long(predictions, settings.parts)
    models = list(dict.fromkeys(predictions["model"]))
    slices = {name: predictions[predictions["model"] == name] for name in models}
    known = cohort(slices[models[0]])
    probs = {name: probs_by_study(slices[name], "prob") for name in models}
    evaluated = by_protocol(probs, known, settings)
    chosen = known.index[known["part"] == settings.choose_on]
    votes = {
        name: best_vote(
            {study: probs[name][study] for study in chosen},
            known.loc[chosen, "truth"],
            settings.criterion,
            at=settings.at,
        )
        for name in models
    }
    return Evaluation(dict(_tables(slices, studies, settings, evaluated)), votes)


def by_protocol(
    probs: Mapping[str, Mapping[str, np.ndarray]],
    studies: pd.DataFrame,
    settings: EvaluationSettings,
) -> dict[tuple[str, str], Evaluated]:
    """Verdicts of every model by both protocols, by (protocol, model).

    Args:
        probs: by model, the slice probabilities `(Z,)` of each study. For a model that gives one
            probability per study, that is one "slice": its vote is one threshold.
        studies: part and truth by StudyInstanceUID (`pekit.evaluation.predictions.cohort`).
        settings: parts, criterion, and the seed of the halves.

    Raises:
        UserError: a model lacks a study, or as `assign` and `best_vote`.
    """
    used = studies.index[studies["part"].isin(settings.parts)]
    for model, of_model in probs.items():
        if lacking := sorted(set(used) - set(of_model)):
            raise UserError(
                f"{model}: {len(lacking)} studies have no prediction, such as {lacking[0]}: "
                f"predict all of {' and '.join(settings.parts)}"
            )
    parts = settings.choose_on, settings.report_on
    assignments = {p: assign(p, studies, *parts, settings.seed) for p in PROTOCOLS}
    return {
        (protocol, model): apply_protocol(
            probs[model], studies["truth"], assignments[protocol], settings.criterion, settings.at
        )
        for protocol, model in product(PROTOCOLS, probs)
    }


def _tables(
    slices: dict[str, pd.DataFrame],
    studies: pd.DataFrame,
    settings: EvaluationSettings,
    evaluated: dict[tuple[str, str], Evaluated],
) -> Iterator[tuple[str, pd.DataFrame]]:
    resampling = settings.n_boot, settings.seed
    by_study = {key: found.studies for key, found in evaluated.items()}
    yield from tables.study_tables(evaluated, *resampling).items()
    reported = {name: t[t["part"] == settings.report_on] for name, t in slices.items()}
    yield "paired", tables.paired(by_study, reported, *resampling)
    yield "slice_metrics", tables.slice_level(reported, *resampling)
    assignments = {protocol: found.assignments for (protocol, _), found in evaluated.items()}
    yield from tables.calibrations(slices, reported, assignments, *resampling).items()
    positive = next(iter(reported.values())).groupby(STUDY)[SLICE_LABEL].sum()
    yield "subgroups", tables.subgroups(by_study, positive, studies)


def write_inputs(
    folder: Path, predictions: pd.DataFrame, studies: pd.DataFrame, settings: EvaluationSettings
) -> None:
    """Write the arguments of `evaluate` for `read_inputs`."""
    folder = Path(folder)
    write_table(folder / "predictions.parquet", predictions[list(LONG)])
    write_table(folder / "studies.parquet", studies)
    write_json(folder / "evaluation.json", settings.model_dump())


def read_inputs(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, EvaluationSettings]:
    """The arguments of `evaluate` from the folder of an evaluation.

    Raises:
        UserError: a file is missing, unreadable, or of another version.
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
