"""Slice features for study heads: the input of the last hop's classifier, kept while predicting.

    predict_studies(predict, store, studies, size, features=folder)     # writes them
    features = SliceFeatures(folder, store)
    vectors, probability = features.read(study)     # (S, F), (S,) of the slices in the crop box
    batch = pad_studies(features, studies)          # (B, S, F), (B, S), mask (B, S)

The network is overconfident on the studies that it was trained on. Nothing here corrects this.

A folder holds one file per study, with the hash of the volume that was read, and features.json,
which is written last: a prediction that was cut off leaves none, and starts again from nothing.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from pekit.common.code_hash import module_hash
from pekit.common.errors import UserError
from pekit.common.files import atomic, read_json, remove_leftovers, write_json
from pekit.dataset.store import Store
from pekit.hop import HopNet

CARD = "features.json"
Batch = dict[str, Tensor]


@contextmanager
def classifier_inputs(net: HopNet) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Collect, inside the block, what the last hop's classifier reads and what the hop then says.

    Per batch: features `(B, F)` and the probability of PE `(B,)`, both on the network's device, so
    that a GPU need not be waited for. The classifier is the last linear layer with two outputs.

    Raises:
        UserError: the encoder of the last hop has no such layer.
    """
    encoder = net.encoders[-1]
    linear = [m for m in encoder.modules() if isinstance(m, nn.Linear) and m.out_features == 2]
    if not linear:
        raise UserError(f"{encoder.name} does not end in a linear layer: it has no slice features")
    latest: list[Tensor] = []
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(_module: nn.Module, inputs: tuple[Tensor]) -> None:
        latest[:] = inputs

    def done(_net: nn.Module, _inputs: tuple[Tensor], logits: Tensor) -> None:
        # Hops with shared weights call the classifier several times: the last call counts.
        probability = logits[:, -1].float().softmax(1)[:, 1]
        seen.append((latest.pop().flatten(1).float(), probability))

    hooks = [linear[-1].register_forward_pre_hook(keep), net.register_forward_hook(done)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def features_written(
    folder: Path, net: HopNet, store: Store, image_size: int, stride: int, backend: str
) -> Iterator[Callable[[str], None]]:
    """Inside the block, `write(study)` writes what `net` read since the last call as its features.

    Args:
        folder: where to write; features of an earlier prediction in it are deleted.
        net: the network that predicts.
        store: prepared studies.
        image_size: side of the square image that the network was trained on, pixels.
        stride: every so many slices of a study are read.
        backend: what predicts (`Predictor.backend`); it is part of the key.

    Raises:
        UserError: the store has no hashes of its volumes, the network has no slice features, or
            a feature is not finite.
    """
    folder, volumes = Path(folder), _volume_hashes(store)
    with classifier_inputs(net) as seen:
        clear_features(folder)

        def write(study: str) -> None:
            _write(folder / f"{study}.npz", seen, volumes[study])
            seen.clear()

        yield write
    write_json(folder / CARD, {"key": _key(net, image_size, stride, backend), "stride": stride})


def _write(path: Path, seen: list[tuple[Tensor, Tensor]], volume: str) -> None:
    vectors, probability = (torch.cat(part).cpu().numpy() for part in zip(*seen, strict=True))
    # float16 keeps three digits and halves the disk space: 4.6 GB for RSNA-STR, 1280 features.
    with np.errstate(over="ignore"):
        vectors = vectors.astype(np.float16)
    if not np.isfinite(vectors).all():
        raise UserError("the network gives features that are not finite: train it again")
    with atomic(path) as beside:
        np.savez(beside, features=vectors, probability=probability, volume=np.array(volume))


def clear_features(folder: Path) -> None:
    """Delete the slice features in a folder, if there are any."""
    folder = Path(folder)
    (folder / CARD).unlink(missing_ok=True)  # first: without it the others do not count
    for path in folder.glob("*.npz"):
        path.unlink()
    remove_leftovers(folder)


class SliceFeatures:
    """The slice features that a prediction wrote.

    Args:
        folder: the folder that `predict_studies` wrote.
        store: prepared studies.

    Attributes:
        key: hash of the network's weights, image size, stride, device and code.
        stride: features exist for every so many slices of the crop box, from its first slice.
        volumes: hash of the volume of each study in the store.

    Raises:
        UserError: no features there, or the store has no hashes of its volumes.
    """

    def __init__(self, folder: Path, store: Store):
        self.folder, self.store = Path(folder), store
        if not (self.folder / CARD).exists():
            raise UserError(
                f"{self.folder} holds no slice features, or not of all studies: set FEATURES = "
                "True and add train to PARTS of 30_predict, and run it again"
            )
        card = read_json(self.folder / CARD)
        self.key, self.stride = card["key"], card["stride"]
        self.volumes = _volume_hashes(store)

    def members(self, parts: Mapping[str, str], needed: Sequence[str]) -> dict[str, str]:
        """The studies of `parts` that have features, with their part.

        Args:
            parts: the part of each study (`part_by_study`).
            needed: parts of which every study must have features.

        Raises:
            UserError: one has none; the message says what to set.
        """
        there = {path.stem for path in self.folder.glob("*.npz")}
        for part in dict.fromkeys(needed):
            studies = [study for study, its in parts.items() if its == part]
            missing = [study for study in studies if study not in there]
            if missing or not studies:
                raise UserError(
                    f"{len(missing)} of {len(studies)} studies of part {part} have no slice "
                    f"features in {self.folder}: set FEATURES = True and add {part} to PARTS of "
                    "30_predict, and run it again"
                )
        return {study: part for study, part in parts.items() if study in there}

    def read(self, study: str) -> tuple[np.ndarray, np.ndarray]:
        """Features `(S, F)` float32 and the last hop's probability `(S,)` float32 of a study.

        S counts every `stride`-th slice in the crop box. The probability is as the network gives
        it, at the prevalence of its training.

        Raises:
            UserError: the study is not prepared, has no features, or was prepared again since.
        """
        if study not in self.volumes:
            raise UserError(
                f"study {study} is not prepared in {self.store.root}: it has no features"
            )
        path = self.folder / f"{study}.npz"
        try:
            with np.load(path, allow_pickle=False) as file:
                volume, vectors, probability = (
                    file[name] for name in ("volume", "features", "probability")
                )
        except FileNotFoundError:
            raise UserError(
                f"study {study} has no features in {self.folder}: add its part to PARTS of "
                "30_predict and run it again"
            ) from None
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path} cannot be read ({error}): run 30_predict again") from None
        if str(volume) != self.volumes[study]:
            raise UserError(
                f"study {study} was prepared again after its features were written to "
                f"{self.folder}: run 30_predict again"
            )
        return vectors.astype(np.float32), probability


def pad_studies(features: SliceFeatures, studies: Sequence[str]) -> Batch:
    """Slice features of studies, padded: features `(B, S, F)`, probability and mask `(B, S)`."""
    read = [features.read(study) for study in studies]
    return {
        "features": pad_sequence([torch.from_numpy(f) for f, _ in read], True),
        "probability": pad_sequence([torch.from_numpy(p) for _, p in read], True),
        "mask": pad_sequence([torch.ones(len(p), dtype=torch.bool) for _, p in read], True),
    }


def _volume_hashes(store: Store) -> dict[str, str]:
    studies = store.studies
    if "sha256" not in studies:
        raise UserError(f"{store.root} has no column sha256 in its studies: prepare it again")
    kept = studies[studies["status"] != "excluded"]
    return dict(zip(kept["StudyInstanceUID"], kept["sha256"], strict=True))


def _key(net: HopNet, image_size: int, stride: int, backend: str) -> str:
    code = module_hash("pekit.inference.predict")
    content = hashlib.sha256(f"{image_size} {stride} {backend} {code}".encode())
    for name, tensor in net.state_dict().items():
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:12]
