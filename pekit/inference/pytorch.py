"""Prediction by PyTorch: on a GPU in the precision of the training, from pinned memory."""

import numpy as np
import torch

from pekit.hop import HopNet


class TorchPredictor:
    """Prediction by PyTorch, on the device of the network.

    Args:
        net: the network.
        bf16: whether to run in mixed precision (autocast to bfloat16). None: on a GPU, if the
            network was trained so.
    """

    def __init__(self, net: HopNet, bf16: bool | None = None):
        self.net, self.hops, self.depth = net.eval(), net.hops, net.depth
        self.device = next(net.parameters()).device
        on_gpu = self.device.type == "cuda"
        self.bf16 = on_gpu and net.precision == "bf16-mixed" if bf16 is None else bf16
        self.backend = f"torch {self.device.type}{' bf16' if self.bf16 else ''}"

    @torch.inference_mode()
    def __call__(self, stack_hu: np.ndarray, batch_size: int = 32) -> np.ndarray:
        starts = range(0, len(stack_hu), batch_size)
        # The results stay on the device until the end: a GPU works while the next batch is made.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = [self.net(self._moved(stack_hu[at : at + batch_size])) for at in starts]
        return torch.cat(logits).float().softmax(2)[..., 1].cpu().numpy()

    def _moved(self, stack_hu: np.ndarray) -> torch.Tensor:
        overlapping = torch.from_numpy(stack_hu)
        # From pinned memory, a copy to the GPU does not wait for the batches before it.
        pinned = self.device.type == "cuda"
        batch = torch.empty(overlapping.shape, dtype=overlapping.dtype, pin_memory=pinned)
        batch = batch.copy_(overlapping).to(self.device, non_blocking=True)
        return batch.to(memory_format=self.net.memory_format)
