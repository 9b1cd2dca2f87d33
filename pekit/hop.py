"""The K-hop network: each hop sees the image and the aggregated features of the hop before it.

Paper: section III "Hopped Training", equations 6 and 7; section IV "Hop Training".
"""

import copy
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pekit.errors import UserError
from pekit.model import Encoder
from pekit.windows import IMAGE_CHANNELS, Windows


def _conv(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, 3, padding=1), nn.BatchNorm2d(cout), nn.ReLU())


class Aggregator(nn.Module):
    """Bring an encoder's feature maps to one map of the input's size (the paper's Phi).

    Each step convolves twice, upsamples bilinearly to the next finer stride and concatenates the
    encoder's features there: 1280 -> 224 -> 96 -> 64 -> 32 -> 9 for EfficientNetV2-L.

    Args:
        widths: channels of the feature maps, fine to coarse.
        strides: their strides, likewise, each larger than the one before.
        out_chans: channels of the result.

    Raises:
        UserError: the features are no pyramid.
    """

    def __init__(
        self, widths: tuple[int, ...], strides: tuple[int, ...], out_chans: int = IMAGE_CHANNELS
    ):
        super().__init__()
        if any(fine >= coarse for fine, coarse in pairwise(strides)):
            raise UserError(
                f"an aggregator needs feature maps of growing strides, not {strides}: use an "
                "encoder with pyramid features (EfficientNet, ResNet, RegNet, DenseNet, CoAtNet)"
            )
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
    """K hops over a stack of HU slices; hops before the last `trained` ones are frozen.

    Args:
        encoders: one a hop; the first takes 9 channels, later ones 9 + 9.
        frozen: so many first hops keep their weights and batch-norm statistics, with no gradient.
    """

    def __init__(self, encoders: list[Encoder], frozen: int = 0):
        super().__init__()
        if not 0 <= frozen < len(encoders):
            raise UserError(f"{frozen} of {len(encoders)} hops frozen: the last one must be free")
        self.windows = Windows()
        self.encoders = nn.ModuleList(encoders)
        self.aggregators = nn.ModuleList(Aggregator(e.widths, e.strides) for e in encoders[:-1])
        self.frozen = frozen
        for encoder in encoders[:frozen]:
            encoder.requires_grad_(False)
        # Between two frozen hops the aggregator is frozen as well.
        for aggregator in self.aggregators[: max(frozen - 1, 0)]:
            aggregator.requires_grad_(False)

    @property
    def hops(self) -> int:
        """How many hops there are."""
        return len(self.encoders)

    def train(self, mode: bool = True) -> "HopNet":
        """Training mode for the free parts; frozen hops stay in evaluation mode."""
        super().train(mode)
        for encoder in self.encoders[: self.frozen]:
            encoder.eval()
        for aggregator in self.aggregators[: max(self.frozen - 1, 0)]:
            aggregator.eval()
        return self

    def forward(self, stack_hu: Tensor, contrast: Tensor | None = None) -> Tensor:
        """`(B, 3, H, W)` HU -> logits `(B, K, 2)`."""
        return self.hop_logits(self.windows(stack_hu, contrast))

    def hop_logits(self, images: Tensor) -> Tensor:
        """Windowed images `(B, 9, H, W)` in [0, 1] -> logits `(B, K, 2)`; equation 7."""
        logits, features = self.encoders[0](images)
        results = [logits]
        for aggregator, encoder in zip(self.aggregators, self.encoders[1:], strict=True):
            context = aggregator(features, images.shape[-2:])
            logits, features = encoder(torch.cat([images, context], dim=1))
            results.append(logits)
        return torch.stack(results, dim=1)

    def add_hop(self) -> "HopNet":
        """A copy of this network, frozen, and one more hop that starts as exactly its last one."""
        last = self.encoders[-1]
        extra = IMAGE_CHANNELS if last.in_chans == IMAGE_CHANNELS else 0
        grown = HopNet([*copy.deepcopy(self.encoders), last.widened(extra)], frozen=self.hops)
        for new, old in zip(grown.aggregators, self.aggregators, strict=False):
            new.load_state_dict(old.state_dict())
        return grown
