"""Shapes and parameters of a network's parts, without computing anything."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from pekit.hop import HopNet
from pekit.windows import SLICES


def model_table(net: HopNet, image_size: int) -> pd.DataFrame:
    """What each part of a K-hop network gives for one stack, and how many parameters it has.

    Runs on torch's meta device: at full size in a second and no memory.

    Returns:
        A row a feature map: part, layer, shape (C, H, W), parameters (of all that the row names:
        a whole encoder or aggregator on the row `all`, a step of an aggregator on its own).
    """
    rows: list[dict[str, Any]] = []
    handles = []

    def watch(part: str, layer: str, module: nn.Module, parameters: bool) -> None:
        def note(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            rows.append(_row(part, layer, output, _count(module) if parameters else None))

        handles.append(module.register_forward_hook(note))

    watch("windows", "all", net.windows, True)
    for k, encoder in enumerate(net.encoders, start=1):
        # The classifier's own convolution hides the last stage's map from the pyramid.
        stage = encoder.net.get_submodule(encoder.net.feature_info[-1]["module"])
        watch(f"encoder {k}", "last stage", stage, False)
        handles.append(encoder.register_forward_hook(_pyramid(rows, f"encoder {k}")))
    for k, aggregator in enumerate(net.aggregators, start=1):
        for n, step in enumerate(aggregator.steps, start=1):
            watch(f"aggregator {k}", f"step {n}, before upsampling", step, True)
        watch(f"aggregator {k}", "all", aggregator, True)
    state = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    state = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    stack = torch.empty(1, SLICES, image_size, image_size, device="meta")
    training = net.training
    try:
        with torch.no_grad():
            torch.func.functional_call(net.eval(), state, (stack,))
    finally:
        net.train(training)
        for handle in handles:
            handle.remove()
    table = pd.DataFrame(rows)
    return table.astype({"parameters": "Int64"})


def _pyramid(rows: list[dict[str, Any]], part: str) -> Callable:
    def note(encoder: nn.Module, _inputs: tuple, output: tuple[Tensor, list[Tensor]]) -> None:
        logits, features = output
        last_stage = rows.pop()
        for stride, feature in zip(encoder.strides, features, strict=True):
            rows.append(_row(part, f"stride {stride}", feature, None))
        rows.insert(-1, last_stage)
        rows.append(_row(part, "all", logits, _count(encoder)))

    return note


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _row(part: str, layer: str, output: Tensor, parameters: int | None) -> dict[str, Any]:
    shape = tuple(output.shape[1:])
    return {"part": part, "layer": layer, "shape": shape, "parameters": parameters}
