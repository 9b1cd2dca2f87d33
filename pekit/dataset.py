"""3-slice stacks of prepared studies for training: samples, sampler and augmentation.

Everything random about a sample comes from one seed that the sampler hands out with its index,
so a run repeats exactly whatever the number of workers, and every epoch differs.
"""

import multiprocessing as mp
from collections.abc import Iterator

import cv2
import numpy as np
import pandas as pd
from torch.utils.data import Dataset, Sampler

from pekit.config import AugmentSettings
from pekit.errors import UserError
from pekit.store import LANDMARKS, OUTSIDE_HU, SLICE_LABEL, Store
from pekit.windows import SLICES

# Albumentations clips floats to [0, 1]: HU are scaled so that 0 is the fill of all augmentations.
HU_RANGE = (OUTSIDE_HU, 3071)

# A sample as the sampler names it: (index, seed of its augmentation).
Draw = tuple[int, int]


def training_samples(store: Store, studies: list[str], stride: int = 1) -> pd.DataFrame:
    """The slices inside the crop box of `studies`, every `stride`-th of a study.

    Returns:
        StudyInstanceUID, z (in the whole volume), row (in the cropped volume), label.

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
    excluded = table.index[table["verdict"] == "excluded"]
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


def read_stack(store: Store, study: str, row: int) -> np.ndarray:
    """The slice `row` of a cropped volume and its neighbours, `(3, Y, X)` int16 HU.

    At the ends of the volume the last slice stands in for the missing neighbour.
    """
    depth = store.volume_shape(study)[0]
    half = SLICES // 2
    start, stop = max(row - half, 0), min(row + half + 1, depth)
    wanted = np.clip(np.arange(row - half, row + half + 1), 0, depth - 1) - start
    return store.read_volume(study, start, stop)[wanted]


def resize_slices(hu: np.ndarray, image_size: int) -> np.ndarray:
    """Resize `(N, Y, X)` int16 HU to `(N, image_size, image_size)`, bilinearly (section IV)."""
    size = (image_size, image_size)
    return np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in hu])


class Augmentation:
    """The paper's augmentation of a stack, moving landmarks with the image (section IV).

    Contrast is drawn here and applied after windowing, on the device (`Windows`).
    """

    def __init__(self, settings: AugmentSettings):
        import albumentations as A

        self.contrast = settings.contrast
        steps = [
            A.Affine(
                translate_percent=(-settings.shift, settings.shift),
                scale=(1 - settings.scale, 1 + settings.scale),
                rotate=(-settings.rotate_deg, settings.rotate_deg),
                keep_ratio=True,
                fill=0,
                p=1.0,
            )
        ]
        if settings.cutout_holes and settings.cutout_size:
            # The Cutout of the paper's time clipped holes at the border: here they vary in size.
            side = (settings.cutout_size / 2, settings.cutout_size)
            holes = (settings.cutout_holes, settings.cutout_holes)
            steps.append(A.CoarseDropout(holes, side, side, fill=0, p=1.0))
        points = A.KeypointParams(format="xy", remove_invisible=False)
        self.compose = A.Compose(steps, keypoint_params=points)

    def __call__(
        self, stack: np.ndarray, points: np.ndarray, seed: int
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Augment `stack (H, W, 3)` float in [0, 1] and `points (N, 2)` pixels x, y, by `seed`."""
        self.compose.set_random_seed(seed % 2**32)
        result = self.compose(image=stack, keypoints=points)
        contrast = 1 + self.contrast * np.random.default_rng(seed).uniform(-1, 1)
        return result["image"], np.asarray(result["keypoints"])[:, :2], contrast


