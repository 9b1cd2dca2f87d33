"""HU windowing as a layer: a stack of 3 slices in HU becomes 9 channels in [0, 1]."""

import torch
from torch import Tensor, nn

# (centre, width) in HU: pulmonary arteries, soft tissue, lung; section IV of the paper.
WINDOWS = ((100, 700), (40, 400), (-600, 1500))
SLICES = 3
IMAGE_CHANNELS = SLICES * len(WINDOWS)


class Windows(nn.Module):
    """Scale HU to [0, 1] by each window: `(B, S, H, W)` HU -> `(B, S * n_windows, H, W)` float.

    Channels are ordered by slice, then by window (the paper's (3, 3, h, w), flattened).
    `contrast (B,)`, if given, multiplies the windowed values as RandomContrast does.
    """

    def __init__(self, windows: tuple[tuple[float, float], ...] = WINDOWS):
        super().__init__()
        centre, width = torch.tensor(windows, dtype=torch.float32).unbind(1)
        self.register_buffer("low", centre - width / 2, persistent=False)
        self.register_buffer("width", width, persistent=False)

    def forward(self, stack_hu: Tensor, contrast: Tensor | None = None) -> Tensor:
        low, width = self.low.view(-1, 1, 1), self.width.view(-1, 1, 1)
        scaled = (stack_hu.unsqueeze(2).float() - low) / width  # (B, S, n_windows, H, W)
        scaled = scaled.clamp_(0, 1)
        if contrast is not None:
            scaled = (scaled * contrast.view(-1, 1, 1, 1, 1)).clamp_(0, 1)
        return scaled.flatten(1, 2)
