"""2.5D stacks from prepared studies.

A 2.5D stack is a slice with its neighbours, 3 slices in the paper: a 2D network reads them as
channels and predicts the middle slice. "Stack" means this everywhere in the kit.

`StackDataset` gives training samples. All randomness of a sample comes from one seed, which the
sampler gives with its index. A run is therefore reproducible with any number of workers.
"""

import cv2
import numpy as np
import pandas as pd
import torch
from torch.utils.data import Dataset

from pekit.common.errors import UserError
from pekit.dataset.augment import AugmentSettings, augment_stack, draw_augmentation, move_points
from pekit.dataset.sampler import Draw
from pekit.dataset.schema import LANDMARKS, SLICE_LABEL
from pekit.dataset.store import Store
from pekit.dataset.windows import SLICES


def training_samples(store: Store, studies: list[str], stride: int = 1) -> pd.DataFrame:
    """The slices of `studies` inside the crop box; of each study every `stride`-th.

    Returns:
        One row per slice: StudyInstanceUID, z (in the whole volume), row (in the cropped volume),
        label.

    Raises:
        UserError: a study is not in the store, was excluded, or has no label.
    """
    table = store.studies.set_index("StudyInstanceUID")
    unknown = [s for s in studies if s not in table.index]
    if unknown:
        raise UserError(
            f"{len(unknown)} studies are not in {store.root}, the first is {unknown[0]}"
        )
    table = table.loc[studies]
    excluded = table.index[table["status"] == "excluded"]
    if len(excluded):
        raise UserError(f"study {excluded[0]} was excluded by the audit: it cannot be used")
    slices = store.slices
    slices = slices[slices["StudyInstanceUID"].isin(studies)]
    slices = slices.join(table[["box_z0", "box_z1"]], on="StudyInstanceUID")
    slices = slices[slices["z"].between(slices["box_z0"], slices["box_z1"] - 1)]
    row = slices["z"] - slices["box_z0"]
    samples = pd.DataFrame(
        {
            "StudyInstanceUID": slices["StudyInstanceUID"],
            "z": slices["z"],
            "row": row,
            "label": slices[SLICE_LABEL],
        }
    )[row % stride == 0]
    if (samples["label"] < 0).any():
        first = samples.loc[samples["label"] < 0, "StudyInstanceUID"].iloc[0]
        raise UserError(f"study {first} has no slice labels: it cannot be used for training")
    return samples.sort_values(["StudyInstanceUID", "z"]).reset_index(drop=True)


def spread_samples(samples: pd.DataFrame, n: int) -> pd.DataFrame:
    """At most `n` of the samples, evenly spread over studies and slices."""
    return samples.iloc[evenly(len(samples), n)].reset_index(drop=True)


def evenly(total: int, n: int) -> list[int]:
    """At most `n` of the indices below `total`, evenly spread, with the first and the last."""
    return np.linspace(0, total - 1, min(n, total)).round().astype(int).tolist()


def read_stack(store: Store, study: str, row: int, depth: int = SLICES) -> np.ndarray:
    """`depth` slices around the slice `row` of a cropped volume, `(depth, Y, X)` int16 HU.

    At the ends of the volume the outermost slice is repeated.
    """
    last = store.volume_shape(study)[0] - 1
    wanted = np.clip(np.arange(depth) + row - depth // 2, 0, last)
    start = wanted[0]
    return store.read_volume(study, start, wanted[-1] + 1)[wanted - start]


def resize_slices(hu: np.ndarray, image_size: int) -> np.ndarray:
    """Resize `(N, Y, X)` int16 HU to `(N, image_size, image_size)`, bilinearly (section IV)."""
    size = (image_size, image_size)
    return np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in hu])


