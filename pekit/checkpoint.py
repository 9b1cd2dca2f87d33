"""A model as a folder: model.json (what to build) and model.safetensors (weights); no pickle."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

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

VERSION = 3
# Version 1 knew stacks of 3 slices only, and hops with weights of their own; both older ones do not
# say at which prevalence a hop was trained.
READABLE = (1, 2, 3)


@dataclass(frozen=True)
class ModelCard:
    """What a model folder says of itself.

    Attributes:
        kind: `landmarks` or `hops`.
        encoders: their names, one a hop, or one that all hops share.
        frozen: so many first hops were frozen in training.
        image_size: side of the square images, pixels.
        depth: slices of a stack.
        passes: hops that share the one encoder; 1: each has its own.
        prevalence: of PE among the slices that each hop was trained on, where known.
    """

    version: int
    kind: str
    encoders: list[str]
    frozen: int
    image_size: int
    depth: int = SLICES
    passes: int = 1
    prevalence: list[Prevalence | None] = field(default_factory=list)


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
    )
    folder = Path(folder)
    with atomic(folder / "model.safetensors") as beside:
        save_file({k: v.contiguous() for k, v in net.state_dict().items()}, beside)
    write_json(folder / "model.json", asdict(card))


def load_model(folder: Path) -> tuple[HopNet | LandmarkNet, ModelCard]:
    """Read a model folder, or the `model/` in a stage's; in evaluation mode, on the CPU.

    Raises:
        UserError: no model there, one of another version, or weights that do not fit.
    """
    folder = _model_folder(folder)
    content = read_json(folder / "model.json")
    if content.get("version") not in READABLE:
        raise UserError(
            f"{folder} holds a model of version {content.get('version')}, this kit reads versions "
            f"{READABLE}: train it again or use the kit that wrote it"
        )
    try:
        known = [p and Prevalence(**p) for p in content.pop("prevalence", [])]
        card = ModelCard(**content, prevalence=known)
    except TypeError as error:  # fields that are missing or too many
        raise UserError(f"{folder} has a model.json that this kit did not write: {error}") from None
    # Hops see an image, and all but the first (or all that share weights) the context of another.
    encoders = [
        make_encoder(
            name,
            image_size=card.image_size,
            depth=card.depth,
            context=IMAGE_CHANNELS if k or card.passes > 1 else 0,
        )
        for k, name in enumerate(card.encoders)
    ]
    net: nn.Module = (
        HopNet(encoders, card.frozen, card.passes)
        if card.kind == "hops"
        else LandmarkNet(encoders[0])
    )
    try:
        net.load_state_dict(load_file(folder / "model.safetensors"))
    except FileNotFoundError:
        raise UserError(f"{folder} has no model.safetensors: train the model again") from None
    except Exception as error:  # safetensors' and torch's own errors share no class
        raise UserError(f"{folder}: the weights do not fit: {str(error)[:300]}") from None
    if isinstance(net, HopNet):
        net.prevalence = card.prevalence or net.prevalence
    return net.eval(), card


def load_hops(folder: Path) -> tuple[HopNet, ModelCard]:
    """Read a PE model (of any number of hops).

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
    """A first-hop encoder; `init` as in its class, or a model folder whose encoder is taken over.

    Raises:
        UserError: as the encoders, or the folder's encoder has another name, size or depth.
    """
    if not (_model_folder(init) / "model.json").exists():
        return make_encoder(name, init=init, image_size=image_size, depth=depth)
    net, card = load_model(init)
    encoder = net.encoders[0] if isinstance(net, HopNet) else net.encoder
    if card.encoders[0] != name:
        raise UserError(f"{init} holds {card.encoders[0]}, not {name}: use the same encoder")
    if card.passes > 1:
        raise UserError(f"{init} holds hops of shared weights: none of them is a first hop alone")
    if depth not in (None, encoder.depth):
        raise UserError(f"{init} reads {encoder.depth} slices, not {depth}: use the same depth")
    if encoder.image_size and image_size not in (None, encoder.image_size):
        raise UserError(
            f"{init} holds {name} for images of {encoder.image_size} pixels, not {image_size}: use "
            "the same size"
        )
    return encoder


def _model_folder(folder: Path | str) -> Path:
    folder = Path(folder)
    return folder if (folder / "model.json").exists() else folder / "model"


HEAD_VERSION = 1


def save_head(folder: Path, head: StudyHead) -> None:
    """Write a head as head.json (what to build) and head.safetensors, atomically."""
    folder = Path(folder)
    with atomic(folder / "head.safetensors") as beside:
        save_file({k: v.detach().cpu().contiguous() for k, v in head.state_dict().items()}, beside)
    write_json(folder / "head.json", {"version": HEAD_VERSION, **head.card})


def load_head(folder: Path) -> StudyHead:
    """Read a head's folder; in evaluation mode, on the CPU.

    Raises:
        UserError: no head there, one of another version, or weights that do not fit.
    """
    folder = Path(folder)
    card = read_json(folder / "head.json")
    if card.pop("version", None) != HEAD_VERSION:
        raise UserError(f"{folder} holds a head of another version: train it again")
    head = StudyHead(**card)
    try:
        head.load_state_dict(load_file(folder / "head.safetensors"))
    except FileNotFoundError:
        raise UserError(f"{folder} has no head.safetensors: train the head again") from None
    except Exception as error:  # safetensors' and torch's own errors share no class
        raise UserError(f"{folder}: the weights do not fit: {str(error)[:300]}") from None
    return head.eval()
