"""Study heads: a sequence model over slice features of the frozen network, beside the vote.

    head = StudyHead("gru", n_features=1280, labels=tuple(EXAM_WEIGHTS))
    slice_logits, exam_logits = head(features, probability, mask)

The paper tried LSTM, temporal CNN and transformer instead of the vote and found them "very
similar" (section III). The heads also predict the exam labels of the competition.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from pekit.common.errors import UserError, nearest

ATTENTION_HEADS = 8  # the width must be a multiple of this
_WAVES = 8  # sine and cosine pairs of the position encoding


def masked_pool(values: Tensor, mask: Tensor) -> Tensor:
    """Mean and maximum over the slices that exist: `(B, S, D)`, `(B, S)` bool -> `(B, 2 D)`."""
    exists = mask[..., None]
    mean = (values * exists).sum(dim=1) / exists.sum(dim=1)
    return torch.cat([mean, values.masked_fill(~exists, -math.inf).amax(dim=1)], dim=1)


def slice_fraction(mask: Tensor) -> Tensor:
    """Position of each slice from the lowest (0) to the highest (1): `(B, S)` bool -> `(B, S)`."""
    last = (mask.sum(dim=1, keepdim=True) - 1).clamp(min=1)
    return torch.arange(mask.shape[1], device=mask.device) / last


class Recurrent(nn.Module):
    """Bidirectional LSTM or GRU with `hidden` values in each direction."""

    def __init__(self, cell: type[nn.RNNBase], hidden: int, layers: int, dropout: float):
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.net = cell(
            hidden, hidden, layers, batch_first=True, bidirectional=True, dropout=between
        )
        self.width = 2 * hidden

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`(B, S, hidden)` -> `(B, S, 2 hidden)`; backwards from the last real slice."""
        packed = pack_padded_sequence(
            x, mask.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False
        )
        return pad_packed_sequence(self.net(packed)[0], batch_first=True, total_length=x.shape[1])[
            0
        ]


class TemporalCnn(nn.Module):
    """Residual convolutions over 3 slices, dilated by 1, 2, 4, ... layer by layer."""

    def __init__(self, hidden: int, layers: int, dropout: float):
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(layers))
        self.convs = nn.ModuleList(
            nn.Conv1d(hidden, hidden, 3, padding=2**k, dilation=2**k) for k in range(layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.width = hidden

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`(B, S, hidden)` -> `(B, S, hidden)`; padding counts as 0, as outside the ends."""
        for norm, conv in zip(self.norms, self.convs, strict=True):
            there = norm(x) * mask[..., None]
            x = x + self.dropout(F.gelu(conv(there.transpose(1, 2)).transpose(1, 2)))
        return x


class Transformer(nn.Module):
    """Transformer encoder; positions are those of `slice_fraction`."""

    def __init__(self, hidden: int, layers: int, dropout: float):
        super().__init__()
        self.place = nn.Linear(2 * _WAVES, hidden)
        layer = nn.TransformerEncoderLayer(
            hidden, ATTENTION_HEADS, 4 * hidden, dropout, F.gelu, batch_first=True, norm_first=True
        )
        self.net = nn.TransformerEncoder(
            layer, layers, norm=nn.LayerNorm(hidden), enable_nested_tensor=False
        )
        self.width = hidden

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`(B, S, hidden)` -> `(B, S, hidden)`."""
        octaves = math.pi * 2.0 ** torch.arange(_WAVES, device=x.device)
        angle = slice_fraction(mask)[..., None] * octaves
        place = self.place(torch.cat([angle.sin(), angle.cos()], dim=2))
        return self.net(x + place, src_key_padding_mask=~mask)


_BODIES: dict[str, Callable[[int, int, float], nn.Module]] = {
    "lstm": lambda *sizes: Recurrent(nn.LSTM, *sizes),
    "gru": lambda *sizes: Recurrent(nn.GRU, *sizes),
    "tcn": TemporalCnn,
    "transformer": Transformer,
}
KINDS = tuple(_BODIES)


class StudyHead(nn.Module):
    """Slice logits and exam logits from a study's slice features and slice probabilities.

    The head adds a correction, initially zero, to the slice logits of the frozen network. The exam
    logits come from the mean and maximum over the slices.

    Args:
        kind: lstm, gru, tcn or transformer.
        n_features: features per slice, F.
        labels: names of the exam labels, in the order of the logits.
        hidden: width (per direction for lstm and gru); a multiple of 8.
        layers: layers of the sequence model.
        dropout: on the input of the sequence model and inside it.

    Raises:
        UserError: an unknown kind, or a width that is not a multiple of 8.
    """

    def __init__(
        self,
        kind: str,
        n_features: int,
        labels: tuple[str, ...],
        hidden: int = 128,
        layers: int = 1,
        dropout: float = 0.1,
    ):
        super().__init__()
        if kind not in _BODIES:
            raise UserError(f"no study head {kind!r}: {nearest(kind, KINDS)}")
        if hidden % ATTENTION_HEADS:
            raise UserError(f"hidden = {hidden}: the width of a study head must be a multiple of 8")
        self.card = {
            "kind": kind,
            "n_features": n_features,
            "labels": list(labels),
            "hidden": hidden,
            "layers": layers,
            "dropout": dropout,
        }
        self.labels = tuple(labels)
        self.norm = nn.LayerNorm(n_features)
        self.reduce = nn.Linear(n_features + 1, hidden)
        self.dropout = nn.Dropout(dropout)
        self.body = _BODIES[kind](hidden, layers, dropout)
        self.slice_out = nn.Linear(self.body.width, 1)
        nn.init.zeros_(self.slice_out.weight)
        nn.init.zeros_(self.slice_out.bias)
        self.exam_out = nn.Linear(2 * (self.body.width + 1), len(labels))

    def forward(self, features: Tensor, probability: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """`(B, S, F)`, `(B, S)` in [0, 1], `(B, S)` bool -> logits `(B, S)`, `(B, labels)`.

        Slices are sorted by z; `mask` is true for real slices, false for the padding after them.
        """
        frozen = torch.logit(probability, eps=1e-4)[..., None]
        x = self.reduce(torch.cat([self.norm(features), frozen], dim=2))
        x = self.body(self.dropout(x), mask)
        slice_logits = frozen + self.slice_out(x)
        exam_logits = self.exam_out(masked_pool(torch.cat([x, slice_logits], dim=2), mask))
        return slice_logits[..., 0], exam_logits
