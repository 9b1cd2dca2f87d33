"""The landmark network: an encoder with three ResNet18 heads."""

import numpy as np
import timm
import torch
import torch.nn.functional as F
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
        for module in self.heads.modules():
            if type(module) is nn.Conv2d:
                module.__class__ = SmallMapConv  # the same weights under the same names
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


class SmallMapConv(nn.Conv2d):
    """A convolution that is computed as a matrix product on a CPU where the map has few pixels.

    An image of 64 pixels leaves the heads maps of 2 x 2 and 1 x 1 pixels, on which the gradients of
    a convolution's weights take most of the time of a training: the product takes a third of it.
    """

    FEW = 16  # pixels

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` -> as `nn.Conv2d`, to rounding."""
        if x.is_cuda or x.shape[-2] * x.shape[-1] > self.FEW:
            return super().forward(x)
        if x.shape[-2:] == (1, 1):  # the padding is 0, so only the middle of the kernel counts
            middle = self.weight[:, :, self.kernel_size[0] // 2, self.kernel_size[1] // 2]
            return F.linear(x.flatten(1), middle, self.bias)[..., None, None]
        columns = F.unfold(x, self.kernel_size, 1, self.padding, self.stride)  # (B, C * k * k, L)
        kernel = self.weight.flatten(1)
        product = F.linear(columns.transpose(1, 2), kernel, self.bias)  # (B, L, out)
        height = (x.shape[-2] + 2 * self.padding[0] - self.kernel_size[0]) // self.stride[0] + 1
        return product.transpose(1, 2).unflatten(2, (height, -1))


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
