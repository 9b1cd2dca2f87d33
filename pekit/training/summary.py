"""Shapes and parameters of a network's parts, without computing anything."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from pekit.hop import HopNet
from pekit.model.encoder import Encoder


def model_table(net: HopNet, image_size: int) -> pd.DataFrame:
    """Feature maps of a K-hop network for one 2.5D stack, and parameters of its parts.

    Runs on torch's meta device: at full size it takes a second and no memory.

    Returns:
        One row per feature map: part, layer, shape (C, H, W), parameters (of a step of an
        aggregator; of a whole encoder or aggregator in its row `all`). Where hops share weights,
        the second and later passes have rows of their own, and no parameters.
    """
    rows: list[dict[str, Any]] = []
    handles = []

    def watch(part: str, layer: str, module: nn.Module) -> None:
        def note(_module: nn.Module, _inputs: tuple, output: Tensor) -> None:
            rows.append(_row(part, layer, output, _count(module)))

        handles.append(module.register_forward_hook(note))

    watch("windows", "all", net.windows)
    for k, encoder in enumerate(net.encoders, start=1):
        stage = _Stage()
        if isinstance(encoder, Encoder):
            # The pyramid ends with the classifier's convolution, not with the last stage's map.
            last = encoder.net.get_submodule(encoder.net.feature_info[-1]["module"])
            handles.append(last.register_forward_hook(stage))
        handles.append(encoder.register_forward_hook(_pyramid(rows, f"encoder {k}", stage)))
    for k, aggregator in enumerate(net.aggregators, start=1):
        for n, step in enumerate(aggregator.steps, start=1):
            watch(f"aggregator {k}", f"step {n}, before upsampling", step)
        watch(f"aggregator {k}", "all", aggregator)
    state = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    state = {name: torch.empty_like(tensor, device="meta") for name, tensor in state.items()}
    stack = torch.empty(1, net.depth, image_size, image_size, device="meta")
    training = net.training
    try:
        with torch.no_grad():
            torch.func.functional_call(net.eval(), state, (stack,))
    finally:
        net.train(training)
        for handle in handles:
            handle.remove()
    _name_passes(rows)
    return pd.DataFrame(rows).astype({"parameters": "Int64"})


class _Stage:
    """Keeps the last output of a module."""

    output: Tensor | None = None

    def __call__(self, _module: nn.Module, _inputs: tuple, output: Tensor) -> None:
        self.output = output


def _pyramid(rows: list[dict[str, Any]], part: str, stage: _Stage) -> Callable:
    def note(encoder: nn.Module, _inputs: tuple, output: tuple[Tensor, list[Tensor]]) -> None:
        logits, features = output
        for stride, feature in zip(encoder.strides, features, strict=True):
            rows.append(_row(part, f"stride {stride}", feature, None))
        if stage.output is not None:
            rows.insert(-1, _row(part, "last stage", stage.output, None))
        rows.append(_row(part, "all", logits, _count(encoder)))

    return note


def _name_passes(rows: list[dict[str, Any]]) -> None:
    """Name the second and later passes of a part; a pass ends with the row `all`."""
    done: dict[str, int] = {}
    for row in rows:
        part, ends = row["part"], row["layer"] == "all"
        if part in done:
            row |= {"part": f"{part}, pass {done[part] + 1}", "parameters": None}
        if ends:
            done[part] = done.get(part, 0) + 1


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def _row(part: str, layer: str, output: Tensor, parameters: int | None) -> dict[str, Any]:
    shape = tuple(output.shape[1:])
    return {"part": part, "layer": layer, "shape": shape, "parameters": parameters}
