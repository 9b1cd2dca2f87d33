"""The landmark network: an encoder with three ResNet18 heads."""

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
    """

    def __init__(self, encoder: Encoder | Encoder3D):
        super().__init__()
        self.windows = Windows()
        self.encoder = encoder
        self.heads = nn.ModuleList(
            timm.create_model("resnet18", in_chans=encoder.widths[-1], num_classes=len(LANDMARKS))
            for _ in "xyz"
        )

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
