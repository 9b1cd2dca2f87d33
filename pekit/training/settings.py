"""Settings of a training; defaults are the paper's (section IV).

TrainSettings(image_size=96, lr=2e-3)
TrainSettings(learning_rate=1)      # UserError: no setting 'learning_rate'; choose one of ...
"""

from typing import Literal

from pydantic import Field, field_validator

from pekit.common.settings import Settings
from pekit.dataset.augment import AugmentSettings


class ClusterSettings(Settings):
    """Processes that train together, each on its own batches: `devices` on this machine.

    `strategy`: auto is ddp_notebook in a notebook (it forks, so the kernel must not have used a GPU
    or trained before) and ddp in a script, which then runs once per device.
    """

    devices: int = Field(1, ge=1)
    nodes: int = 1
    strategy: Literal["auto", "ddp", "ddp_notebook"] = "auto"

    @field_validator("nodes")
    @classmethod
    def _one(cls, nodes: int) -> int:
        if nodes != 1:
            raise ValueError("a notebook trains on one machine: set nodes = 1 and raise devices")
        return nodes


class TrainSettings(Settings):
    """Settings of a training. Defaults are the paper's for PE detection (section IV).

    Attributes:
        depth: slices in a 2.5D stack (a slice with its neighbours as channels).
        accumulate: batches per optimiser step, equal to one large batch.
        samples_per_epoch: None: every slice once.
        positive_fraction: fraction of positive slices among the samples; None: natural prevalence.
        stride: use every so many slices of a study.
        lars_trust: trust coefficient of LARS, see `pekit.training.recipe.build_optimizer`.
        encoder_lr: factor on the learning rate of encoders; new layers learn at `lr`.
        validation_samples: validation uses at most so many slices.
        z_scale: slices by which a landmark's z distance is divided.
        workers: processes that load data.
        keep: epoch whose weights are the result; best: lowest validation loss.
        save_every_s: seconds between checkpoints within an epoch.
    """

    image_size: int = Field(576, ge=32)
    depth: int = Field(3, ge=1)
    batch_size: int = Field(16, ge=1)
    accumulate: int = Field(1, ge=1)
    epochs: int = Field(10, ge=1)
    samples_per_epoch: int | None = Field(None, ge=1)
    positive_fraction: float | None = Field(None, gt=0, lt=1)
    stride: int = Field(1, ge=1)
    optimizer: Literal["lars", "sgd", "adamw"] = "lars"
    lr: float = Field(0.003, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    lars_trust: float = Field(0.001, gt=0)
    encoder_lr: float = Field(1.0, ge=0, le=1)
    warmup_steps: int = Field(1000, ge=0)
    validation_samples: int = Field(2000, ge=1)
    z_scale: float = Field(600.0, gt=0)
    workers: int = Field(2, ge=0)
    keep: Literal["last", "best"] = "last"
    save_every_s: float = Field(600.0, ge=0)
    device: Literal["auto", "cpu", "gpu"] = "auto"
    cluster: ClusterSettings = ClusterSettings()
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    seed: int = 0
    augment: AugmentSettings = AugmentSettings()

    @field_validator("depth")
    @classmethod
    def _odd(cls, depth: int) -> int:
        if depth % 2 == 0:
            raise ValueError("it must be odd, so that a stack has a middle slice")
        return depth


class HeadSettings(Settings):
    """A study head and its training: AdamW, warm-up in a tenth of the steps, then linear decay."""

    kind: Literal["lstm", "gru", "tcn", "transformer"] = "gru"
    hidden: int = Field(128, ge=8, multiple_of=8)
    layers: int = Field(1, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    epochs: int = Field(20, ge=1)
    batch_size: int = Field(32, ge=1)
    lr: float = Field(5e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    seed: int = 0
