"""Slice features of several studies with their labels, as padded batches for a study head."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pekit.errors import UserError
from pekit.features import FeatureCache
from pekit.store import SLICE_LABEL, Store

Batch = dict[str, Tensor]


class LabelledStudies:
    """Slice features of studies with their labels, as padded batches.

    Args:
        cache: features of at least these studies.
        studies: their StudyInstanceUIDs.
        labels: names of the exam labels, columns of the store's studies.

    Raises:
        UserError: a study is not prepared, a label column is missing, or a label is not 0 or 1.
    """

    def __init__(
        self, cache: FeatureCache, store: Store, studies: Sequence[str], labels: tuple[str, ...]
    ):
        self.cache, self.studies = cache, list(studies)
        unknown = [study for study in self.studies if study not in cache.volumes]
        if unknown:
            raise UserError(f"study {unknown[0]} is not prepared in {store.root}: check the split")
        table = store.studies.set_index("StudyInstanceUID")
        missing = [name for name in labels if name not in table]
        if missing:
            raise UserError(f"{store.root} has no exam labels {', '.join(missing)}")
        self.exam = table.loc[self.studies, list(labels)]
        slices = store.slices
        slices = slices[slices["StudyInstanceUID"].isin(self.studies)]
        known = self.exam.isin((0, 1)).all(axis=1)
        unlabelled = slices.loc[~slices[SLICE_LABEL].isin((0, 1)), "StudyInstanceUID"]
        for study in (*known.index[~known], *unlabelled):
            raise UserError(f"study {study} is not labelled: a study head cannot learn from it")
        ordered = slices.sort_values(["StudyInstanceUID", "z"])
        self.whole = {s: g.to_numpy() for s, g in ordered.groupby("StudyInstanceUID")[SLICE_LABEL]}
        self.box = table.loc[self.studies, ["box_z0", "box_z1"]].astype(int)

    def batch(self, studies: Sequence[str]) -> Batch:
        """Features as `pad_studies` gives them, and the labels.

        slice_label `(B, S)`; exam_label `(B, labels)`; positives and slices `(B,)` of the whole
        studies, also outside the crop box.
        """
        box = [self.box.loc[study] for study in studies]
        within = [self.whole[s][b.box_z0 : b.box_z1] for s, b in zip(studies, box, strict=True)]
        return pad_studies(self.cache, studies) | {
            "slice_label": pad_sequence([torch.tensor(w).float() for w in within], True),
            "exam_label": torch.tensor(self.exam.loc[list(studies)].to_numpy(np.float32)),
            "positives": torch.tensor([float(self.whole[s].sum()) for s in studies]),
            "slices": torch.tensor([float(len(self.whole[s])) for s in studies]),
        }


def pad_studies(cache: FeatureCache, studies: Sequence[str]) -> Batch:
    """Slice features of some studies, padded: features `(B, S, F)`, probability, mask `(B, S)`."""
    read = [cache.read(study) for study in studies]
    return {
        "features": pad_sequence([torch.from_numpy(f) for f, _ in read], True),
        "probability": pad_sequence([torch.from_numpy(p) for _, p in read], True),
        "mask": pad_sequence([torch.ones(len(p), dtype=torch.bool) for _, p in read], True),
    }
