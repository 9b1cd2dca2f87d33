"""The K-hop network.

A hop is an encoder that classifies a 2.5D stack. Every hop after the first also reads the feature
maps of the hop before it, which an aggregator has brought to the size of the image (its context).
Hops are trained one after another, each with the earlier ones frozen.

Paper: section III "Hopped Training", equations 6 and 7; section IV "Hop Training".
"""

import copy
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pekit.common.errors import UserError
from pekit.dataset.windows import IMAGE_CHANNELS, WINDOWS, Windows
from pekit.model.encoder import Encoder
from pekit.model.encoder3d import Encoder3D, memory_format
from pekit.model.prevalence import Prevalence


def _conv(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout), nn.ReLU())


def require_pyramid(name: str, strides: tuple[int, ...]) -> None:
    """Check that another hop can follow the encoder `name`.

    Raises:
        UserError: fewer than two feature maps, or one that is not coarser than the map before it.
    """
    if len(strides) < 2 or any(fine >= coarse for fine, coarse in pairwise(strides)):
        raise UserError(
            f"no hop can follow {name}: its feature maps have strides {strides}, but an aggregator "
            "needs several maps, each coarser than the one before. Use an encoder with pyramid "
            "features (EfficientNet, ResNet, ECA-ResNet, DenseNet, RegNet, CoAtNet, ConvNeXt), or "
            "use this one as the last hop"
        )


