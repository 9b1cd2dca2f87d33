"""Prepared studies of noise, to measure how fast they are read; a network learns nothing from them.

    store, split = synthetic_store(folder, studies=512, shape=(250, 330, 400))

Their slices look to blosc2 like prepared CT: outside an ellipse nothing, inside tissue with
correlated noise of 25 HU, 2 to 3 times smaller than raw. (Real CT: 1.9 to 2.7. Noise that differs
in each pixel would hardly shrink.) Files that were just written lie in the system's memory, so the
speed of a disk is not in what one measures.
"""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from pekit.common.files import write_table
from pekit.dataset.schema import BOX_COLUMNS, OUTSIDE_HU, SLICE_LABEL
from pekit.dataset.store import Store

NOISE_HU = 25.0
VOLUMES = 2  # written; the other studies are links to them, since opening a study costs time too


def synthetic_store(
    root: Path, studies: int, shape: tuple[int, int, int]
) -> tuple[Store, pd.DataFrame]:
    """A store of `studies` volumes of `shape` (Z, Y, X), and a split of them.

    Every second slice is labelled positive. Every fourth study is in the validation part.
    """
    store = Store.create(root, {"synthetic": True})
    uids = [f"{number:012x}" for number in range(studies)]
    for number, uid in enumerate(uids):
        if number < VOLUMES:
            store.write_volume(uid, _volume(shape, number))
        else:
            first = store.volume_path(uids[number % VOLUMES])
            store.volume_path(uid).symlink_to(first.name)
    box = dict(zip(BOX_COLUMNS, (0, shape[0], 0, shape[1], 0, shape[2]), strict=True))
    rows = [{"StudyInstanceUID": uid, "status": "ok", **box} for uid in uids]
    write_table(store.root / "studies.parquet", pd.DataFrame(rows))
    z = np.arange(shape[0])
    slices = pd.DataFrame(
        {
            "StudyInstanceUID": np.repeat(uids, len(z)),
            "SeriesInstanceUID": np.repeat(uids, len(z)),
            "z": np.tile(z, studies),
            SLICE_LABEL: np.tile(z % 2, studies),
        }
    )
    slices["SOPInstanceUID"] = slices["StudyInstanceUID"] + slices["z"].map("{:06x}".format)
    write_table(store.root / "slices.parquet", slices)
    part = ["train" if number % 4 else "validation" for number in range(studies)]
    return store, pd.DataFrame({"StudyInstanceUID": uids, "part": part})


def _volume(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Tissue in an ellipse on each slice, with noise of NOISE_HU that is correlated as in CT."""
    rng = np.random.default_rng(seed)
    y, x = (np.linspace(-1, 1, side, dtype=np.float32) for side in shape[1:])
    inside = y[:, None] ** 2 + x[None, :] ** 2 < 1
    tissue = -400 + 450 * np.sin(9 * y[:, None]) * np.cos(7 * x[None, :])
    hu = np.full(shape, OUTSIDE_HU, np.int16)
    for plane in hu:
        noise = cv2.GaussianBlur(rng.standard_normal(shape[1:], np.float32), (0, 0), 0.8)
        plane[inside] = (tissue + noise * (NOISE_HU / noise.std()))[inside]
    return hu
