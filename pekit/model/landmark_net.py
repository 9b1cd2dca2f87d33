"""The landmark network: an encoder with three ResNet18 heads."""

import numpy as np
import timm
import torch
from torch import Tensor, nn

from pekit.dataset.schema import LANDMARKS
from pekit.dataset.windows import Windows
from pekit.model.encoder import Encoder
from pekit.model.encoder3d import Encoder3D, memory_format


class LandmarkNet(nn.Module):
    """Encoder and three ResNet18 heads, for anatomically aware pretraining (section III).

    Each head (x, y, z) reads the unpooled feature map and gives one value per landmark: x and y in
    [0, 1] of the image, z the signed distance to the centre slice in units of `z_scale` slices.

    What the feature map does not depend on, such as the encoder's classifier, is frozen: it gets no
    gradient, at which training in several processes would stop.
    """

    def __init__(self, encoder: Encoder | Encoder3D):
        super().__init__()
        self.windows = Windows()
        self.encoder = encoder
        self.heads = nn.ModuleList(
            timm.create_model("resnet18", in_chans=encoder.widths[-1], num_classes=len(LANDMARKS))
            for _ in "xyz"
        )
        for parameter in _beside_the_map(encoder):
            parameter.requires_grad_(False)

    @torch.no_grad()
    def start_at(self, mean: np.ndarray) -> None:
        """Let the heads start at a constant prediction `(20, 3)`; NaN: unknown, 0 is taken.

        Without it a short training spends its steps on finding the mean position.
        """
        for head, constant in zip(self.heads, np.nan_to_num(mean).T, strict=True):
            nn.init.normal_(head.fc.weight, std=0.01)
            head.fc.bias.copy_(torch.from_numpy(constant))

    @property
    def depth(self) -> int:
        """Slices per stack."""
        return self.encoder.depth

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory layout in which its convolutions run fastest."""
        return memory_format(self)

    def forward(self, stack_hu: Tensor, contrast: Tensor | None = None) -> Tensor:
        """`(B, depth, H, W)` HU -> `(B, 20, 3)` landmark coordinates, x, y, z."""
        _, features = self.encoder(self.windows(stack_hu, contrast))
        return torch.stack([head(features[-1]) for head in self.heads], dim=2)


def _beside_the_map(encoder: Encoder | Encoder3D) -> list[nn.Parameter]:
    """Parameters on which the encoder's last feature map does not depend."""
    mode, side = encoder.training, encoder.image_size or 64
    encoder.requires_grad_(True).eval()  # batch norm must not learn from this image
    device = next(encoder.parameters()).device
    _, maps = encoder(torch.zeros(1, encoder.in_chans, side, side, device=device))
    parameters = list(encoder.parameters())
    gradients = torch.autograd.grad(maps[-1].sum(), parameters, allow_unused=True)
    encoder.train(mode)
    return [p for p, gradient in zip(parameters, gradients, strict=True) if gradient is None]