class Aggregator(nn.Module):
    """Combine an encoder's feature maps into one map of the input's size (the paper's Phi).

    Each step convolves twice, upsamples bilinearly to the next finer stride and concatenates the
    encoder's features of that stride. Channels for EfficientNetV2-L: 1280 -> 224 -> 96 -> 64 -> 32
    -> 9.

    Args:
        widths: channels of the feature maps, fine to coarse.
        strides: strides of the feature maps, each larger than the one before.
        out_chans: channels of the result.

    Raises:
        UserError: as `require_pyramid`.
    """

    def __init__(
        self, widths: tuple[int, ...], strides: tuple[int, ...], out_chans: int = IMAGE_CHANNELS
    ):
        super().__init__()
        require_pyramid("the encoder", strides)
        coarse_to_fine = [*reversed(widths), out_chans]
        self.steps = nn.ModuleList()
        cin = coarse_to_fine[0]
        for cout in coarse_to_fine[1:]:
            self.steps.append(nn.Sequential(_conv(cin, cout), _conv(cout, cout)))
            cin = 2 * cout

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Feature maps, fine to coarse -> `(B, out_chans, *size)`."""
        x = features[-1]
        skips = [*reversed(features[:-1]), None]
        for step, skip in zip(self.steps, skips, strict=True):
            target = size if skip is None else skip.shape[-2:]
            x = F.interpolate(step(x), size=target, mode="bilinear")
            if skip is not None:
                x = torch.cat([x, skip], dim=1)
        return x


class HopNet(nn.Module):
    """K hops over a 2.5D stack in HU; the first `frozen` hops are not trained.

    Hops may have different encoders; all but the last need pyramid features. With `passes` above
    1, all hops share one encoder and one aggregator (the paper's reference 70). The shared encoder
    takes 9 + 9 channels, and the context of the first pass is zero.

    Args:
        encoders: one per hop; the first takes 9 channels, later ones 9 + 9. A 3D encoder can only
            be the single hop.
        frozen: number of first hops that keep their weights and batch-norm statistics.
        passes: number of hops that share the weights of a single encoder.

    Attributes:
        prevalence: of PE among the slices that each hop was trained on; None: untrained.
        precision: of its last training, `32-true` or `bf16-mixed`; None: untrained or not known.

    Raises:
        UserError: encoders that cannot be combined; the message names the hop.
    """

    def __init__(self, encoders: list[Encoder | Encoder3D], frozen: int = 0, passes: int = 1):
        super().__init__()
        if not 0 <= frozen < len(encoders):
            raise UserError(f"{frozen} of {len(encoders)} hops frozen: the last one must be free")
        _check_chain(encoders, passes)
        self.windows = Windows()
        self.encoders = nn.ModuleList(encoders)
        followed = encoders[:-1] if passes == 1 else encoders
        self.aggregators = nn.ModuleList(Aggregator(e.widths, e.strides) for e in followed)
        self.frozen, self.passes = frozen, passes
        self.prevalence: list[Prevalence | None] = [None] * self.hops
        self.precision: str | None = None
        for encoder in encoders[:frozen]:
            encoder.requires_grad_(False)
        # An aggregator between two frozen hops is frozen too.
        for aggregator in self.aggregators[: max(frozen - 1, 0)]:
            aggregator.requires_grad_(False)

    @property
    def hops(self) -> int:
        """Number of hops."""
        return len(self.encoders) * self.passes

    @property
    def depth(self) -> int:
        """Slices per stack."""
        return self.encoders[0].depth

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory layout in which its convolutions run fastest."""
        return memory_format(self)

    def trained_at(self, prevalence: Prevalence) -> None:
        """Record the prevalence at which the free hops are trained."""
        self.prevalence[self.frozen :] = [prevalence] * (self.hops - self.frozen)

    def train(self, mode: bool = True) -> "HopNet":
        """Training mode for the free parts; frozen hops stay in evaluation mode."""
        super().train(mode)
        for encoder in self.encoders[: self.frozen]:
            encoder.eval()
        for aggregator in self.aggregators[: max(self.frozen - 1, 0)]:
            aggregator.eval()
        return self

    def forward(self, stack_hu: Tensor, contrast: Tensor | None = None) -> Tensor:
        """`(B, depth, H, W)` HU -> logits `(B, K, 2)`."""
        return self.hop_logits(self.windows(stack_hu, contrast))

    def hop_logits(self, images: Tensor, hops: int | None = None) -> Tensor:
        """Windowed images `(B, 3 * depth, H, W)` in [0, 1] -> logits `(B, K, 2)`; equation 7.

        `hops`: compute only this many first hops.
        """
        encoders, aggregators = list(self.encoders), list(self.aggregators)
        first = images
        if self.passes > 1:
            encoders, aggregators = encoders * self.passes, aggregators * (self.passes - 1)
            first = torch.cat([images, torch.zeros_like(images)], dim=1)
        logits, features = encoders[0](first)
        results = [logits]
        later = list(zip(aggregators, encoders[1:], strict=True))
        for aggregator, encoder in later[: None if hops is None else hops - 1]:
            context = aggregator(features, images.shape[-2:])
            logits, features = encoder(torch.cat([images, context], dim=1))
            results.append(logits)
        return torch.stack(results, dim=1)

    def add_hop(self, encoder: Encoder | None = None, shared: bool = False) -> "HopNet":
        """A frozen copy of this network with one more hop.

        Without arguments the new hop starts as a copy of the last one. Hop 2 first gives exactly
        the logits of hop 1, as its 9 new channels have zero weights. Hop 3 starts as hop 2 applied
        to the features of hop 2, with a copy of its aggregator.

        Args:
            encoder: start the new hop from this encoder (9 channels) instead; its context gets
                zero weights.
            shared: apply the existing encoder once more, with shared weights. No hop is then
                frozen, and all train together. Before training, the new hop gives exactly the
                logits of the hop before it.

        Raises:
            UserError: an encoder without pyramid features, or hops that share weights mixed with
                hops that do not.
        """
        last = self.encoders[-1]
        require_pyramid(last.name, last.strides)
        if shared:
            return self._with_another_pass()
        if self.passes > 1:
            raise UserError("hops that share weights can be followed only by one that shares too")
        # Trained context weights are kept only if the last aggregator fits the new features too.
        again = encoder is None and self.hops > 1 and last.widths == self.encoders[-2].widths
        start = last if again else (encoder or last).with_in_chans(IMAGE_CHANNELS)
        new = start.with_in_chans(2 * IMAGE_CHANNELS)
        grown = HopNet([*copy.deepcopy(self.encoders), new], frozen=self.hops)
        grown.prevalence = [*self.prevalence, None]
        old = [*self.aggregators, *([self.aggregators[-1]] if again else [])]
        for ours, theirs in zip(grown.aggregators, old, strict=False):
            ours.load_state_dict(theirs.state_dict())
        return grown

    def _with_another_pass(self) -> "HopNet":
        if len(self.encoders) > 1:
            raise UserError(
                f"{self.hops} hops have their own weights: only a single hop can be shared"
            )
        encoder = self.encoders[0].with_in_chans(2 * IMAGE_CHANNELS)
        grown = HopNet([encoder], passes=self.passes + 1)
        for ours, theirs in zip(grown.aggregators, self.aggregators, strict=False):
            ours.load_state_dict(theirs.state_dict())
        return grown


Net = TypeVar("Net", bound=nn.Module)


def to_best_device(net: Net) -> Net:
    """`net` on the GPU where torch sees one, in the memory layout that convolutions like."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return net.to(device, memory_format=net.memory_format)


def _check_chain(encoders: list[Encoder | Encoder3D], passes: int) -> None:
    if passes < 1 or (passes > 1 and len(encoders) > 1):
        raise UserError(f"{passes} passes of {len(encoders)} encoders: sharing takes a single one")
    if len(set(encoders)) < len(encoders):
        raise UserError("one encoder is given for two hops: weights are shared by `passes`")
    for encoder in encoders if passes > 1 else encoders[:-1]:
        require_pyramid(encoder.name, encoder.strides)
    for hop, encoder in enumerate(encoders, 1):
        if encoder.depth != encoders[0].depth:
            raise UserError(
                f"hop {hop}, {encoder.name}, reads {encoder.depth} slices and hop 1 "
                f"{encoders[0].depth}: a 3D encoder can only be the single hop"
            )
        wanted = encoder.depth * len(WINDOWS) + (IMAGE_CHANNELS if hop > 1 or passes > 1 else 0)
        if encoder.in_chans != wanted:
            raise UserError(
                f"hop {hop}, {encoder.name}, takes {encoder.in_chans} channels instead of {wanted}"
            )
