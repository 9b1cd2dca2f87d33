"""Convolutions of maps of a few pixels, quicker to train on a CPU.

Images of 64 to 96 pixels leave the last stages of a network maps of 1 x 1 to 4 x 4 pixels. There
PyTorch on a CPU spends most of a training on the gradients of the weights; here they are computed
otherwise, with the same result to rounding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEW = 16  # pixels of a map


def prepare_layout(net: nn.Module, device: str | torch.device) -> nn.Module:
    """Move a network to the device on which it is trained, in the layout that is fastest there."""
    net.to(device, memory_format=net.memory_format)
    if torch.device(device).type == "cpu":
        for module in net.modules():
            if type(module) is nn.Conv2d and module.padding_mode == "zeros":
                if module.groups == 1 and module.kernel_size != (1, 1):
                    module.__class__ = SmallMapConv  # the same weights under the same names
                elif module.groups == module.in_channels == module.out_channels > 1:
                    module.__class__ = SmallMapDepthwise
    return net


class SmallMapConv(nn.Conv2d):
    """A convolution that is trained as a matrix product where the map has few pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` -> as `nn.Conv2d`, to rounding."""
        if not _trained_on_few(x):
            return super().forward(x)
        if x.shape[-2:] == (1, 1):  # the padding is 0, so only the middle of the kernel counts
            middle = self.weight[:, :, self.kernel_size[0] // 2, self.kernel_size[1] // 2]
            return F.linear(x.flatten(1), middle, self.bias)[..., None, None]
        columns = F.unfold(x, self.kernel_size, 1, self.padding, self.stride)  # (B, C * k * k, L)
        kernel = self.weight.flatten(1)
        product = F.linear(columns.transpose(1, 2), kernel, self.bias)  # (B, L, out)
        height = (x.shape[-2] + 2 * self.padding[0] - self.kernel_size[0]) // self.stride[0] + 1
        return product.transpose(1, 2).unflatten(2, (height, -1))


class SmallMapDepthwise(nn.Conv2d):
    """A depthwise convolution whose weights get their gradient by sums over shifted maps."""

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` -> as `nn.Conv2d`."""
        if not _trained_on_few(x) or self.bias is not None:
            return super().forward(x)
        return _Depthwise.apply(x, self.weight, self.stride, self.padding)


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, stride: tuple, padding: tuple) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            geometry = ctx.stride, ctx.padding
            of_x = torch.nn.grad.conv2d_input(
                x.shape, weight, gradient, *geometry, groups=len(weight)
            )
        if ctx.needs_input_grad[1]:
            (down, right), (height, width) = ctx.padding, gradient.shape[-2:]
            maps = F.pad(x, (right, right, down, down)).permute(0, 2, 3, 1)  # (B, H, W, C)
            gradient = gradient.permute(0, 2, 3, 1)
            sums = []
            for row in range(weight.shape[2]):
                rows = maps[:, row :: ctx.stride[0]][:, :height]
                for column in range(weight.shape[3]):
                    shifted = rows[:, :, column :: ctx.stride[1]][:, :, :width]
                    sums.append((shifted * gradient).sum((0, 1, 2)))
            of_weight = torch.stack(sums, 1).view_as(weight)
        return of_x, of_weight, None, None


def _trained_on_few(x: Tensor) -> bool:
    few = x.shape[-2] * x.shape[-1] <= FEW
    # Under autocast (bf16) PyTorch casts its own convolutions only.
    plain = torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu")
    return few and plain and x.device.type == "cpu"
