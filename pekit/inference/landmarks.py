"""Landmarks predicted from slices, and their errors in mm."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from pekit.dataset.schema import LANDMARKS
from pekit.dataset.stacks import StackDataset
from pekit.dataset.store import Store
from pekit.hop import to_best_device
from pekit.model.landmark_net import LandmarkNet

AXES = ("x", "y", "z")


@dataclass(frozen=True)
class Located:
    """Landmarks predicted from N slices.

    Attributes:
        predicted, target: `(N, 20, 3)` x and y in [0, 1] of the crop, z as the distance from the
            slice in units of `z_scale` slices; absent landmarks are NaN in `target`.
        mm_per_unit: `(N, 3)` mm per unit of x, y, z.
    """

    predicted: np.ndarray
    target: np.ndarray
    mm_per_unit: np.ndarray

    def errors(self) -> pd.DataFrame:
        """Absolute errors in mm, a row per slice and present landmark: name, x, y, z, error_mm."""
        mm = np.abs(self.predicted - self.target) * self.mm_per_unit[:, None]
        names = np.broadcast_to(np.array(LANDMARKS, dtype=object), mm.shape[:2])
        there = ~np.isnan(self.target[..., 0])
        table = pd.DataFrame(mm[there], columns=list(AXES))
        table.insert(0, "name", names[there])
        table["error_mm"] = np.sqrt((table[list(AXES)] ** 2).sum(axis=1))
        return table

    def with_constant(self, constant: np.ndarray) -> "Located":
        """The same targets with a constant prediction `(20, 3)`, as a baseline."""
        return replace(self, predicted=np.broadcast_to(constant, self.target.shape))


@torch.inference_mode()
def locate(
    net: LandmarkNet,
    store: Store,
    samples: pd.DataFrame,
    image_size: int,
    z_scale: float,
    batch_size: int = 32,
    workers: int = 2,
) -> Located:
    """Predict the landmarks from slices, on the GPU where torch sees one.

    Args:
        samples: slices, as `training_samples` returns them.
        image_size, z_scale: as in the training of the network.
        batch_size: slices per batch.
        workers: threads that read slices.
    """
    net = to_best_device(net).eval()
    device = next(net.parameters()).device
    dataset = StackDataset(
        store, samples, image_size, landmarks=True, z_scale=z_scale, depth=net.depth
    )
    predicted, target = [], []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for start in range(0, len(dataset), batch_size):
            of_batch = range(start, min(start + batch_size, len(dataset)))
            batch = list(pool.map(dataset.__getitem__, of_batch))
            stacks = torch.from_numpy(np.stack([s["stack_hu"] for s in batch])).to(device)
            predicted.append(net(stacks.to(memory_format=net.memory_format)).float().cpu().numpy())
            target.append(np.stack([s["landmarks"] for s in batch]))
    return Located(
        np.concatenate(predicted), np.concatenate(target), _mm_per_unit(store, samples, z_scale)
    )


def mean_target(store: Store, samples: pd.DataFrame, z_scale: float) -> np.ndarray:
    """The mean target of `samples`, `(20, 3)`, as constant prediction; NaN if always absent."""
    dataset = StackDataset(store, samples, 32, landmarks=True, z_scale=z_scale)
    targets = np.stack([dataset.landmark_target(i) for i in range(len(dataset))])
    there = ~np.isnan(targets)
    with np.errstate(invalid="ignore"):
        return np.where(there, targets, 0).sum(axis=0) / there.sum(axis=0)


def _mm_per_unit(store: Store, samples: pd.DataFrame, z_scale: float) -> np.ndarray:
    studies = store.studies.set_index("StudyInstanceUID").loc[samples["StudyInstanceUID"]]
    x = (studies["box_x1"] - studies["box_x0"]) * studies["spacing_x"]
    y = (studies["box_y1"] - studies["box_y0"]) * studies["spacing_y"]
    return np.stack([x, y, studies["spacing_z"] * z_scale], axis=1).astype(float)