def middle_stacks(store: Store, image_size: int, n: int = 16) -> np.ndarray:
    """The middle stack of each of up to `n` studies of a store: `(N, 3, H, W)` int16 HU.

    Raises:
        UserError: the store holds no study.
    """
    studies = store.studies.query("status != 'excluded'")["StudyInstanceUID"].tolist()
    if not studies:
        raise UserError(f"{store.root} holds no study")
    stacks = []
    for study in studies[:: max(1, len(studies) // n)][:n]:
        middle = read_stack(store, study, store.volume_shape(study)[0] // 2)
        stacks.append(resize_slices(middle, image_size))
    return np.stack(stacks)


class StackDataset(Dataset):
    """2.5D stacks with the label of the middle slice and, if wanted, landmarks relative to it.

    Args:
        store: prepared studies.
        samples: as `training_samples` returns them.
        image_size: side of the resized square image, pixels.
        augment: augmentation, or None.
        landmarks: whether to give landmark targets (for pretraining).
        z_scale: number of slices by which the z distance of landmarks is divided (600 in the
            paper).
        depth: slices per stack, odd: 3 in the paper, more for 3D encoders.

    Attributes:
        names: the studies, sorted.

    Raises:
        UserError: landmarks are wanted and a study has none.
    """

    def __init__(
        self,
        store: Store,
        samples: pd.DataFrame,
        image_size: int,
        augment: AugmentSettings | None = None,
        landmarks: bool = False,
        z_scale: float = 600.0,
        depth: int = SLICES,
    ):
        self.store, self.image_size, self.z_scale = store, image_size, z_scale
        self.augment, self.depth = augment, depth
        codes, names = pd.factorize(samples["StudyInstanceUID"], sort=True)
        self.names = [str(name) for name in names]
        # Tensors: PyTorch moves them into shared memory when a worker starts, and each worker gets
        # a handle. Of numpy arrays each gets a copy: 1.8 million slices in the RSNA-STR data.
        columns = (codes, samples["row"], samples["z"], samples["label"])
        self._samples = torch.from_numpy(np.stack(columns, axis=1).astype(np.int32))
        self._points = self._landmark_points() if landmarks else None

    @property
    def label(self) -> np.ndarray:
        """`(N,)` int64 label of each sample's middle slice; a copy."""
        return self._samples[:, 3].numpy().astype(np.int64)

    @property
    def nbytes(self) -> int:
        """Bytes of shared memory that the tables take as soon as a worker process has them."""
        return self._samples.nbytes + (0 if self._points is None else self._points.nbytes)

    def slice_of(self, index: int) -> tuple[str, int]:
        """Study of a sample, and z of its middle slice in the whole volume."""
        code, _, z, _ = self._samples[index].tolist()
        return self.names[code], z

    def _landmark_points(self) -> torch.Tensor:
        # (studies, 20, 3): z in slices of the whole volume, y and x in [0, 1] of the crop.
        boxes = self.store.studies.set_index("StudyInstanceUID")
        groups = dict(tuple(self.store.landmarks.groupby("StudyInstanceUID")))
        points = np.empty((len(self.names), len(LANDMARKS), 3))
        for study, zyx in zip(self.names, points, strict=True):
            if study not in groups:
                raise UserError(f"study {study} has no landmarks in {self.store.root}")
            rows = groups[study].set_index("name").reindex(LANDMARKS)
            zyx[:] = rows[["z", "y", "x"]].to_numpy(dtype=np.float64)
            zyx[~rows["present"].fillna(False).to_numpy(dtype=bool)] = np.nan
            box = boxes.loc[study]
            for axis, name in ((1, "y"), (2, "x")):
                low, high = box[f"box_{name}0"], box[f"box_{name}1"]
                zyx[:, axis] = (zyx[:, axis] + 0.5 - low) / (high - low)
        return torch.from_numpy(points)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, drawn: Draw | int) -> dict[str, np.ndarray | float | int]:
        """stack_hu `(depth, H, W)` int16, label, contrast, index; landmarks `(20, 3)` (x, y, z)."""
        index, seed = drawn if isinstance(drawn, tuple) else (drawn, 0)
        code, row, _, label = self._samples[index].tolist()
        stack = read_stack(self.store, self.names[code], row, self.depth)
        target = self.landmark_target(index)
        contrast = 1.0
        if self.augment:
            draw = draw_augmentation(self.augment, self.image_size, seed)
            stack = augment_stack(stack, self.image_size, draw)
            target[:, :2] = move_points(target[:, :2], self.image_size, draw)
            contrast = draw.contrast
        else:
            stack = resize_slices(stack, self.image_size)
        sample = {
            "stack_hu": stack,
            "label": label,
            "contrast": np.float32(contrast),
            "index": index,
        }
        if self._points is not None:
            sample["landmarks"] = target.astype(np.float32)
        return sample

    def landmark_target(self, index: int) -> np.ndarray:
        """Landmark positions `(20, 3)`: x and y in [0, 1] of the crop, z distance / `z_scale`.

        Absent landmarks are NaN. Without landmark targets the result is empty, `(0, 3)`.
        """
        if self._points is None:
            return np.empty((0, 3))
        code, _, own_z, _ = self._samples[index].tolist()
        z, y, x = self._points[code].numpy().T
        return np.stack([x, y, (z - own_z) / self.z_scale], axis=1)


def volume_stacks(planes: np.ndarray, depth: int = SLICES) -> np.ndarray:
    """All stacks of a volume: `(Z, H, W)` -> `(Z, depth, H, W)`, a view; end slices repeat."""
    half = depth // 2
    padded = np.pad(planes, ((half, half), (0, 0), (0, 0)), mode="edge")
    # Writable only because torch.from_numpy warns about arrays that are not.
    windows = np.lib.stride_tricks.sliding_window_view(padded, depth, axis=0, writeable=True)
    return np.moveaxis(windows, -1, 1)
