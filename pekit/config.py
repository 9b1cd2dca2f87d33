"""Settings of the stages: frozen, checked, one class a stage; an unknown or bad value names itself.

TrainSettings(image_size=96, lr=2e-3)       # what is not given has the paper's value
TrainSettings(learning_rate=1)              # UserError: no setting 'learning_rate' (lr?)
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pekit.errors import UserError, do_you_mean


class Settings(BaseModel):
    """Base of all settings: frozen, no unknown names, no silent conversion.

    Raises:
        UserError: an unknown name (near names are offered) or a value of the wrong type or range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    def __init__(self, **values):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError(self._explain(error)) from None

    @classmethod
    def _explain(cls, error: ValidationError) -> str:
        lines = []
        for problem in error.errors():
            name = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                near = do_you_mean(name, sorted(cls.model_fields))
                lines.append(f"no setting '{name}' {near}")
            else:
                lines.append(f"{name} = {problem['input']!r}: {problem['msg']}")
        return f"{cls.__name__}: " + "; ".join(lines)


class AugmentSettings(Settings):
    """Augmentation of a stack, all slices alike, in the paper's order (section IV)."""

    contrast: float = Field(0.2, ge=0, lt=1)
    shift: float = Field(0.2, ge=0, lt=1)
    scale: float = Field(0.2, ge=0, lt=1)
    rotate_deg: float = Field(45.0, ge=0, le=180)
    cutout_holes: int = Field(2, ge=0)
    cutout_size: float = Field(0.4, ge=0, lt=1)


class LarsSettings(Settings):
    """What LARS alone has: see `pekit.recipe.build_optimizer`."""

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
