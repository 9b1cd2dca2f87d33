"""Settings of the stages: frozen, checked, one class a stage; an unknown or bad value names itself.

TrainSettings(image_size=96, lr=2e-3)       # what is not given has the paper's value
TrainSettings(learning_rate=1)              # UserError: no setting 'learning_rate' (lr?)
"""

from typing import Literal

from pydantic import Field, field_validator

from pekit.common.settings import Settings
from pekit.dataset.augment import AugmentSettings


class LarsSettings(Settings):
    """What LARS alone has: see `pekit.training.recipe.build_optimizer`."""

    trust: float = Field(0.001, gt=0)
    always_adapt: bool = False


class ClusterSettings(Settings):
    """Which processes train together, each on batches of its own: `devices` of each of `nodes`.

    `strategy`: auto is ddp_notebook in a notebook (forks; the kernel may not have touched a GPU or
    trained before) and ddp in a script, which then runs once for each device.
    """

    devices: int = Field(1, ge=1)
    nodes: int = Field(1, ge=1)
    strategy: Literal["auto", "ddp", "ddp_notebook"] = "auto"


class TrainSettings(Settings):
    """How a network is trained. Defaults are the paper's for PE detection (section IV).

    `positive_fraction` draws that fraction of each epoch from positive slices (None: as they come);
    `samples_per_epoch` bounds an epoch (None: every slice once); `depth` slices make a stack;
    `accumulate` batches make a step, their mean as one large batch; `save_every_s` seconds lie
    between the saves in mid-epoch from which a kill is resumed; `keep` says which epoch's weights
    count.
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
    lars: LarsSettings = LarsSettings()
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
            raise ValueError("a stack needs a middle slice: it must be odd")
        return depth


class HeadSettings(Settings):
    """A study head and how it is trained: AdamW, warm-up over a tenth of the steps, then linear."""

    kind: Literal["lstm", "gru", "tcn", "transformer"] = "gru"
    hidden: int = Field(128, ge=8, multiple_of=8)
    layers: int = Field(1, ge=1)
    dropout: float = Field(0.1, ge=0, lt=1)
    epochs: int = Field(20, ge=1)
    batch_size: int = Field(32, ge=1)
    lr: float = Field(5e-4, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    seed: int = 0
