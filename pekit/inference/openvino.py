"""Prediction by OpenVINO on a CPU, with the same numbers as PyTorch."""

import hashlib
import importlib
import importlib.util
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from pekit.common.errors import UserError
from pekit.common.files import read_json
from pekit.dataset.windows import SLICES
from pekit.hop import HopNet

INPUT, OUTPUT = "stack_hu", "probability"
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}  # by OpenVINO's names
Precision = Literal["float32", "bfloat16"]


class SliceProbabilities(nn.Module):
    """The softmax inside: HU `(B, 3, H, W)` -> each hop's probability of PE `(B, K)`."""

    def __init__(self, net: HopNet):
        super().__init__()
        self.net = net

    def forward(self, stack_hu: Tensor) -> Tensor:
        return self.net(stack_hu).float().softmax(2)[..., 1]


class OpenVinoPredictor:
    """A network compiled by OpenVINO for this machine's CPU; `pekit.inference.predict` calls it.

    Args:
        net: the network; it is not changed, whatever device it is on.
        image_size: side of the images that it will see, pixels.
        precision: of the arithmetic. `float32` gives PyTorch's numbers; `bfloat16` is faster where
            the processor has it, and less exact: check the drift on trained weights first.
        exported: folder of an export of the same weights; it spares the conversion, which takes
            as long as some thousand slices by a small network.

    Raises:
        UserError: OpenVINO is not installed, the processor lacks the precision, or the export is
            of other weights or another image size, or unfinished.
    """

    def __init__(
        self,
        net: HopNet,
        image_size: int,
        precision: Precision = "float32",
        exported: Path | None = None,
    ):
        openvino = _optional("openvino")
        core = openvino.Core()
        if precision not in PRECISIONS:
            raise UserError(f"precision '{precision}' is unknown: choose {' or '.join(PRECISIONS)}")
        if precision == "bfloat16" and "BF16" not in core.get_property(
            "CPU", "OPTIMIZATION_CAPABILITIES"
        ):
            raise UserError("this processor has no bfloat16: use precision float32")
        self.backend, self.hops, self.depth = f"openvino {precision}", net.hops, net.depth
        # Left to itself OpenVINO takes bfloat16 where the processor has it.
        options = {"INFERENCE_PRECISION_HINT": PRECISIONS[precision]}
        if exported is None:
            model = _to_openvino(_traced(net, image_size), image_size)
        else:
            model = core.read_model(_matching(Path(exported), net, image_size))
        self.compiled = core.compile_model(model, "CPU", options)

    def __call__(self, stack_hu: np.ndarray) -> np.ndarray:
        """`(B, 3, H, W)` HU -> `(B, K)` float32."""
        return self.compiled(stack_hu.astype(np.float32))[0]


def has_openvino() -> bool:
    """Whether OpenVINO is installed."""
    return importlib.util.find_spec("openvino") is not None


def _optional(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UserError(f"{name} is not installed: pip install 'pekit[export]'") from None


def _matching(out: Path, net: HopNet, image_size: int) -> Path:
    """The OpenVINO file of an export of just this network."""
    content = read_json(out / "export.json")
    state = {name: tensor.cpu().contiguous() for name, tensor in net.state_dict().items()}
    weights = f"sha256:{hashlib.sha256(save(state)).hexdigest()}"
    if (content["weights"], content["image_size"]) != (weights, image_size):
        raise UserError(f"{out} is an export of other weights or image size: export it again")
    return out / "model.xml"


def _traced(net: HopNet, image_size: int) -> torch.export.ExportedProgram:
    if net.depth != SLICES:
        raise UserError(f"stacks of {net.depth} slices: only networks over {SLICES} are exported")
    # Two images: a batch of one would be taken for a constant.
    model = SliceProbabilities(net).eval()
    device = next(net.parameters()).device
    example = torch.zeros(2, SLICES, image_size, image_size, device=device)
    batch = {INPUT: {0: torch.export.Dim("batch")}}
    with torch.no_grad():
        return torch.export.export(model, (example,), dynamic_shapes=batch)


def _to_openvino(traced: torch.export.ExportedProgram, image_size: int) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = _optional("openvino").convert_model(traced)
    model.reshape([-1, SLICES, image_size, image_size])
    model.input(0).get_tensor().set_names({INPUT})
    model.output(0).get_tensor().set_names({OUTPUT})
    return model
