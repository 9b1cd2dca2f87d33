"""X3D, a narrow and deep video network with depthwise 3x3x3 convolutions.

C. Feichtenhofer, "X3D: Expanding architectures for efficient video recognition", CVPR 2020 (the
paper's reference 57). Tensors are named as in PyTorchVideo, so that its weights fit. XS, S and M
are one network at different clip lengths and image sizes; L is deeper.
"""

from math import ceil

from timm.layers import make_divisible
from torch import Tensor, nn

WIDTHS = (24, 48, 96, 192)
BLOCKS = (1, 2, 5, 3)
EXPANSION = 2.25  # of the bottleneck's inner width
HEAD_WIDTH = 2048
SQUEEZE = 1 / 16


def _conv(cin: int, cout: int, kernel=(1, 1, 1), stride: int = 1, groups: int = 1) -> nn.Conv3d:
    # Depth is not strided: all slices are kept until the pooling.
    padding = tuple(side // 2 for side in kernel)
    return nn.Conv3d(cin, cout, kernel, (1, stride, stride), padding, groups=groups, bias=False)


class _Squeeze(nn.Module):
    # Squeeze and excitation: channel weights from the mean over the clip.
    def __init__(self, width: int):
        super().__init__()
        inner = make_divisible(width * SQUEEZE, 8)
        self.block = nn.Sequential(
            nn.Conv3d(width, inner, 1), nn.ReLU(), nn.Conv3d(inner, width, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.block(x.mean((2, 3, 4), keepdim=True))


class _Bottleneck(nn.Module):
    def __init__(self, cin: int, inner: int, cout: int, stride: int, squeeze: bool):
        super().__init__()
        self.conv_a, self.norm_a, self.act_a = _conv(cin, inner), nn.BatchNorm3d(inner), nn.ReLU()
        self.conv_b = _conv(inner, inner, (3, 3, 3), stride, groups=inner)
        self.norm_b = nn.Sequential(
            nn.BatchNorm3d(inner), _Squeeze(inner) if squeeze else nn.Identity()
        )
        self.act_b = nn.SiLU()
        self.conv_c, self.norm_c = _conv(inner, cout), nn.BatchNorm3d(cout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act_a(self.norm_a(self.conv_a(x)))
        x = self.act_b(self.norm_b(self.conv_b(x)))
        return self.norm_c(self.conv_c(x))


class _Block(nn.Module):
    def __init__(self, cin: int, inner: int, cout: int, stride: int, squeeze: bool):
        super().__init__()
        # As in the reference: a shortcut is normalised if it changes width, not if it only strides.
        if stride > 1 or cin != cout:
            self.branch1_conv = _conv(cin, cout, stride=stride)
        if cin != cout:
            self.branch1_norm = nn.BatchNorm3d(cout)
        self.branch2 = _Bottleneck(cin, inner, cout, stride, squeeze)
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.branch1_conv(x) if hasattr(self, "branch1_conv") else x
        if hasattr(self, "branch1_norm"):
            shortcut = self.branch1_norm(shortcut)
        return self.activation(shortcut + self.branch2(x))


class _Stage(nn.Module):
    def __init__(self, cin: int, cout: int, depth: int):
        super().__init__()
        inner = int(EXPANSION * cout)
        # Squeeze and excitation in every other block.
        self.res_blocks = nn.Sequential(
            *(
                _Block(cout if k else cin, inner, cout, 1 if k else 2, squeeze=k % 2 == 0)
                for k in range(depth)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.res_blocks(x)


class _Stem(nn.Module):
    def __init__(self, cin: int, cout: int):
        super().__init__()
        # Names of PyTorchVideo: conv_t is the in-plane convolution.
        self.conv = nn.Module()
        self.conv.conv_t = _conv(cin, cout, (1, 3, 3), stride=2)
        self.conv.conv_xy = _conv(cout, cout, (5, 1, 1), groups=cout)
        self.norm, self.activation = nn.BatchNorm3d(cout), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(self.conv.conv_xy(self.conv.conv_t(x))))


class _Head(nn.Module):
    def __init__(self, cin: int, inner: int, classes: int, dropout: float):
        super().__init__()
        self.pool = nn.Module()
        self.pool.pre_conv, self.pool.pre_norm = _conv(cin, inner), nn.BatchNorm3d(inner)
        self.pool.post_conv = _conv(inner, HEAD_WIDTH)
        self.activation, self.dropout = nn.ReLU(), nn.Dropout(dropout)
        self.proj = nn.Linear(HEAD_WIDTH, classes)

    def unpooled(self, x: Tensor) -> Tensor:
        return self.activation(self.pool.pre_norm(self.pool.pre_conv(x)))

    def forward(self, unpooled: Tensor) -> Tensor:
        pooled = unpooled.mean((2, 3, 4), keepdim=True)  # any clip length and image size
        x = self.activation(self.pool.post_conv(pooled)).flatten(1)
        return self.proj(self.dropout(x))


class X3D(nn.Module):
    """The X3D network, with random (He) weights.

    Args:
        depth_factor: factor on the number of blocks per stage: 2.2 for XS, S and M, 5 for L.
        classes: number of outputs.
        dropout: rate before the classifier.

    Attributes:
        num_features: channels of the unpooled map (432).
    """

    def __init__(self, depth_factor: float = 2.2, classes: int = 2, dropout: float = 0.5):
        super().__init__()
        widths = (WIDTHS[0], *WIDTHS)
        depths = [ceil(depth_factor * blocks) for blocks in BLOCKS]
        self.num_features = int(EXPANSION * WIDTHS[-1])
        self.blocks = nn.ModuleList(
            [
                _Stem(3, WIDTHS[0]),
                *(_Stage(widths[k], widths[k + 1], depth) for k, depth in enumerate(depths)),
                _Head(WIDTHS[-1], self.num_features, classes, dropout),
            ]
        )
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward_features(self, clip: Tensor) -> Tensor:
        """`(B, 3, D, H, W)` -> the unpooled map `(B, 432, D, H/32, W/32)`."""
        for block in self.blocks[:-1]:
            clip = block(clip)
        return self.blocks[-1].unpooled(clip)

    def forward_head(self, unpooled: Tensor) -> Tensor:
        """The unpooled map -> logits `(B, classes)`."""
        return self.blocks[-1](unpooled)

    def forward(self, clip: Tensor) -> Tensor:
        """`(B, 3, D, H, W)` -> logits `(B, classes)`."""
        return self.forward_head(self.forward_features(clip))
