"""The paper's recipe: losses, optimiser and learning rate at each step (section IV)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pekit.training.settings import TrainSettings


def pe_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross entropy of the last hop over two classes (section IV). logits `(B, K, 2)`."""
    return F.cross_entropy(logits[:, -1].float(), label)


def landmark_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over the present landmarks `(B, 20, 3)`; absent ones are NaN."""
    present = ~target.isnan()
    error = (predicted.float() - target.nan_to_num()).square() * present
    return error.sum() / present.sum().clamp(min=1)


def batch_loss(net: nn.Module, batch: dict[str, Tensor], task: str) -> Tensor:
    """Loss of a batch of `StackDataset`; `task` is `pe` or `landmarks`."""
    output = net(batch["stack_hu"], batch["contrast"])
    if task == "pe":
        return pe_loss(output, batch["label"])
    return landmark_loss(output, batch["landmarks"])


def build_optimizer(net: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """timm's optimiser of that name for the trainable parameters, with momentum 0.9.

    `sgd` has Nesterov momentum. `lars` scales a layer's step by `lars_trust` |weights| /
    |gradient|; biases and norms are left out, as published (You et al. 2017). The paper states
    none of this.

    A group of parameters has `lr_scale`, the factor on the learning rate of its step: that of the
    encoders is `settings.encoder_lr`, that of all others 1.
    """
    from timm.optim import create_optimizer_v2

    options = {
        "adamw": {"fused": True},
        "lars": {"trust_coeff": settings.lars_trust},
        "sgd": {},
    }
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    slow = _encoder_parameters(net) if settings.encoder_lr != 1 else set()
    for parameter in net.parameters():
        if parameter.requires_grad:
            adapts = settings.optimizer == "lars" and parameter.ndim > 1
            groups.setdefault((parameter in slow, adapts), []).append(parameter)
    return create_optimizer_v2(
        [
            {
                "params": members,
                "lr_scale": settings.encoder_lr if is_slow else 1.0,
                **({"always_adapt": True} if adapts else {}),
            }
            for (is_slow, adapts), members in groups.items()
        ],
        opt=settings.optimizer,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        momentum=0.9,
        **options[settings.optimizer],
    )


def _encoder_parameters(net: nn.Module) -> set[nn.Parameter]:
    """Parameters of the encoders without their classifiers, which are new."""
    encoders = net.encoders if hasattr(net, "encoders") else [net.encoder]
    return {
        parameter
        for encoder in encoders
        for name, parameter in encoder.named_parameters()
        if not name.startswith(encoder.classifiers)
    }


def learning_rate(step: int, steps: int, settings: TrainSettings) -> float:
    """Learning rate of optimiser step `step` of `steps`: linear warm-up, then linear to 0.

    The warm-up is at most half of the training, so that a short training still reaches the full
    learning rate.
    """
    warmup = min(settings.warmup_steps, steps // 2)
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    return settings.lr * max(0.0, (steps - step) / max(1, steps - warmup))
