"""Training: landmark pretraining and PE detection, by Lightning.

    history = fit(net, store, split, TrainSettings(), folder=run.folder, log=run.log)

A kill is resumed by the same call: a checkpoint holds the state at the end of an epoch, and what
an epoch draws depends on its number alone.
"""

import hashlib
import logging
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import lightning
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from pekit.checkpoint import save_model
from pekit.config import TrainSettings
from pekit.dataset import EpochSampler, StackDataset, training_samples, worker_options
from pekit.errors import UserError
from pekit.hop import HopNet
from pekit.model import LandmarkNet
from pekit.modules import code_hash
from pekit.store import Store, atomic

Task = Literal["pe", "landmarks"]
Log = Callable[[dict[str, float], int], None]


def pe_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross entropy over two classes (section IV) of the last hop. logits `(B, K, 2)`."""
    return F.cross_entropy(logits[:, -1].float(), label)


def landmark_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over the landmarks that are present; absent ones are NaN. `(B, 20, 3)`."""
    present = ~target.isnan()
    error = (predicted.float() - target.nan_to_num()).square() * present
    return error.sum() / present.sum().clamp(min=1)


class LitModule(lightning.LightningModule):
    """A network, its loss, and the paper's optimiser and schedule."""

    def __init__(self, net: nn.Module, task: Task, settings: TrainSettings, steps: int):
        super().__init__()
        self.net, self.task, self.settings, self.steps = net, task, settings, steps

    def loss(self, batch: dict[str, Tensor]) -> Tensor:
        """The task's loss on a batch."""
        output = self.net(batch["stack_hu"], batch["contrast"])
        if self.task == "pe":
            return pe_loss(output, batch["label"])
        return landmark_loss(output, batch["landmarks"])

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = self.loss(batch)
        if not torch.isfinite(loss):
            raise UserError(
                f"the loss is {loss.item()} in epoch {self.current_epoch}, batch {batch_idx}: "
                "lower lr or lengthen warmup_steps"
            )
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["label"]))
        return loss

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        self.log("validation_loss", self.loss(batch), batch_size=len(batch["label"]))

    def configure_optimizers(self):
        s = self.settings
        free = [p for p in self.net.parameters() if p.requires_grad]
        options = {"fused": True} if s.optimizer == "adamw" else {}
        optimizer = create_optimizer_v2(
            free, opt=s.optimizer, lr=s.lr, weight_decay=s.weight_decay, momentum=0.9, **options
        )
        warmup = min(s.warmup_steps, self.steps // 2)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return max(0.0, (self.steps - step) / max(1, self.steps - warmup))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }


class EpochEnd(Callback):
    """After each epoch: a line for people, a row for the log, and a checkpoint to resume from."""

    def __init__(self, checkpoint: Path, samples: int, log: Log):
        self.checkpoint, self.samples, self.log_row = checkpoint, samples, log
        self.history: list[dict[str, float]] = []

    def state_dict(self) -> dict:
        """What the checkpoint keeps: the rows so far."""
        return {"history": self.history}

    def load_state_dict(self, state_dict: dict) -> None:
        """Take over the rows of a run that was cut off, and log them again."""
        self.history = list(state_dict["history"])
        print(f"resuming after epoch {len(self.history)}", flush=True)
        for row in self.history:
            self.log_row(row, row["epoch"])

    def on_train_epoch_start(self, trainer, module) -> None:
        self.started = time.monotonic()
        # Whatever else is random (dropout) depends on the epoch alone as well.
        torch.manual_seed(module.settings.seed * 10_000 + trainer.current_epoch)

    def on_train_epoch_end(self, trainer, module) -> None:
        seconds = time.monotonic() - self.started
        row = {"epoch": trainer.current_epoch + 1}
        row |= {k: float(v) for k, v in sorted(trainer.callback_metrics.items())}
        row["lr"] = trainer.optimizers[0].param_groups[0]["lr"]
        row["stacks_per_s"] = self.samples / seconds
        self.history.append(row)
        self.log_row(row, row["epoch"])
        numbers = "  ".join(f"{k} {v:.4g}" for k, v in row.items() if k != "epoch")
        print(f"epoch {row['epoch']}/{trainer.max_epochs}  {numbers}  {seconds:.0f} s", flush=True)
        with atomic(self.checkpoint) as beside:
            trainer.save_checkpoint(beside)


def data_loaders(
    store: Store, split: pd.DataFrame, task: Task, settings: TrainSettings
) -> tuple[DataLoader, DataLoader]:
    """Loaders of the training part (augmented) and of a fixed sample of the validation part.

    Raises:
        UserError: a part is empty, or has no positive slice where one is needed.
    """
    parts = {}
    for part in ("train", "validation"):
        studies = sorted(split.loc[split["part"] == part, "StudyInstanceUID"])
        if not studies:
            raise UserError(f"the split has no study in its {part} part")
        parts[part] = training_samples(store, studies, settings.stride)
    options = {"landmarks": task == "landmarks", "z_scale": settings.z_scale}
    train = StackDataset(
        store, parts["train"], settings.image_size, augment=settings.augment, **options
    )
    validation = StackDataset(store, parts["validation"], settings.image_size, **options)
    sampler = EpochSampler(
        train.label,
        settings.samples_per_epoch,
        settings.positive_fraction if task == "pe" else None,
        settings.seed,
    )
    keep = min(settings.validation_samples, len(validation))
    spread = np.linspace(0, len(validation) - 1, keep).round().astype(int).tolist()
    loader = {
        "batch_size": settings.batch_size,
        "pin_memory": torch.cuda.is_available(),
        **worker_options(settings.workers),
    }
    if len(sampler) < settings.batch_size:
        raise UserError(
            f"an epoch has {len(sampler)} samples, less than batch_size = {settings.batch_size}: "
            "lower it"
        )
    return (
        DataLoader(train, sampler=sampler, drop_last=True, **loader),
        DataLoader(Subset(validation, spread), **loader),
    )


def fit(
    net: HopNet | LandmarkNet,
    store: Store,
    split: pd.DataFrame,
    settings: TrainSettings,
    folder: Path,
    log: Log,
) -> pd.DataFrame:
    """Train `net` on the split's training part and save it as `folder/model`.

    A HopNet learns PE, a LandmarkNet the landmarks. The weights after the last epoch are kept: the
    validation loss is logged and chooses nothing. A run that was cut off is resumed after its last
    whole epoch, if network, data, settings and code are the same.

    Args:
        net: the network to train, in place; afterwards in evaluation mode.
        split: StudyInstanceUID and part (train, validation).
        folder: where `model/` is written, and `resume-<key>.ckpt` until then.
        log: takes a row of numbers and the epoch.

    Returns:
        A row an epoch: epoch, train_loss, validation_loss, lr, stacks_per_s.

    Raises:
        UserError: empty parts or classes, a loss that is not finite, no GPU where one is asked.
    """
    if settings.device == "gpu" and not torch.cuda.is_available():
        raise UserError("device = gpu, but torch sees none: set device to auto or cpu")
    # Lightning's tips and notices would drown the line an epoch.
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    task: Task = "landmarks" if isinstance(net, LandmarkNet) else "pe"
    train, validation = data_loaders(store, split, task, settings)
    steps = settings.epochs * -(-len(train) // settings.accumulate)
    checkpoint = Path(folder) / f"resume-{_key(net, store, split, settings)}.ckpt"
    lightning.seed_everything(settings.seed, verbose=False)
    # Lightning keeps the mode that the network is in: loaded ones come in evaluation mode.
    net.to(memory_format=torch.channels_last).train()
    epoch_end = EpochEnd(checkpoint, len(train) * settings.batch_size, log)
    trainer = lightning.Trainer(
        accelerator={"auto": "auto", "cpu": "cpu", "gpu": "cuda"}[settings.device],
        devices=1,
        precision=settings.precision,
        max_epochs=settings.epochs,
        accumulate_grad_batches=settings.accumulate,
        callbacks=[epoch_end],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")  # frozen hops
        warnings.filterwarnings("ignore", r".*LeafSpec", category=FutureWarning)  # Lightning's own
        trainer.fit(
            LitModule(net, task, settings, steps),
            train,
            validation,
            ckpt_path=checkpoint if checkpoint.exists() else None,
            weights_only=True,
        )
    net.cpu().eval()
    save_model(Path(folder) / "model", net, settings.image_size)
    for leftover in Path(folder).glob("resume-*.ckpt"):
        leftover.unlink()
    return pd.DataFrame(epoch_end.history)


def _key(net: nn.Module, store: Store, split: pd.DataFrame, settings: TrainSettings) -> str:
    # What a run is a function of: another key never resumes this one's checkpoint.
    content = hashlib.sha256(settings.model_dump_json().encode())
    content.update(str(store.settings).encode())
    content.update(code_hash(Path(__file__).parent.glob("*.py")).encode())
    content.update(split.to_csv(index=False).encode())
    for name, tensor in net.state_dict().items():
        content.update(f"{name} {tuple(tensor.shape)} {tensor.double().sum().item()!r}".encode())
    return content.hexdigest()[:12]
