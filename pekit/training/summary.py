"""Shapes and parameters of a network's parts, without computing anything."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn

from pekit.hop import HopNet
from pekit.model.encoder import Encoder


def model_table(net: HopNet, image_size: int) -> pd.DataFrame:
    """What each part of a K-hop network gives for one stack, and how many parameters it has.

    Runs on torch's meta device: at full size in a second and no memory.

    Returns:
        A row a feature map: part, layer, shape (C, H, W), parameters (of all that the row names:
        a whole encoder or aggregator on the row `all`, a step of an aggregator on its own). Of
        hops that share weights, later passes are named, and their parameters are not counted again.
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
            # The classifier's own convolution hides the last stage's map from the pyramid.
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
    """Keeps what a module gave last."""

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
    """A part that ran before ends with its row `all`: what comes after it is another pass."""
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
