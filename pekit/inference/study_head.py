"""Predictions of a study head: probabilities of slices and of exam labels."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from pekit.common.errors import UserError
from pekit.dataset.schema import SLICE_LABEL, UIDS
from pekit.dataset.store import Store
from pekit.inference.features import SliceFeatures, pad_studies
from pekit.inference.predict import whole_study
from pekit.model.study_head import StudyHead


@torch.inference_mode()
def predict_head(
    head: StudyHead,
    features: SliceFeatures,
    store: Store,
    studies: Sequence[str],
    batch_size: int = 32,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Probabilities of a head for every slice and exam label of `studies`.

    Args:
        features: of at least these studies. With a stride above 1, the outputs of a slice are
            repeated until the next one that has features.
        batch_size: studies per batch.

    Returns:
        slices: UIDs, z, label (where known), `frozen` (the network's probability) and `head`; both
        are 0 outside the crop box. exams: StudyInstanceUID and one column per label.

    Raises:
        UserError: no studies, or a study without features.
    """
    if not len(studies):
        raise UserError("no study to predict: the list is empty")
    head = head.eval()
    device = next(head.parameters()).device
    boxes = store.studies.set_index("StudyInstanceUID")
    groups = dict(tuple(store.slices.groupby("StudyInstanceUID")))
    tables, exams = [], []
    for start in range(0, len(studies), batch_size):
        names = studies[start : start + batch_size]
        batch = pad_studies(features, names)
        slice_logits, exam_logits = head(*(tensor.to(device) for tensor in batch.values()))
        exams.append(exam_logits.sigmoid().cpu().numpy())
        both = torch.stack([batch["probability"], slice_logits.sigmoid().cpu()], dim=2).numpy()
        for study, inside, mask in zip(names, both, batch["mask"].numpy(), strict=True):
            table = groups[study].sort_values("z")
            known = [SLICE_LABEL] if SLICE_LABEL in table else []
            table = table[[*UIDS, "z", *known]].copy()
            low, high = boxes.loc[study, ["box_z0", "box_z1"]].astype(int)
            inside = inside[mask].repeat(features.stride, axis=0)[: high - low]
            table[["frozen", "head"]] = whole_study(inside, low, len(table))
            tables.append(table)
    exam = pd.DataFrame(np.concatenate(exams), columns=list(head.labels))
    exam.insert(0, "StudyInstanceUID", list(studies))
    return pd.concat(tables, ignore_index=True), exam
