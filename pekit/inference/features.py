"""Slice features of prepared studies (the input of the last hop's classifier), and their cache.

    cache = FeatureCache(folder, net, store, card.image_size)
    cache.fill(studies, progress=progress)
    features, probability = cache.read(study)       # (S, F), (S,) of the slices in the crop box
    batch = pad_studies(cache, studies)             # (B, S, F), (B, S), mask (B, S)

The network is overconfident on the studies that it was trained on: in the demo cohort the AUROC of
slices is 0.987 in the training part, 0.971 in validation and 0.976 in test. Nothing here corrects
this.

A folder `<key>/` holds one file per study for one network; the key is a hash of its weights, the
image size and the code. Each file records the hash of its volume, and is made again if the study
was prepared again.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from pekit.common.code_hash import module_hash
from pekit.common.errors import UserError
from pekit.common.files import atomic, remove_leftovers
from pekit.dataset.store import Store
from pekit.hop import HopNet
from pekit.inference.predict import predict_volume

Batch = dict[str, Tensor]


@contextmanager
def classifier_inputs(net: HopNet) -> Iterator[list[Tensor]]:
    """Collect the inputs of the last hop's classifier inside the block: `(B, F)` per batch.

    The classifier is the last linear layer with two outputs.

    Raises:
        UserError: the encoder of the last hop has no such layer.
    """
    encoder = net.encoders[-1]
    linear = [m for m in encoder.modules() if isinstance(m, nn.Linear) and m.out_features == 2]
    if not linear:
        raise UserError(f"{encoder.name} does not end in a linear layer: it has no slice features")
    latest: list[Tensor] = []
    seen: list[Tensor] = []

    def keep(_module: nn.Module, inputs: tuple[Tensor]) -> None:
        latest[:] = inputs

    def done(*_: object) -> None:  # hops with shared weights call the classifier several times
        seen.append(latest.pop().flatten(1).float().cpu())

    hooks = [linear[-1].register_forward_pre_hook(keep), net.register_forward_hook(done)]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def volume_features(
    net: HopNet, hu: np.ndarray, image_size: int, batch_size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features of the last hop and its PE probability, for each slice of a cropped volume.

    Args:
        net: the network, on the device to use.
        hu: `(Z, Y, X)` int16 HU.
        image_size: side of the square image that the network was trained on, pixels.
        batch_size: stacks per batch.

    Returns:
        features `(Z, F)` float16, probability `(Z,)` float32 as of `predict_volume`.

    Raises:
        UserError: a probability or feature is not finite.
    """
    with classifier_inputs(net) as seen:
        probability = predict_volume(net, hu, image_size, batch_size)[:, -1]
    # float16 keeps three digits and halves the disk space: 4.6 GB for RSNA-STR, 1280 features.
    with np.errstate(over="ignore"):
        features = torch.cat(seen).numpy().astype(np.float16)
    if not np.isfinite(features).all():
        raise UserError("the network gives features that are not finite: train it again")
    return features, np.ascontiguousarray(probability)


class FeatureCache:
    """The slice features of one network, one file per study.

    Args:
        folder: folder of the cache; features of other networks in it are deleted.
        net: the trained network, on the device to use.
        store: prepared studies.
        image_size: side of the square image that the network was trained on, pixels.

    Attributes:
        key: hash of weights, image size and code.

    Raises:
        UserError: the store has no hashes of its volumes.
    """

    def __init__(self, folder: Path, net: HopNet, store: Store, image_size: int):
        self.net, self.store, self.image_size = net, store, image_size
        studies = store.studies
        if "sha256" not in studies:
            raise UserError(f"{store.root} has no column sha256 in its studies: prepare it again")
        kept = studies[studies["status"] != "excluded"]
        self.volumes = dict(zip(kept["StudyInstanceUID"], kept["sha256"], strict=True))
        self.key = _key(net, image_size)
        self.folder = Path(folder) / self.key
        self.folder.mkdir(parents=True, exist_ok=True)
        for other in self.folder.parent.iterdir():
            if other.is_dir() and other.name != self.key:
                shutil.rmtree(other)
        remove_leftovers(self.folder)

    def fill(
        self,
        studies: Iterable[str],
        batch_size: int = 32,
        progress: Callable[..., Iterable] | None = None,
    ) -> int:
        """Compute the features of those `studies` that have none; return the number computed.

        Raises:
            UserError: a study is unknown to the store or was excluded.
        """
        missing = [study for study in studies if self._load(study) is None]
        shown = progress(missing, total=len(missing), desc="features") if progress else missing
        for study in shown:
            hu = self.store.read_volume(study)
            features, probability = volume_features(self.net, hu, self.image_size, batch_size)
            with atomic(self._path(study)) as beside:
                np.savez(
                    beside,
                    features=features,
                    probability=probability,
                    volume=np.array(self.volumes[study]),
                )
        return len(missing)

    def read(self, study: str) -> tuple[np.ndarray, np.ndarray]:
        """Features `(S, F)` float32 and probability `(S,)` float32 of the slices in the crop box.

        Raises:
            UserError: the study is not prepared, or has no features yet.
        """
        found = self._load(study)
        if found is None:
            raise UserError(f"study {study} has no features in {self.folder}: call fill first")
        return found

    def _path(self, study: str) -> Path:
        return self.folder / f"{study}.npz"

    def _load(self, study: str) -> tuple[np.ndarray, np.ndarray] | None:
        # The study's features, or None if there are none for its current volume.
        if study not in self.volumes:
            raise UserError(
                f"study {study} is not prepared in {self.store.root}: it has no features"
            )
        path = self._path(study)
        if not path.exists():
            return None
        try:
            with np.load(path, allow_pickle=False) as file:
                if str(file["volume"]) != self.volumes[study]:
                    return None
                return file["features"].astype(np.float32), file["probability"]
        except (OSError, ValueError, KeyError) as error:
            raise UserError(f"{path} cannot be read ({error}): delete it and rerun") from None


def pad_studies(cache: FeatureCache, studies: Sequence[str]) -> Batch:
    """Slice features of studies, padded: features `(B, S, F)`, probability and mask `(B, S)`."""
    read = [cache.read(study) for study in studies]
    return {
        "features": pad_sequence([torch.from_numpy(f) for f, _ in read], True),
        "probability": pad_sequence([torch.from_numpy(p) for _, p in read], True),
        "mask": pad_sequence([torch.ones(len(p), dtype=torch.bool) for _, p in read], True),
    }


def _key(net: HopNet, image_size: int) -> str:
    code = module_hash("pekit.inference.features")
    content = hashlib.sha256(f"{image_size} {code}".encode())
    for name, tensor in net.state_dict().items():
        content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()[:12]
