"""Error analysis: every study with a wrong verdict, and what may explain it (figure 9).

    errors = study_errors(predictions, store.studies, "hop2", votes["hop2"])
    of_study = predictions[predictions["StudyInstanceUID"] == errors.iloc[0]["StudyInstanceUID"]]
    slices = top_slices(of_study, "hop2")

Errors are grouped by what may explain them (image quality, location of the clot); in each group the
most confident error comes first.
"""

import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from pekit.dataset.schema import SLICE_LABEL
from pekit.evaluation.predictions import probs_by_study, study_truth
from pekit.voting import Vote, study_scores

FALSE_POSITIVE, FALSE_NEGATIVE = "false positive", "false negative"
QUALITY_FLAGS = {
    "qa_motion": "motion",
    "qa_contrast": "poor contrast",
    "flow_artifact": "flow artifact",
    "true_filling_defect_not_pe": "filling defect that is no PE",
    "indeterminate": "indeterminate",
}
LOCATIONS = {"central_pe": "central", "rightsided_pe": "right", "leftsided_pe": "left"}
EXAM_FLAGS = {
    "rv_lv_ratio_gte_1": "RV/LV at least 1",
    "chronic_pe": "chronic",
    "acute_and_chronic_pe": "acute and chronic",
}
COLUMNS = (
    "StudyInstanceUID", "kind", "group", "score", "confidence", "slices with PE",
    "of them cropped away", "location", "flags", "audit",
)  # fmt: skip


def study_errors(
    predictions: pd.DataFrame, studies: pd.DataFrame, hop: str, vote: Vote
) -> pd.DataFrame:
    """The studies with a wrong verdict, grouped, the most confident first.

    Args:
        predictions: one row per slice: StudyInstanceUID, z, pe_present_on_image, the hop's column.
        studies: the store's studies: crop box, exam labels, and the audit's notes in `reasons`.
        hop: the column to evaluate.
        vote: mu and delta.

    Returns:
        One row per error, with `COLUMNS`: score is the mu-th largest probability; confidence is its
        distance to delta on the wrong side, in log-odds; flags and location are in words; audit
        has the audit's notes. False positives are grouped by quality flag, false negatives by
        quality flag or else location.

    Raises:
        UserError: predictions without labels, or a study that is not in `studies`.
    """
    truth = study_truth(predictions)
    scores = study_scores(probs_by_study(predictions, hop), vote.mu)
    verdict = scores > vote.delta
    about = studies.set_index("StudyInstanceUID")
    if unknown := sorted(set(truth.index) - set(about.index)):
        raise UserError(f"study {unknown[0]} is predicted but not in the store: predict again")
    positive = predictions[predictions[SLICE_LABEL] == 1].join(
        about, "StudyInstanceUID", rsuffix="_"
    )
    inside = positive["z"].between(positive["box_z0"], positive["box_z1"] - 1)
    positives = positive.groupby("StudyInstanceUID").size()
    lost = positive[~inside].groupby("StudyInstanceUID").size()
    rows = []
    for study in truth.index[verdict != truth]:
        flags = _words(about.loc[study], QUALITY_FLAGS)
        location = _words(about.loc[study], LOCATIONS)
        rows.append(
            {
                "StudyInstanceUID": study,
                "kind": FALSE_POSITIVE if verdict[study] else FALSE_NEGATIVE,
                "group": flags or ("no flag" if verdict[study] else location or "no location"),
                "score": float(scores[study]),
                "confidence": abs(_log_odds(scores[study]) - _log_odds(vote.delta)),
                "slices with PE": int(positives.get(study, 0)),
                "of them cropped away": int(lost.get(study, 0)),
                "location": location,
                "flags": ", ".join(filter(None, (flags, _words(about.loc[study], EXAM_FLAGS)))),
                "audit": about.loc[study].get("reasons") or "",
            }
        )
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    largest = table.groupby(["kind", "group"])["confidence"].transform("max")
    order = table.assign(largest=largest, negative=table["kind"] == FALSE_NEGATIVE)
    order = order.sort_values(
        ["negative", "largest", "group", "confidence"], ascending=[True, False, True, False]
    )
    return table.loc[order.index].reset_index(drop=True)


def most_telling(predictions: pd.DataFrame, errors: pd.DataFrame, hop: str, vote: Vote) -> str:
    """The study to look at first: the most confident error; without errors the highest score."""
    if len(errors):
        return str(errors.loc[errors["confidence"].idxmax(), "StudyInstanceUID"])
    return str(study_scores(probs_by_study(predictions, hop), vote.mu).idxmax())


def top_slices(
    rows: pd.DataFrame, hop: str, only_labelled: bool = False, n: int = 2, apart: int = 2
) -> list[int]:
    """The z of a study's most probable slices, the most probable first.

    Args:
        rows: predictions of one study, one row per slice: z and the hop's column.
        hop: the column to take, such as "hop2".
        only_labelled: only slices with PE, as for a false negative; needs pe_present_on_image.
        n: number of slices; there may be fewer.
        apart: least distance in z between two chosen slices.
    """
    if only_labelled:
        rows = rows[rows[SLICE_LABEL] == 1]
    ranked = rows.sort_values(hop, ascending=False, kind="stable")["z"]
    chosen: list[int] = []
    for z in ranked:
        if len(chosen) < n and all(abs(z - other) >= apart for other in chosen):
            chosen.append(int(z))
    return chosen


def facts(error: pd.Series) -> str:
    """A row of `study_errors` as one line: kind, score, slices with PE, flags, audit."""
    parts = [f"{error['kind']}, score {error['score']:.3f}"]
    if error["kind"] == FALSE_NEGATIVE:
        parts.append(f"{error['slices with PE']} slices with PE")
        if error["of them cropped away"]:
            parts.append(f"{error['of them cropped away']} of them cropped away")
    parts += [f"PE {error['location']}"] if error["location"] else []
    parts += [error["flags"]] if error["flags"] else ["no flags"]
    parts += [f"audit: {error['audit']}"] if error["audit"] else []
    return "; ".join(parts)


def _words(study: pd.Series, names: dict[str, str]) -> str:
    return ", ".join(word for label, word in names.items() if study.get(label) == 1)


def _log_odds(p: float) -> float:
    # A probability of 1 is a rounded value.
    p = float(np.clip(p, 1e-7, 1 - 1e-7))
    return float(np.log(p / (1 - p)))
