"""Slice probabilities of prepared studies: one row per slice, one column per hop.

predict = predictor(net, card.image_size)       # predict.backend names library and device
table = predict_studies(predict, store, studies, card.image_size)
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
import pandas as pd
import torch

from pekit.common.errors import UserError, nearest
from pekit.dataset.schema import SLICE_LABEL, UIDS
from pekit.dataset.stacks import resize_slices, volume_stacks
from pekit.dataset.store import Store
from pekit.dataset.windows import SLICES
from pekit.hop import HopNet, to_best_device
from pekit.inference.features import features_written
from pekit.inference.openvino import OpenVinoPredictor, has_openvino
from pekit.inference.pytorch import TorchPredictor
from pekit.model.prevalence import Prevalence, check_prevalence, correct_hops

Backend = Literal["auto", "torch", "openvino", "openvino-bf16"]
# The conversion takes 20 to 30 s on a CPU; it saves 6 ms per slice at 96 pixels, 600 ms at 576.
PAYS_FROM = 256
READ_AHEAD = 2  # studies, each by a thread of its own


class Predictor(Protocol):
    """A function of HU stacks `(N, depth, H, W)` that gives slice probabilities `(N, K)`.

    It reads `batch_size` stacks at a time.

    Attributes:
        backend: library and device or precision, for logs.
        hops: number of hops, K.
        depth: slices per stack.
        net: the PyTorch network that is run; None where another library predicts.
    """

    backend: str
    hops: int
    depth: int
    net: HopNet | None

    def __call__(self, stack_hu: np.ndarray, batch_size: int = 32) -> np.ndarray: ...


def predictor(
    net: HopNet,
    image_size: int,
    backend: Backend = "auto",
    exported: Path | None = None,
    prevalence: str | float = "training",
    features: bool = False,
) -> Predictor:
    """A predictor for `net`: by default the fastest on this machine that equals PyTorch to 1e-3.

    Args:
        net: the network; PyTorch moves it to the device that it uses.
        image_size: side of the square image that the network was trained on, pixels.
        backend: `auto` takes PyTorch on a GPU if torch finds one, in mixed precision if the network
            was trained so (`TorchPredictor`); else OpenVINO if it is installed
            and worth the conversion (images of PAYS_FROM pixels or more, or `exported`); else
            PyTorch on the CPU. `openvino-bf16` is faster on processors with bfloat16. `auto` never
            takes it, because it changed probabilities by up to 0.05: choose thresholds with it too.
        exported: folder written by `export_model`; saves OpenVINO the conversion.
        prevalence: of PE among slices, for which the probabilities are valid. `training`: as the
            network gives them; `natural`: corrected to that of the training part, for networks
            trained on oversampled positives; a number: corrected to that prevalence. The order of
            slices does not change (`pekit.model.prevalence`).
        features: slice features will be written: `auto` is then PyTorch, and OpenVINO is refused.

    Raises:
        UserError: an unknown backend, OpenVINO is asked for and not installed or cannot give
            features, an export of other weights, an invalid prevalence, or a network that does
            not know its own.
    """
    target = check_prevalence(prevalence, net.prevalence)
    if backend not in get_args(Backend):
        raise UserError(f"no backend {backend!r}: {nearest(backend, get_args(Backend))}")
    if features and backend.startswith("openvino"):
        raise UserError(
            f"{backend} gives no slice features: set BACKEND to auto, or FEATURES to False"
        )
    if backend == "auto":
        pays = exported is not None or image_size >= PAYS_FROM
        usable = has_openvino() and net.depth == SLICES and not torch.cuda.is_available()
        backend = "openvino" if pays and usable and not features else "torch"
    if backend.startswith("openvino"):
        precision = "bfloat16" if backend == "openvino-bf16" else "float32"
        plain = OpenVinoPredictor(net, image_size, precision, exported)
    else:
        plain = TorchPredictor(to_best_device(net))
    return plain if target == "training" else _AtPrevalence(plain, net.prevalence, target)


class _AtPrevalence:
    """A predictor whose probabilities are corrected to another prevalence."""

    def __init__(self, plain: Predictor, known: list[Prevalence], target: str | float):
        self.plain, self.known, self.target = plain, known, target
        self.backend, self.hops, self.depth = plain.backend, plain.hops, plain.depth
        self.net = plain.net

    def __call__(self, stack_hu: np.ndarray, batch_size: int = 32) -> np.ndarray:
        return correct_hops(self.plain(stack_hu, batch_size), self.known, self.target)


def predict_volume(
    net: HopNet | Predictor, hu: np.ndarray, image_size: int, batch_size: int = 32, stride: int = 1
) -> np.ndarray:
    """PE probability of each slice of a cropped volume.

    Args:
        net: a predictor, or a network on the device to use.
        hu: `(Z, Y, X)` int16 HU.
        image_size: side of the square image that the network was trained on, pixels.
        batch_size: stacks per batch.
        stride: predict every `stride`-th slice and repeat its probability until the next one.

    Returns:
        `(Z, K)`, one column per hop; float32, or float64 if the prevalence was corrected.

    Raises:
        UserError: a probability is not finite.
    """
    predict = TorchPredictor(net) if isinstance(net, HopNet) else net
    return _predict_planes(predict, resize_slices(hu, image_size), batch_size, stride)


def _predict_planes(
    predict: Predictor, planes: np.ndarray, batch_size: int, stride: int
) -> np.ndarray:
    read = predict(volume_stacks(planes, predict.depth)[::stride], batch_size)
    probability = read.repeat(stride, axis=0)[: len(planes)]
    if not np.isfinite(probability).all():
        raise UserError("the network gives probabilities that are not finite: train it again")
    return probability


def whole_study(inside: np.ndarray, z0: int, n_slices: int) -> np.ndarray:
    """Probabilities `(n_slices, K)` of a whole study; the crop box starts at `z0`, outside it 0."""
    whole = np.zeros((n_slices, inside.shape[1]), dtype=inside.dtype)
    whole[z0 : z0 + len(inside)] = inside
    return whole


def predict_studies(
    net: HopNet | Predictor,
    store: Store,
    studies: Iterable[str],
    image_size: int,
    batch_size: int = 32,
    stride: int = 1,
    progress: Callable[..., Iterable] | None = None,
    features: Path | None = None,
) -> pd.DataFrame:
    """Predictions of every slice of `studies`; slices outside the crop box get probability 0.

    Args:
        net, image_size, batch_size, stride: as `predict_volume`.
        progress: shows the progress as `progress(iterable, total=, desc=)`, for example tqdm.
        features: folder into which to write the slice features, for study heads
            (`pekit.inference.features`); it needs PyTorch.

    Returns:
        One row per slice: UIDs, z, label (where known), hop1, hop2, ...

    Raises:
        UserError: a study is not in the store or was excluded, there are no studies, or features
            are wanted of a network that gives none.
    """
    predict = TorchPredictor(net) if isinstance(net, HopNet) else net
    boxes = store.studies.set_index("StudyInstanceUID")
    groups = dict(tuple(store.slices.groupby("StudyInstanceUID")))
    studies = list(studies)
    if not studies:
        raise UserError("no study to predict: the list is empty")
    tables = []
    volumes = _read_ahead(store, studies, boxes, image_size)
    if progress:
        volumes = progress(volumes, total=len(studies), desc="studies")
    with _features_written(features, predict, store, image_size, stride) as write:
        for study, planes in volumes:
            slices = groups[study].sort_values("z")
            inside = _predict_planes(predict, planes, batch_size, stride)
            write(study)
            table = slices[[*UIDS, "z", *([SLICE_LABEL] if SLICE_LABEL in slices else [])]].copy()
            whole = whole_study(inside, int(boxes.loc[study, "box_z0"]), len(slices))
            table[[f"hop{k + 1}" for k in range(predict.hops)]] = whole
            tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _features_written(
    folder: Path | None, predict: Predictor, store: Store, image_size: int, stride: int
) -> AbstractContextManager[Callable[[str], None]]:
    if folder is None:
        return nullcontext(lambda study: None)
    if predict.net is None:
        raise UserError(
            f"{predict.backend} gives no slice features: use a predictor made with features=True"
        )
    return features_written(folder, predict.net, store, image_size, stride, predict.backend)


def _read_ahead(
    store: Store, studies: Iterable[str], boxes: pd.DataFrame, image_size: int
) -> Iterator[tuple[str, np.ndarray]]:
    # Threads read and resize the next volumes while the network works on this one.
    def read(study: str) -> np.ndarray:
        if study not in boxes.index or boxes.loc[study, "status"] == "excluded":
            raise UserError(f"study {study} is not prepared in {store.root}: it has no prediction")
        return resize_slices(store.read_volume(study), image_size)

    with ThreadPoolExecutor(READ_AHEAD) as pool:
        waiting: deque[tuple[str, Future]] = deque()
        for study in studies:
            waiting.append((study, pool.submit(read, study)))
            if len(waiting) > READ_AHEAD:
                ready, volume = waiting.popleft()
                yield ready, volume.result()
        for ready, volume in waiting:
            yield ready, volume.result()
