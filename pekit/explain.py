"""Attributions: how much each pixel contributes to a slice's score (section V-F), by Captum.

found = explain(net, stacks, hop=0)                    # integrated gradients, the paper's
found.maps, found.completeness_error
both = explain_volume(net, volume_hu, [12, 20], card.image_size, method="occlusion")
both["hop1"].maps, both["hop2"].maps                   # per hop, at the size of the crop

The score is the log-odds of PE, because the probability saturates near 0 and 1. Images pass
through the network in small batches to save memory: two hops of EfficientNetV2-L at 576 pixels
take 8 GB.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from pekit.common.errors import UserError, nearest
from pekit.dataset.stacks import resize_slices, volume_stacks
from pekit.hop import HopNet

# Pixels per batch: one image of the paper's size.
PASS_PIXELS = 576 * 576


@dataclass(frozen=True)
class Attribution:
    """Attribution of one or more slices.

    Attributes:
        maps: `(N, H, W)` float32, absolute attribution summed over the 9 channels.
        completeness_error: `(N,)`, with d = score - score of the baseline: |sum of attribution - d|
            / |d|; 0 for an exact integral. None for methods without this property.
    """

    maps: np.ndarray
    completeness_error: np.ndarray | None


@dataclass(frozen=True)
class Method:
    """An attribution method.

    Attributes:
        caption: method and baseline, for titles.
        complete: whether attributions sum to the score minus the score of the baseline.
        compute: (score, image `(1, 9, H, W)`, steps, batch size) -> attribution `(1, 9, H, W)`.
    """

    caption: str
    complete: bool
    compute: Callable[[nn.Module, Tensor, int, int], Tensor]


class _HopScore(nn.Module):
    def __init__(self, net: HopNet, hop: int):
        super().__init__()
        self.net, self.hop = net, hop % net.hops

    def forward(self, images: Tensor) -> Tensor:
        logits = self.net.hop_logits(images, self.hop + 1)[:, -1]
        return logits[:, 1] - logits[:, 0]


def _integrated_gradients(score: nn.Module, image: Tensor, steps: int, batch: int) -> Tensor:
    from captum.attr import IntegratedGradients

    return IntegratedGradients(score).attribute(image, n_steps=steps, internal_batch_size=batch)


def _gradient_shap(score: nn.Module, image: Tensor, steps: int, batch: int) -> Tensor:
    from captum.attr import GradientShap

    shap, total = GradientShap(score), torch.zeros_like(image)
    for start in range(0, steps, batch):
        n = min(batch, steps - start)
        total += n * shap.attribute(image, baselines=torch.zeros_like(image), n_samples=n)
    return total / steps


def _saliency(score: nn.Module, image: Tensor, steps: int, batch: int) -> Tensor:
    from captum.attr import Saliency

    return Saliency(score).attribute(image)


def _input_x_gradient(score: nn.Module, image: Tensor, steps: int, batch: int) -> Tensor:
    from captum.attr import InputXGradient

    return InputXGradient(score).attribute(image)


def _smoothgrad(score: nn.Module, image: Tensor, steps: int, batch: int) -> Tensor:
    from captum.attr import NoiseTunnel, Saliency

    return NoiseTunnel(Saliency(score)).attribute(
        image, nt_samples=steps, nt_samples_batch_size=batch, stdevs=0.1
    )


def _occlusion(score: nn.Module, image: Tensor, steps: int, batch: int) -> Tensor:
    from captum.attr import Occlusion

    side = max(image.shape[-1] // 8, 1)
    stride = (image.shape[1], max(side // 2, 1), max(side // 2, 1))
    return Occlusion(score).attribute(
        image, (image.shape[1], side, side), strides=stride, perturbations_per_eval=batch
    )


ZERO = "from an image that is zero (air) in all windows"
METHODS = {
    "integrated_gradients": Method(
        f"integrated gradients of the log-odds of PE, {ZERO}", True, _integrated_gradients
    ),
    "gradient_shap": Method(
        f"expected gradients (SHAP) of the log-odds of PE, {ZERO}", True, _gradient_shap
    ),
    "input_x_gradient": Method(
        "input times gradient of the log-odds of PE; no baseline", False, _input_x_gradient
    ),
    "saliency": Method("gradient of the log-odds of PE; no baseline", False, _saliency),
    "smoothgrad": Method(
        "gradient of the log-odds of PE, mean over images with noise of 0.1; no baseline",
        False,
        _smoothgrad,
    ),
    "occlusion": Method(
        "loss of log-odds of PE where a square of 1/8 of the side is zero (air) in all windows",
        False,
        _occlusion,
    ),
}


def attribution_method(name: str) -> Method:
    """The method called `name`.

    Raises:
        UserError: an unknown method; the message suggests similar names.
    """
    if name not in METHODS:
        raise UserError(f"no attribution method {name!r}: {nearest(name, METHODS)}")
    return METHODS[name]


def explain(
    net: HopNet,
    stack_hu: np.ndarray,
    method: str = "integrated_gradients",
    hop: int = -1,
    steps: int = 32,
    batch_size: int | None = None,
    seed: int = 0,
) -> Attribution:
    """Attribution of the log-odds of PE to the pixels of slices.

    Args:
        net: the network, on the device to use.
        stack_hu: `(N, depth, H, W)` int16 HU, already at the network's image size.
        method: a name of METHODS.
        hop: index of the hop to explain; -1: the last one.
        steps: points of the path integral, or number of samples; saliency, input_x_gradient and
            occlusion ignore it.
        batch_size: images per batch; None: PASS_PIXELS divided by the pixels of an image.
        seed: random seed, for methods that draw samples.

    Raises:
        UserError: an unknown method.
    """
    chosen = attribution_method(method)
    batch = batch_size or max(1, PASS_PIXELS // (stack_hu.shape[-1] * stack_hu.shape[-2]))
    score = _HopScore(net.eval(), hop)
    device = next(net.parameters()).device
    maps, errors = [], []
    with _seeded(seed, device):
        for stack in stack_hu:
            image = net.windows(torch.from_numpy(np.ascontiguousarray(stack))[None].to(device))
            values = chosen.compute(score, image, steps, batch).detach()
            maps.append(values.abs().sum(1)[0].float().cpu().numpy())
            if chosen.complete:
                errors.append(_completeness_error(score, image, values))
    return Attribution(np.stack(maps), np.array(errors, np.float32) if chosen.complete else None)


def explain_volume(
    net: HopNet, hu: np.ndarray, rows: Sequence[int], image_size: int, **options: object
) -> dict[str, Attribution]:
    """Attribution of slices of a cropped volume for each hop: hop1, hop2, ...

    Args:
        hu: `(Z, Y, X)` int16 HU.
        rows: the slices, as indices into `hu`.
        image_size: side of the square image that the network was trained on, pixels.
        options: as `explain` takes them: method, steps, batch_size, seed.

    Returns:
        The attribution of each hop, with maps resized to the crop: `(len(rows), Y, X)`.
    """
    stacks = volume_stacks(resize_slices(hu, image_size), net.depth)[list(rows)]
    found = {}
    for hop in range(net.hops):
        of_hop = explain(net, stacks, hop=hop, **options)
        maps = resize_maps(of_hop.maps, hu.shape[1:])
        found[f"hop{hop + 1}"] = Attribution(maps, of_hop.completeness_error)
    return found


def resize_maps(maps: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize attribution `(N, H, W)` from the network's square image to the crop: `(N, Y, X)`."""
    size = (shape[1], shape[0])
    return np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in maps])


def attribution_focus(maps: np.ndarray, clot: np.ndarray) -> tuple[float, float]:
    """Share of attribution on the clots, and the share expected by chance.

    Args:
        maps: `(N, H, W)` attribution, not negative.
        clot: `(N, H, W)` bool, the true clots on the same grid.

    Returns:
        Fraction of attribution inside the clots; fraction of pixels inside the clots.
    """
    return float(maps[clot].sum() / maps.sum()), float(clot.mean())


@torch.no_grad()
def _completeness_error(score: nn.Module, image: Tensor, values: Tensor) -> float:
    span = (score(image) - score(torch.zeros_like(image))).item()
    return abs(values.double().sum().item() - span) / max(abs(span), 1e-6)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch and NumPy inside the block, and restore their states after it."""
    numpy_state = np.random.get_state()  # Captum's GradientShap draws from NumPy
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
