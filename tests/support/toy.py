"""A toy store for the tests: positive slices hold a bright square."""

from pathlib import Path

import numpy as np
import pandas as pd

from pekit.common.files import write_table
from pekit.dataset.schema import BOX_COLUMNS, LANDMARKS, SLICE_LABEL
from pekit.dataset.store import Store

DEPTH, SIDE, BELOW = 10, 40, 2


def toy_store(root: Path, n: int = 6) -> tuple[Store, pd.DataFrame]:
    """A store of `n` studies, each of 10 cropped slices and 2 below the crop box, and its split."""
    store = Store.create(root, {"crop": "toy"})
    rng = np.random.default_rng(0)
    studies, slices, landmarks = [], [], []
    for i in range(n):
        study = f"{i:012x}"
        hu = rng.normal(40, 20, (DEPTH, SIDE, SIDE))
        label = np.zeros(DEPTH + BELOW, dtype=int)
        if i % 2:
            hu[4:7, 10:26, 10:26] = 350
            label[4 + BELOW : 7 + BELOW] = 1
        store.write_volume(study, hu.astype(np.int16))
        box = (BELOW, BELOW + DEPTH, 0, SIDE, 0, SIDE)
        studies.append(
            {"StudyInstanceUID": study, "status": "ok", **dict(zip(BOX_COLUMNS, box, strict=True))}
        )
        slices += [
            {
                "StudyInstanceUID": study,
                "SeriesInstanceUID": f"{i:012x}",
                "SOPInstanceUID": f"{i:06x}{z:06x}",
                "z": z,
                SLICE_LABEL: label[z],
            }
            for z in range(DEPTH + BELOW)
        ]
        landmarks += [
            {
                "StudyInstanceUID": study,
                "name": name,
                "z": 7.0,
                "y": 9.5,
                "x": 19.5,
                "present": k > 0,
            }
            for k, name in enumerate(LANDMARKS)
        ]
    write_table(store.root / "studies.parquet", pd.DataFrame(studies))
    write_table(store.root / "slices.parquet", pd.DataFrame(slices))
    write_table(store.root / "landmarks.parquet", pd.DataFrame(landmarks))
    part = ["train"] * (n - 2) + ["validation"] * 2
    uids = [s["StudyInstanceUID"] for s in studies]
    return store, pd.DataFrame({"StudyInstanceUID": uids, "part": part, "fold": 0})
