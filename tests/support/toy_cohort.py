"""A small cohort as 31_evaluate reads it: split, slices, labels, predictions of three models."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from pekit.dataset.schema import EXAM_LABELS, SLICE_LABEL
from pekit.evaluation.predictions import long_predictions

SLICES = 10


class Cohort(NamedTuple):
    split: pd.DataFrame
    slices: pd.DataFrame
    studies: pd.DataFrame
    predictions: pd.DataFrame
    control: pd.DataFrame

    @property
    def models(self):
        return {
            "hop 1": (self.predictions, "hop1"),
            "hop 2": (self.predictions, "hop2"),
            "control": (self.control, "hop1"),
        }

    def long(self, *parts):
        return long_predictions(self.models, self.split, self.slices, parts)


def cohort(seed=0, **parts) -> Cohort:
    """Studies by part (24 of validation and 30 of test by default); every second study has PE."""
    rng = np.random.default_rng(seed)
    split, studies, slices = [], [], []
    for part, n in (parts or {"train": 4, "validation": 24, "test": 30}).items():
        for i in range(n):
            study, pe = f"{part[:3]}{i:03d}", i % 2
            split.append({"StudyInstanceUID": study, "part": part})
            labels = dict.fromkeys(EXAM_LABELS, 0)
            labels |= {"negative_exam_for_pe": 1 - pe, "rightsided_pe": pe, "rv_lv_ratio_lt_1": pe}
            labels |= {"qa_motion": int(i % 5 == 0), "chronic_pe": int(pe and i % 3 == 0)}
            studies.append({"StudyInstanceUID": study, **labels})
            clot = rng.integers(1, SLICES // 2) if pe else 0
            for z in range(SLICES):
                sop = f"{study}.{z}"
                slices.append((study, sop, z, int(z < clot)))
    columns = ["StudyInstanceUID", "SOPInstanceUID", "z", SLICE_LABEL]
    slices = pd.DataFrame(slices, columns=columns)
    split = pd.DataFrame(split)
    table = slices.merge(split, on="StudyInstanceUID")

    def column(signal):
        logit = rng.normal(size=len(table)) + signal * table[SLICE_LABEL] - 1
        return (1 / (1 + np.exp(-logit))).astype(np.float32)

    predictions = table.assign(hop1=column(2.0), hop2=column(3.0))
    control = table.assign(hop1=column(2.5))
    return Cohort(split, slices, pd.DataFrame(studies), predictions, control)
