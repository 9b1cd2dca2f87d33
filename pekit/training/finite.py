"""A loss that is not finite ends a training, in all its processes, before it changes a weight."""

import itertools
import math

import torch
from lightning_fabric import Fabric
from torch import Tensor

from pekit.common.errors import UserError
from pekit.dataset.schema import public_uid
from pekit.dataset.stacks import StackDataset


def finite_losses(
    fabric: Fabric,
    losses: list[Tensor],
    drawn: list[Tensor],
    dataset: StackDataset,
    epoch: int,
    first: int,
) -> list[float]:
    """The losses of an optimiser step's batches in this process, as numbers.

    The device is waited for once per step, not once per batch. Every process sees the losses of
    all: where one is not finite, all raise the same error, and none waits for another for ever.

    Args:
        fabric: all its processes must call this, with equally many batches of the same size.
        losses: scalar loss of each batch, on the device.
        drawn: `(B,)` index in `dataset` of each batch's samples.
        epoch: number of the epoch, from 1.
        first: number of the first of these batches within the epoch, from 0.

    Raises:
        UserError: a loss is not finite; the message names the slices of its batch.
    """
    world = fabric.world_size
    values = _of_all(fabric, torch.stack(losses)).tolist()
    for rank, place in itertools.product(range(world), range(len(losses))):
        value = values[rank][place]
        if math.isfinite(value):
            continue
        indices = _of_all(fabric, torch.stack(drawn).to(fabric.device))[rank, place]
        found = map(dataset.slice_of, indices.tolist())
        slices = ", ".join(f"{public_uid(study)} z {z}" for study, z in found)
        process = f" of process {rank + 1} of {world}" if world > 1 else ""
        raise UserError(
            f"the loss is {value} in epoch {epoch}, batch {first + place + 1}{process}; it "
            "changed no weight. Lower lr, raise warmup_steps, or check the batch's slices: "
            f"{slices}"
        )
    return values[fabric.global_rank]


def _of_all(fabric: Fabric, own: Tensor) -> Tensor:
    """The tensors of all processes, stacked. A sum, because NaN and 0 make NaN."""
    everyone = own.new_zeros(fabric.world_size, *own.shape)
    everyone[fabric.global_rank] = own
    return fabric.all_reduce(everyone, reduce_op="sum")
