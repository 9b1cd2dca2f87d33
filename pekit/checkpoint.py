"""Networks as folders: a JSON card (what to build) and safetensors (weights); no pickle.

A PE or landmark model is model.json and model.safetensors, a study head head.json and
head.safetensors.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pekit.common.errors import UserError
from pekit.common.files import atomic, read_json, write_json
from pekit.dataset.windows import IMAGE_CHANNELS, SLICES
from pekit.hop import HopNet
from pekit.model.encoder import Encoder, make_encoder
from pekit.model.encoder3d import Encoder3D
from pekit.model.landmark_net import LandmarkNet
from pekit.model.prevalence import Prevalence
from pekit.model.study_head import StudyHead

VERSION = 4
# Version 1 has neither `depth` nor `passes`; versions 1 and 2 have no `prevalence`; only version 4
# has `precision`.
READABLE = (1, 2, 3, 4)
HEAD_VERSION = 1


@dataclass(frozen=True)
class ModelCard:
    """The content of model.json.

    Attributes:
        kind: `landmarks` or `hops`.
        encoders: names of the encoders, one per hop, or one that all hops share.
        frozen: number of first hops that were frozen in training.
        image_size: side of the square images, pixels.
        depth: slices per stack.
        passes: number of hops that share one encoder; 1: each hop has its own.
        prevalence: of PE among the slices that each hop was trained on, where known.
        precision: of the last training of a PE model (`bf16-mixed`), where known.
    """

    version: int
    kind: str
    encoders: list[str]
    frozen: int
    image_size: int
    depth: int = SLICES
    passes: int = 1
    prevalence: list[Prevalence | None] = field(default_factory=list)
    precision: str | None = None


def save_model(folder: Path, net: HopNet | LandmarkNet, image_size: int) -> None:
    """Write `net`, trained on images of `image_size` pixels, into `folder`, atomically."""
    hops = isinstance(net, HopNet)
    encoders = list(net.encoders) if hops else [net.encoder]
    card = ModelCard(
        VERSION,
        "hops" if hops else "landmarks",
        [e.name for e in encoders],
        net.frozen if hops else 0,
        image_size,
        net.depth,
        net.passes if hops else 1,
        net.prevalence if hops else [],
        net.precision if hops else None,
    )
    _save(folder, "model", net, asdict(card))


def load_model(folder: Path) -> tuple[HopNet | LandmarkNet, ModelCard]:
    """Read a model folder, or the `model/` in a stage's folder; in evaluation mode, on the CPU.

    Raises:
        UserError: no model there, one of another version, or weights that do not fit.
    """
    folder = model_folder(folder)
    card = _read_card(folder, "model", READABLE, _model_card)
    # All hops but the first, and all that share weights, also read the context of another hop.
    encoders = [
        make_encoder(
            name,
            image_size=card.image_size,
            depth=card.depth,
            context=IMAGE_CHANNELS if k or card.passes > 1 else 0,
        )
        for k, name in enumerate(card.encoders)
    ]
    hops = card.kind == "hops"
    net = HopNet(encoders, card.frozen, card.passes) if hops else LandmarkNet(encoders[0])
    if hops:
        net.prevalence = card.prevalence or net.prevalence
        net.precision = card.precision
    return _load_weights(folder, "model", net), card


def load_hops(folder: Path) -> tuple[HopNet, ModelCard]:
    """Read a PE model with any number of hops.

    Raises:
        UserError: as `load_model`, or the folder holds a landmark model.
    """
    net, card = load_model(folder)
    if not isinstance(net, HopNet):
        raise UserError(f"{folder} holds a {card.kind} model: give the folder of a trained hop")
    return net, card


def build_encoder(
    name: str, init: str, image_size: int | None = None, depth: int | None = None
) -> Encoder | Encoder3D:
    """Build the encoder of a first hop.

    Args:
        name, image_size, depth: as `make_encoder` takes them.
        init: as the encoder takes it, or a model folder, whose first encoder is used.

    Raises:
        UserError: as the encoders, or the folder's encoder has another name, size or depth.
    """
    if not (model_folder(init) / "model.json").exists():
        return make_encoder(name, init=init, image_size=image_size, depth=depth)
    net, card = load_model(init)
    encoder = net.encoders[0] if isinstance(net, HopNet) else net.encoder
    encoder.requires_grad_(True)  # a landmark network has frozen the classifier
    if card.encoders[0] != name:
        raise UserError(f"{init} holds {card.encoders[0]}, not {name}: use the same encoder")
    if card.passes > 1:
        raise UserError(f"{init} holds hops with shared weights: none can be a first hop alone")
    if depth not in (None, encoder.depth):
        raise UserError(f"{init} reads {encoder.depth} slices, not {depth}: use the same depth")
    if encoder.image_size and image_size not in (None, encoder.image_size):
        raise UserError(
            f"{init} holds {name} for images of {encoder.image_size} pixels, not {image_size}: use "
            "the same size"
        )
    return encoder


def save_head(folder: Path, head: StudyHead) -> None:
    """Write a study head into `folder`, atomically."""
    _save(folder, "head", head, {"version": HEAD_VERSION, **head.card})


def load_head(folder: Path) -> StudyHead:
    """Read the folder of a study head; in evaluation mode, on the CPU.

    Raises:
        UserError: no head there, one of another version, or weights that do not fit.
    """
    head = _read_card(folder, "head", (HEAD_VERSION,), lambda version, **card: StudyHead(**card))
    return _load_weights(folder, "head", head)


def state_hash(net: nn.Module) -> str:
    """Hash of all weights and buffers of a network, by their bytes."""
    content = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        content.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        content.update(flat.view(torch.uint8).numpy().data)
    return "sha256:" + content.hexdigest()


def model_folder(folder: Path | str) -> Path:
    """The folder that holds model.json: `folder` itself or its subfolder `model`."""
    folder = Path(folder)
    return folder if (folder / "model.json").exists() else folder / "model"


def _model_card(prevalence: Iterable[dict | None] = (), **content: object) -> ModelCard:
    return ModelCard(**content, prevalence=[at and Prevalence(**at) for at in prevalence])


def _save(folder: Path, name: str, net: nn.Module, card: dict) -> None:
    folder = Path(folder)
    with atomic(folder / f"{name}.safetensors") as beside:
        save_file({k: v.cpu().contiguous() for k, v in net.state_dict().items()}, beside)
    write_json(folder / f"{name}.json", card)


def _read_card(folder: Path, name: str, versions: tuple[int, ...], build: Callable) -> Any:
    content = read_json(Path(folder) / f"{name}.json")
    if content.get("version") not in versions:
        raise UserError(
            f"{folder} holds a {name} of version {content.get('version')}, this kit reads "
            f"{', '.join(map(str, versions))}: train it again or use the kit that wrote it"
        )
    try:
        return build(**content)
    except TypeError as error:  # missing or unknown fields
        raise UserError(f"{folder}: this kit did not write {name}.json: {error}") from None


def _load_weights(folder: Path, name: str, net: nn.Module) -> Any:
    try:
        net.load_state_dict(load_file(Path(folder) / f"{name}.safetensors"))
    except FileNotFoundError:
        raise UserError(f"{folder} has no {name}.safetensors: train the {name} again") from None
    except Exception as error:  # safetensors and torch have no common error class
        raise UserError(f"{folder}: the weights do not fit: {str(error)[:300]}") from None
    return net.eval()
