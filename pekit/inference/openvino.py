"""Prediction by OpenVINO on a CPU, equal to PyTorch's to 1e-3, and the conversion that it needs.

Needs OpenVINO; `pip install 'pekit[export]'` brings it.
"""

import hashlib
import importlib
import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from pekit.common.errors import UserError, nearest
from pekit.common.files import read_json
from pekit.dataset.windows import SLICES
from pekit.hop import HopNet

# OpenVINO tells its maker of every import and conversion, by a process that waits for the network;
# where this package is missing, it does not.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

INPUT, OUTPUT = "stack_hu", "probability"
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}  # values: OpenVINO's names
Precision = Literal["float32", "bfloat16"]


class SliceProbabilities(nn.Module):
    """A network with its softmax: HU `(B, 3, H, W)` -> probability of PE by each hop `(B, K)`."""

    def __init__(self, net: HopNet):
        super().__init__()
        self.net = net

    def forward(self, stack_hu: Tensor) -> Tensor:
        return self.net(stack_hu).float().softmax(2)[..., 1]


class OpenVinoPredictor:
    """A network compiled by OpenVINO for this machine's CPU.

    Args:
        net: the network, on any device; it is not changed.
        image_size: side of the square images, pixels.
        precision: of the arithmetic. `float32` is equal to PyTorch; `bfloat16` is faster if the
            processor supports it, but less exact: measure the difference on trained weights first.
        exported: folder of an export of the same weights. It saves the conversion, which takes as
            long as about a thousand slices of a small network.

    Raises:
        UserError: OpenVINO is not installed, the processor does not support the precision, or the
            export has other weights or another image size or is incomplete.
    """

    def __init__(
        self,
        net: HopNet,
        image_size: int,
        precision: Precision = "float32",
        exported: Path | None = None,
    ):
        openvino = require("openvino")
        core = openvino.Core()
        if precision not in PRECISIONS:
            raise UserError(f"no precision {precision!r}: {nearest(precision, PRECISIONS)}")
        if precision == "bfloat16" and "BF16" not in core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise UserError("this processor has no bfloat16: use precision float32")
        self.backend, self.hops, self.depth = f"openvino {precision}", net.hops, net.depth
        self.net = None  # PyTorch does not run
        # By default OpenVINO uses bfloat16 if the processor supports it.
        options = {"INFERENCE_PRECISION_HINT": PRECISIONS[precision]}
        if exported is None:
            model = to_openvino(traced(net, image_size), image_size)
        else:
            model = core.read_model(_matching(Path(exported), net, image_size))
        self.compiled = core.compile_model(model, "CPU", options)

    def __call__(self, stack_hu: np.ndarray, batch_size: int = 32) -> np.ndarray:
        """`(N, 3, H, W)` HU -> `(N, K)` float32, `batch_size` stacks at a time."""
        batches = (stack_hu[at : at + batch_size] for at in range(0, len(stack_hu), batch_size))
        return np.concatenate([self.compiled(b.astype(np.float32, order="C"))[0] for b in batches])


def has_openvino() -> bool:
    """Whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def require(name: str) -> ModuleType:
    """Import an optional package.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"{name} is not installed: pip install 'pekit[export]'") from None


def traced(net: HopNet, image_size: int) -> torch.export.ExportedProgram:
    """`SliceProbabilities` of a network as a graph, for batches of any size.

    Raises:
        UserError: a network over stacks of another depth than 3.
    """
    if net.depth != SLICES:
        raise UserError(f"stacks of {net.depth} slices: only networks over {SLICES} are exported")
    # Two images, because torch would treat a batch size of 1 as a constant.
    model = SliceProbabilities(net).eval()
    device = next(net.parameters()).device
    example = torch.zeros(2, SLICES, image_size, image_size, device=device)
    batch = {INPUT: {0: torch.export.Dim("batch")}}
    with torch.no_grad():
        return torch.export.export(model, (example,), dynamic_shapes=batch)


def to_openvino(program: torch.export.ExportedProgram, image_size: int) -> Any:
    """The graph of `traced` as an OpenVINO model for square images of `image_size` pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = require("openvino").convert_model(program)
    model.reshape([-1, SLICES, image_size, image_size])
    model.input(0).get_tensor().set_names({INPUT})
    model.output(0).get_tensor().set_names({OUTPUT})
    return model


def _matching(out: Path, net: HopNet, image_size: int) -> Path:
    # The OpenVINO file of an export of this network.
    content = read_json(out / "export.json")
    state = {name: tensor.cpu().contiguous() for name, tensor in net.state_dict().items()}
    weights = f"sha256:{hashlib.sha256(save(state)).hexdigest()}"
    if (content["weights"], content["image_size"]) != (weights, image_size):
        raise UserError(f"{out} is an export of other weights or image size: export it again")
    return out / "model.xml"
