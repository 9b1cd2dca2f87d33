"""What a study head says of studies: slice probabilities, exam labels, P(PE), and their metrics."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from pekit.errors import UserError
from pekit.features import FeatureCache
from pekit.metrics import COLUMNS, ranking_metrics
from pekit.predict import whole_study
from pekit.store import SLICE_LABEL, UIDS, Store
from pekit.study_batches import pad_studies
from pekit.study_head import StudyHead

# The exam labels that exclude PE.
NO_PE = ("negative_exam_for_pe", "indeterminate")


@torch.inference_mode()
def predict_head(
    head: StudyHead,
    cache: FeatureCache,
    store: Store,
    studies: Sequence[str],
    batch_size: int = 32,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Probabilities of a head for every slice and exam label of `studies`.

    Args:
        cache: features of at least these studies.

    Returns:
        slices: UIDs, z, label (where known), `frozen` (the network's own probability) and `head`;
        0 outside the crop box. exams: StudyInstanceUID and a column a label.

    Raises:
        UserError: no studies, or one that has no features.
    """
    if not len(studies):
        raise UserError("no study to predict: the list is empty")
    head = head.eval()
    device = next(head.parameters()).device
    boxes = store.studies.set_index("StudyInstanceUID")["box_z0"]
    groups = dict(tuple(store.slices.groupby("StudyInstanceUID")))
    tables, exams = [], []
    for start in range(0, len(studies), batch_size):
        names = studies[start : start + batch_size]
        batch = pad_studies(cache, names)
        slice_logits, exam_logits = head(*(tensor.to(device) for tensor in batch.values()))
        exams.append(exam_logits.sigmoid().cpu().numpy())
        both = torch.stack([batch["probability"], slice_logits.sigmoid().cpu()], dim=2).numpy()
        for study, inside, mask in zip(names, both, batch["mask"].numpy(), strict=True):
            table = groups[study].sort_values("z")
            known = [SLICE_LABEL] if SLICE_LABEL in table else []
            table = table[[*UIDS, "z", *known]].copy()
            table[["frozen", "head"]] = whole_study(inside[mask], int(boxes[study]), len(table))
            tables.append(table)
    exam = pd.DataFrame(np.concatenate(exams), columns=list(head.labels))
    exam.insert(0, "StudyInstanceUID", list(studies))
    return pd.concat(tables, ignore_index=True), exam


def pe_probability(exams: pd.DataFrame) -> pd.Series:
    """P(PE) of each study: that it is neither negative nor indeterminate.

    The two labels exclude each other, but a head gives them as two separate probabilities: their
    product keeps the result in [0, 1], and studies that are surely negative apart.

    Args:
        exams: StudyInstanceUID and at least the labels of `NO_PE`.

    Raises:
        UserError: a label is missing.
    """
    missing = [name for name in NO_PE if name not in exams]
    if missing:
        raise UserError(f"P(PE) needs the exam labels {', '.join(missing)}")
    neither = (1 - exams[list(NO_PE)]).prod(axis=1)
    return pd.Series(neither.to_numpy(), pd.Index(exams["StudyInstanceUID"]), name="pe")


def exam_metrics(
    truth: pd.DataFrame, exams: pd.DataFrame, n_boot: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """AUROC of each exam label, with its 95 % interval over resampled studies.

    Args:
        truth: StudyInstanceUID and the labels, 0 or 1, of at least the studies of `exams`.
        exams: of `predict_head`.

    Returns:
        A row a label: positives (studies that have it), value, low, high, note. A label that
        none or all of the studies have is NaN, and the note says so.

    Raises:
        UserError: a study without a truth, or a label that is not 0 or 1.
    """
    labels = [name for name in exams if name != "StudyInstanceUID"]
    known = truth.set_index("StudyInstanceUID")
    absent = sorted(set(exams["StudyInstanceUID"]) - set(known.index))
    if absent:
        raise UserError(f"{len(absent)} studies have no exam labels, the first is {absent[0]}")
    known = known.loc[exams["StudyInstanceUID"], labels]
    rows = {}
    for label in labels:
        positives, n = int(known[label].sum()), len(known)
        if positives in (0, n):
            row = (np.nan, np.nan, np.nan, f"{'no' if positives == 0 else 'every'} study has it")
        else:
            score = exams[label].to_numpy(np.float64)
            table = ranking_metrics(known[label].to_numpy(), score, n_boot=n_boot, seed=seed)
            row = tuple(table.loc["AUROC", list(COLUMNS)])
        rows[label] = (positives, *row)
    columns = ["positives", *COLUMNS]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("label")
