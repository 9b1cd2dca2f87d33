"""A model as a folder: model.json (what to build) and model.safetensors (weights); no pickle."""

from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import nn

from pekit.errors import UserError
from pekit.hop import HopNet
from pekit.model import Encoder, LandmarkNet
from pekit.store import atomic, read_json, write_json
from pekit.windows import IMAGE_CHANNELS

VERSION = 1


@dataclass(frozen=True)
class ModelCard:
    """What a model folder says of itself. `kind` is `landmarks` or `hops`."""

    version: int
    kind: str
    encoders: list[str]
    frozen: int
    image_size: int


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
    if content.get("version") != VERSION:
        raise UserError(
            f"{folder} holds a model of version {content.get('version')}, this kit reads version "
            f"{VERSION}: train it again or use the kit that wrote it"
        )
    card = ModelCard(**content)
    encoders = [Encoder(n, IMAGE_CHANNELS * (1 + (k > 0))) for k, n in enumerate(card.encoders)]
    net: nn.Module = (
        HopNet(encoders, card.frozen) if card.kind == "hops" else LandmarkNet(encoders[0])
    )
    try:
        net.load_state_dict(load_file(folder / "model.safetensors"))
    except FileNotFoundError:
        raise UserError(f"{folder} has no model.safetensors: train the model again") from None
    except Exception as error:  # safetensors' and torch's own errors share no class
        raise UserError(f"{folder}: the weights do not fit: {str(error)[:300]}") from None
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


def build_encoder(name: str, init: str) -> Encoder:
    """A first-hop encoder; `init` as in `Encoder`, or a model folder whose encoder is taken over.

    Raises:
        UserError: the folder's encoder has another name.
    """
    if not (_model_folder(init) / "model.json").exists():
        return Encoder(name, init=init)
    net, card = load_model(init)
    if card.encoders[0] != name:
        raise UserError(f"{init} holds {card.encoders[0]}, not {name}: use the same encoder")
    return net.encoders[0] if isinstance(net, HopNet) else net.encoder


def _model_folder(folder: Path | str) -> Path:
    folder = Path(folder)
    return folder if (folder / "model.json").exists() else folder / "model"
