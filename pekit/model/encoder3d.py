"""3D encoders: they read a deep stack as a video clip and predict its central slice (section III).

encoder = Encoder3D("r3d_18", depth=15)
logits, features = encoder(images)      # (B, 2), one map: images are (B, 3 * depth, H, W)

The interface is that of `pekit.model.encoder.Encoder`, so the rest of the kit takes either. The one
feature map is averaged over depth: there is no pyramid, so no hop can follow.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from pekit.common.errors import UserError, nearest
from pekit.dataset.windows import WINDOWS
from pekit.model.weights import fetch_weights, read_weights
from pekit.model.x3d import X3D

# Clip length that each network was designed for, made odd so that there is a central slice.
DEPTHS = {
    "r3d_18": 15, "mc3_18": 15, "r2plus1d_18": 15, "x3d_s": 13, "x3d_m": 15, "x3d_l": 15,
}  # fmt: skip
CLASSES = 2


class Encoder3D(nn.Module):
    """A video network over `depth` slices; the 3 HU windows are its 3 channels.

    Args:
        name: r3d_18, mc3_18, r2plus1d_18 (torchvision; the paper's reference 58), or x3d_s, x3d_m,
            x3d_l (`pekit.model.x3d`; reference 57).
        init: `random` (He), `torchvision` (Kinetics-400 weights from its hub; not X3D), or the path
            of a file of weights in torchvision's or, for X3D, PyTorchVideo's naming.
        depth: slices per stack, odd; None: the default in DEPTHS.

    Attributes:
        classifiers: beginnings of the names of the classifier's parameters.
        depth: slices per stack.
        widths, strides: channels and in-plane stride of the one feature map.
        image_size: None, as any size is accepted.

    Raises:
        UserError: an unknown name, an even depth, weights that are missing or do not fit.
    """

    image_size = None

    def __init__(self, name: str, init: str = "random", depth: int | None = None):
        super().__init__()
        if name not in DEPTHS:
            raise UserError(f"no 3D encoder {name!r}: {nearest(name, DEPTHS)}")
        self.name, self.depth = name, depth or DEPTHS[name]
        if self.depth < 3 or self.depth % 2 == 0:
            raise UserError(
                f"depth = {self.depth}: {name} predicts the central slice, set an odd depth of 3 "
                "or more"
            )
        self.in_chans = self.depth * len(WINDOWS)
        if name.startswith("x3d"):
            self.net, self._head = X3D(5.0 if name == "x3d_l" else 2.2), "blocks.5.proj"
            self.widths, self.strides = (self.net.num_features,), (32,)
        else:
            from torchvision.models import video

            self.net, self._head = getattr(video, name)(num_classes=CLASSES), "fc"
            self.widths, self.strides = (self.net.fc.in_features,), (16,)
        if init != "random":
            self._load(self._kinetics_weights() if init == "torchvision" else _read(init))
        head = self.net.get_submodule(self._head)
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)
        self.classifiers = (f"net.{self._head}.",)

    def _kinetics_weights(self) -> dict[str, Tensor]:
        from torchvision.models import get_model_weights, list_models

        if self.name not in list_models():
            raise UserError(f"torchvision has no weights of {self.name}: give a file of weights")
        weights = get_model_weights(self.name).DEFAULT
        return fetch_weights(self.name, lambda: weights.get_state_dict(progress=False))

    def _load(self, state: dict[str, Tensor]) -> None:
        state = {k: v for k, v in state.items() if not k.startswith(f"{self._head}.")}
        own = {k: v for k, v in self.net.state_dict().items() if k.startswith(f"{self._head}.")}
        try:
            self.net.load_state_dict({**state, **own})
        except RuntimeError as error:  # names or shapes that differ
            raise UserError(f"weights do not fit {self.name}: {str(error)[:300]}") from None

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`(B, 3 * depth, H, W)`, slice by slice -> logits `(B, 2)`, one map `(B, C, H/s, W/s)`."""
        clip = images.unflatten(1, (self.depth, len(WINDOWS))).transpose(1, 2)  # (B, 3, D, H, W)
        if isinstance(self.net, X3D):
            volume = self.net.forward_features(clip)
            logits = self.net.forward_head(volume)
        else:
            volume = clip
            for part in ("stem", "layer1", "layer2", "layer3", "layer4"):
                volume = self.net.get_submodule(part)(volume)
            logits = self.net.fc(self.net.avgpool(volume).flatten(1))
        return logits, [volume.mean(2)]


def _read(path: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise UserError(f"init '{path}' is neither random, torchvision nor a file of weights")
    state = read_weights(Path(path))
    return state.get("model_state", state)  # PyTorchVideo wraps its tensors


def memory_format(net: nn.Module) -> torch.memory_format:
    """Memory layout for `net.to`: channels last, unless the network has 3D convolutions."""
    if any(isinstance(part, nn.Conv3d) for part in net.modules()):
        return torch.contiguous_format
    return torch.channels_last
