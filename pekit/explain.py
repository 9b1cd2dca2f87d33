"""Integrated gradients: which pixels made the network call a slice positive (section V-F)."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from pekit.hop import HopNet


@dataclass(frozen=True)
class Attribution:
    """Attribution of one or more slices.

    Attributes:
        maps: `(N, H, W)` float32, absolute attribution summed over the 9 channels.
        completeness_error: `(N,)` |sum of attribution - (score - score of the baseline)| over the
            latter; 0 for an exact integral.
    """

    maps: np.ndarray
    completeness_error: np.ndarray


class _HopScore(nn.Module):
    # The log-odds of PE rather than the probability, which saturates near 0 and 1.
    def __init__(self, net: HopNet, hop: int):
        super().__init__()
        self.net, self.hop = net, hop

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net.hop_logits(images)[:, self.hop]
        return logits[:, 1] - logits[:, 0]


def integrated_gradients(
    net: HopNet, stack_hu: np.ndarray, hop: int = -1, steps: int = 32, batch_size: int = 32
) -> Attribution:
    """Integrated gradients (Captum) of the log-odds of PE, from an all-zero windowed image.

    Zero is air, or what lies outside the hull, in all three windows.

    Args:
        net: the network, on the device to use.
        stack_hu: `(N, 3, H, W)` int16 HU, already at the network's image size.
        hop: which hop's output to explain; -1 the last.
        steps: points of the path integral.
        batch_size: images at a time, so that large networks fit.
    """
    from captum.attr import IntegratedGradients

    net.eval()
    device = next(net.parameters()).device
    with torch.no_grad():
        images = net.windows(torch.from_numpy(stack_hu).to(device))
    score = _HopScore(net, hop)
    baseline = torch.zeros_like(images)
    values, delta = IntegratedGradients(score).attribute(
        images,
        baselines=baseline,
        n_steps=steps,
        internal_batch_size=max(batch_size, len(images)),
        return_convergence_delta=True,
    )
    with torch.no_grad():
        span = (score(images) - score(baseline)).abs().clamp(min=1e-6)
    maps = values.abs().sum(1).float().cpu().numpy()
    return Attribution(maps, (delta.abs() / span).float().cpu().numpy())


def resize_maps(maps: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Attribution `(N, H, W)` brought from the network's square image to the crop, `(N, Y, X)`."""
    size = (shape[1], shape[0])
    return np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in maps])


def attribution_focus(maps: np.ndarray, clot: np.ndarray) -> tuple[float, float]:
    """How much attribution lies on the clots, against chance.

    Args:
        maps: `(N, H, W)` attribution, not negative.
        clot: `(N, H, W)` bool, the true clots on the same grid.

    Returns:
        Fraction of attribution inside the clots; fraction of the pixels that they are.
    """
    return float(maps[clot].sum() / maps.sum()), float(clot.mean())
