"""Slice probabilities of prepared studies: one row a slice, one column a hop.

predict = predictor(net, card.image_size)       # predict.backend says what computes
table = predict_studies(predict, store, studies, card.image_size)
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
import pandas as pd
import torch

from pekit.common.errors import UserError
from pekit.dataset.schema import SLICE_LABEL, UIDS
from pekit.dataset.stacks import resize_slices, volume_stacks
from pekit.dataset.store import Store
from pekit.dataset.windows import SLICES
from pekit.hop import HopNet, to_best_device
from pekit.inference.openvino import OpenVinoPredictor, has_openvino
from pekit.model.prevalence import Prevalence, check_prevalence, correct_hops

Backend = Literal["auto", "torch", "openvino", "openvino-bf16"]
# Converting takes 20 to 30 s of a CPU; at 96 pixels it saves 6 ms a slice, at 576 some 600.
PAYS_FROM = 256


class Predictor(Protocol):
    """What computes slice probabilities: HU `(B, depth, H, W)` -> `(B, K)`.

    `backend` names the library and the device or precision, for logs; `hops` is K.
    """

    backend: str
    hops: int
    depth: int

    def __call__(self, stack_hu: np.ndarray) -> np.ndarray: ...


class TorchPredictor:
    """PyTorch, on the device that the network is on."""

    def __init__(self, net: HopNet):
        self.net, self.hops, self.depth = net.eval(), net.hops, net.depth
        self.device = next(net.parameters()).device
        self.backend = f"torch {self.device.type}"

    @torch.inference_mode()
    def __call__(self, stack_hu: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(stack_hu).to(self.device)
        batch = batch.to(memory_format=self.net.memory_format)
        return self.net(batch).float().softmax(2)[..., 1].cpu().numpy()


def predictor(
    net: HopNet,
    image_size: int,
    backend: Backend = "auto",
    exported: Path | None = None,
    prevalence: str | float = "training",
) -> Predictor:
    """The fastest way to predict with `net` on this machine, at PyTorch's numbers (to 1e-3).

    `auto` takes PyTorch on a GPU where torch sees one, else OpenVINO where it is installed and
    repays its conversion (images of PAYS_FROM pixels and more, or `exported`), else PyTorch on the
    CPU. PyTorch takes `net` along to its device. `exported`, a folder that
    `export_model` wrote, spares OpenVINO the conversion. `openvino-bf16` is faster
    still where the processor has bfloat16, and is never chosen by itself: it moved probabilities by
    up to 0.05, so thresholds are to be chosen with it too.

    `prevalence` says at which share of PE among slices the probabilities hold: `training` is what
    the network says; `natural`, that of the training part, matters where it was trained on more
    positives than there are; a number is any other. The order of slices stays (`prevalence`).

    Raises:
        UserError: an unknown backend, `openvino` is asked and not installed, an export of other
            weights, or a prevalence that is none, or that the network does not know.
    """
    target = check_prevalence(prevalence, net.prevalence)
    if backend not in get_args(Backend):
        raise UserError(f"backend '{backend}' is unknown: choose {', '.join(get_args(Backend))}")
    if backend == "auto":
        pays = exported is not None or image_size >= PAYS_FROM
        usable = has_openvino() and net.depth == SLICES and not torch.cuda.is_available()
        backend = "openvino" if pays and usable else "torch"
    if backend.startswith("openvino"):
        precision = "bfloat16" if backend == "openvino-bf16" else "float32"
        plain = OpenVinoPredictor(net, image_size, precision, exported)
    else:
        plain = TorchPredictor(to_best_device(net))
    return plain if target == "training" else _AtPrevalence(plain, net.prevalence, target)


class _AtPrevalence:
    """A predictor at another prevalence than the network's."""

    def __init__(self, plain: Predictor, known: list[Prevalence], target: str | float):
        self.plain, self.known, self.target = plain, known, target
        self.backend, self.hops, self.depth = plain.backend, plain.hops, plain.depth

    def __call__(self, stack_hu: np.ndarray) -> np.ndarray:
        return correct_hops(self.plain(stack_hu), self.known, self.target)


def predict_volume(
    net: HopNet | Predictor, hu: np.ndarray, image_size: int, batch_size: int = 32, stride: int = 1
) -> np.ndarray:
    """PE probability of each slice of a cropped volume.

    Args:
        net: as `predictor` gives it, or a network on the device to use.
        hu: `(Z, Y, X)` int16 HU.
        image_size: side of the square image that the network was trained on, pixels.
        stride: predict every `stride`-th slice; the ones between repeat it.

    Returns:
        `(Z, K)`, one column a hop; float32, or float64 where the prevalence was corrected.

    Raises:
        UserError: a probability is not finite.
    """
    predict = TorchPredictor(net) if isinstance(net, HopNet) else net
    stacks = volume_stacks(resize_slices(hu, image_size), predict.depth)[::stride]
    starts = range(0, len(stacks), batch_size)
    parts = [predict(np.ascontiguousarray(stacks[at : at + batch_size])) for at in starts]
    probability = np.concatenate(parts).repeat(stride, axis=0)[: len(hu)]
    if not np.isfinite(probability).all():
        raise UserError("the network gives probabilities that are not finite: train it again")
    return probability


def whole_study(inside: np.ndarray, z0: int, n_slices: int) -> np.ndarray:
    """Probabilities `(n_slices, K)` of a whole study; outside the crop box, from `z0` on, 0."""
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
) -> pd.DataFrame:
    """Predictions of every slice of `studies`; slices outside the crop box get probability 0.

    `progress(iterable, total=, desc=)`, e.g. tqdm, shows how far it is.

    Returns:
        UIDs, z, label (where known), hop1, hop2, ...

    Raises:
        UserError: a study is unknown to the store or was excluded.
    """
    boxes = store.studies.set_index("StudyInstanceUID")
    groups = dict(tuple(store.slices.groupby("StudyInstanceUID")))
    tables = []
    studies = list(studies)
    volumes = _read_ahead(store, studies, boxes)
    if progress:
        volumes = progress(volumes, total=len(studies), desc="studies")
    for study, hu in volumes:
        slices = groups[study].sort_values("z")
        inside = predict_volume(net, hu, image_size, batch_size, stride)
        table = slices[[*UIDS, "z", *([SLICE_LABEL] if SLICE_LABEL in slices else [])]].copy()
        whole = whole_study(inside, int(boxes.loc[study, "box_z0"]), len(slices))
        table[[f"hop{k + 1}" for k in range(net.hops)]] = whole
        tables.append(table)
    if not tables:
        raise UserError("no study to predict: the list is empty")
    return pd.concat(tables, ignore_index=True)


def _read_ahead(
    store: Store, studies: Iterable[str], boxes: pd.DataFrame
) -> Iterator[tuple[str, np.ndarray]]:
    # Reading the next volume hides behind the network's work on this one.
    def read(study: str) -> np.ndarray:
        if study not in boxes.index or boxes.loc[study, "status"] == "excluded":
            raise UserError(f"study {study} is not prepared in {store.root}: it has no prediction")
        return store.read_volume(study)

    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for study in studies:
            coming = (study, pool.submit(read, study))
            if waiting:
                yield waiting[0], waiting[1].result()
            waiting = coming
        if waiting:
            yield waiting[0], waiting[1].result()