class StackDataset(Dataset):
    """Stacks of 3 neighbouring slices with the label of the middle one, and its landmarks.

    Args:
        store: prepared studies.
        samples: as `training_samples` gives them.
        image_size: side of the resized square image, pixels.
        augment: augmentation, or None.
        landmarks: whether to give landmark targets (the pretraining stage).
        z_scale: slices by which the landmarks' z distance is divided (600 in the paper).
    """

    def __init__(
        self,
        store: Store,
        samples: pd.DataFrame,
        image_size: int,
        augment: AugmentSettings | None = None,
        landmarks: bool = False,
        z_scale: float = 600.0,
    ):
        self.store, self.image_size, self.z_scale = store, image_size, z_scale
        # Plain arrays: workers share them without copying Python objects.
        self.study = samples["StudyInstanceUID"].to_numpy(dtype=str)
        self.row = samples["row"].to_numpy(dtype=np.int64)
        self.z = samples["z"].to_numpy(dtype=np.int64)
        self.label = samples["label"].to_numpy(dtype=np.int64)
        self.augment = Augmentation(augment) if augment else None
        self.points = self._landmark_points(samples) if landmarks else None

    def _landmark_points(self, samples: pd.DataFrame) -> dict[str, np.ndarray]:
        # For each study (20, 3): z in slices of the whole volume, y and x in [0, 1] of the crop.
        boxes = self.store.studies.set_index("StudyInstanceUID")
        table = self.store.landmarks
        table = table[table["StudyInstanceUID"].isin(samples["StudyInstanceUID"].unique())]
        points = {}
        for study, rows in table.groupby("StudyInstanceUID"):
            rows = rows.set_index("name").reindex(LANDMARKS)
            zyx = rows[["z", "y", "x"]].to_numpy(dtype=np.float64, copy=True)
            zyx[~rows["present"].fillna(False).to_numpy(dtype=bool)] = np.nan
            box = boxes.loc[study]
            for axis, name in ((1, "y"), (2, "x")):
                low, high = box[f"box_{name}0"], box[f"box_{name}1"]
                zyx[:, axis] = (zyx[:, axis] + 0.5 - low) / (high - low)
            points[study] = zyx
        missing = set(samples["StudyInstanceUID"]) - set(points)
        if missing:
            raise UserError(f"study {min(missing)} has no landmarks in {self.store.root}")
        return points

    def __len__(self) -> int:
        return len(self.label)

    def __getitem__(self, draw: Draw | int) -> dict[str, np.ndarray | float | int]:
        """stack_hu `(3, H, W)` int16, label, contrast; with landmarks `(20, 3)` x, y, z or NaN."""
        index, seed = draw if isinstance(draw, tuple) else (draw, 0)
        study = str(self.study[index])
        stack = resize_slices(read_stack(self.store, study, self.row[index]), self.image_size)
        sample = {"label": self.label[index], "contrast": np.float32(1)}
        target = self.landmark_target(index)
        xy = target[:, :2]
        if self.augment:
            low, high = HU_RANGE
            unit = (stack.transpose(1, 2, 0).clip(low, high) - np.float32(low)) / (high - low)
            pixels = np.nan_to_num(xy) * self.image_size - 0.5
            unit, moved, contrast = self.augment(unit, pixels, seed)
            stack = np.rint(unit * (high - low) + low).astype(np.int16).transpose(2, 0, 1)
            moved = (moved.reshape(-1, 2) + 0.5) / self.image_size
            xy = np.where(np.isnan(xy), np.nan, moved)
            sample["contrast"] = np.float32(contrast)
        sample["stack_hu"] = np.ascontiguousarray(stack)
        if self.points is not None:
            sample["landmarks"] = np.hstack([xy, target[:, 2:]]).astype(np.float32)
        return sample

    def landmark_target(self, index: int) -> np.ndarray:
        """Where the landmarks are, `(20, 3)`: x and y in [0, 1] of the crop, z over `z_scale`.

        Absent ones are NaN; without landmarks the result is empty, `(0, 3)`.
        """
        if self.points is None:
            return np.empty((0, 3))
        z, y, x = self.points[str(self.study[index])].T
        return np.stack([x, y, (z - self.z[index]) / self.z_scale], axis=1)


class EpochSampler(Sampler[Draw]):
    """Draws of an epoch, a function of (seed, epoch) alone.

    Args:
        label: `(N,)` slice labels.
        samples_per_epoch: draws an epoch; None: as many as there are samples.
        positive_fraction: this fraction of positives (drawn again when there are too few); None:
            as they come.

    Raises:
        UserError: `positive_fraction` is given and one class is empty.
    """

    def __init__(
        self,
        label: np.ndarray,
        samples_per_epoch: int | None = None,
        positive_fraction: float | None = None,
        seed: int = 0,
    ):
        self.label, self.seed, self.epoch = np.asarray(label), seed, 0
        self.size = samples_per_epoch or len(self.label)
        self.positive_fraction = positive_fraction
        classes = np.bincount(self.label, minlength=2)
        if len(self.label) == 0 or (positive_fraction and not classes.all()):
            raise UserError(
                f"the training part has {classes[1]} positive and {classes[0]} negative slices: "
                "both are needed; check the split and the crop"
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose draws follow; Lightning calls it."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[Draw]:
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.positive_fraction is None:
            order = _cycled(rng, np.arange(len(self.label)), self.size)
        else:
            n_positive = round(self.size * self.positive_fraction)
            positive = _cycled(rng, np.flatnonzero(self.label == 1), n_positive)
            negative = _cycled(rng, np.flatnonzero(self.label == 0), self.size - n_positive)
            order = rng.permutation(np.concatenate([positive, negative]))
        seeds = rng.integers(2**63, size=self.size)
        return iter(list(zip(order.tolist(), seeds.tolist(), strict=True)))


def _cycled(rng: np.random.Generator, pool: np.ndarray, size: int) -> np.ndarray:
    # Each member once before any comes a second time.
    rounds = -(-size // len(pool)) if size else 0
    return np.concatenate([rng.permutation(pool) for _ in range(rounds)] or [pool[:0]])[:size]


def worker_options(workers: int) -> dict:
    """DataLoader options for so many worker processes, started clean.

    A forked worker would inherit locks of OpenCV's and blosc2's thread pools and hang.
    """
    if workers == 0:
        return {"num_workers": 0}
    method = "forkserver" if "forkserver" in mp.get_all_start_methods() else "spawn"
    context = mp.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["pekit.dataset", "albumentations"])
    return {
        "num_workers": workers,
        "multiprocessing_context": context,
        "worker_init_fn": _single_thread,
        "persistent_workers": True,
    }


def _single_thread(_worker: int) -> None:
    cv2.setNumThreads(0)
