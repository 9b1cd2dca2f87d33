"""The toy store with exam labels, and slice features of a small network."""

from functools import lru_cache
from pathlib import Path

import pandas as pd
import torch
from toy import toy_store

from pekit.common.files import write_table
from pekit.dataset.store import Store
from pekit.hop import HopNet
from pekit.inference.features import SliceFeatures
from pekit.inference.predict import predict_studies
from pekit.model.encoder import Encoder
from submissions.metric import SUBMISSION_LABELS

SIZE = 32


def exam_store(root: Path, n: int = 12) -> tuple[Store, pd.DataFrame]:
    """The toy store: every second study has PE, every fourth central PE, none chronic PE.

    One more study is excluded.
    """
    store, split = toy_store(root, n)
    studies = store.studies
    pe = [i % 2 for i in range(n)]
    for name in SUBMISSION_LABELS:
        studies[name] = 0
    studies["negative_exam_for_pe"] = [1 - p for p in pe]
    studies["rightsided_pe"] = studies["rv_lv_ratio_lt_1"] = pe
    studies["central_pe"] = [int(i % 4 == 1) for i in range(n)]
    studies["sha256"] = [f"volume {i}" for i in range(n)]
    excluded = pd.DataFrame({"StudyInstanceUID": ["eeeeeeeeeeee"], "status": ["excluded"]})
    studies = pd.concat([studies, excluded], ignore_index=True)  # with neither box nor labels
    write_table(store.root / "studies.parquet", studies)
    return store, split


@lru_cache
def small_net() -> HopNet:
    """A two-hop network that all tests share: do not change it."""
    torch.manual_seed(0)
    return HopNet([Encoder("tf_efficientnet_lite0", init="package")]).add_hop().eval()


def written_features(root: Path, store: Store, stride: int = 1) -> SliceFeatures:
    """Features of all studies of the store."""
    kept = store.studies.query("status != 'excluded'")["StudyInstanceUID"]
    predict_studies(small_net(), store, kept, SIZE, stride=stride, features=root)
    return SliceFeatures(root, store)
