"""Make a synthetic CT pulmonary angiogram with its truth: `make_phantom(seed, config)`.

Clots, mimics, motion and noise are added to a healthy body. The labels follow from what was
painted, by the label rules of the RSNA data. The same seed and config give the same phantom.
"""

from dataclasses import dataclass

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass
from scipy import ndimage

from data_prep.phantom.body import LANDMARKS_MM, LUNG_TOP_MM, Contrast, paint_body
from data_prep.phantom.disease import CENTRAL, add_clots, add_mimics, add_motion, label_slices
from data_prep.phantom.habitus import draw_habitus
from data_prep.phantom.vessels import Grid, Tube
from pekit.dataset.schema import EXAM_LABELS, LANDMARKS


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class PhantomConfig:
    """Settings of the phantoms.

    Attributes:
        shape: (Z, Y, X) voxels.
        difficulty: at 1 a small network learns the task in minutes; above 1 clots are fewer and
            smaller, mimics more frequent, noise stronger; below 1 the reverse.
        pe_fraction: share of studies with PE.
        indeterminate_fraction: share of studies made unreadable by motion or missing contrast.
        mimic_fraction: share of studies with nodules, flow artefacts or other filling defects.
        noise_hu: standard deviation of the noise, HU.
        variety: how much the position of organs differs between patients; at 0 only their size
            differs.
    """

    shape: tuple[int, int, int] = (48, 128, 128)
    difficulty: float = Field(1.0, gt=0, le=10)
    pe_fraction: float = Field(0.4, ge=0, le=1)
    indeterminate_fraction: float = Field(0.02, ge=0, le=1)
    mimic_fraction: float = Field(0.3, ge=0, le=1)
    noise_hu: float = Field(25.0, ge=0, le=200)
    variety: float = Field(1.0, ge=0, le=2)

    def __post_init__(self):
        if min(self.shape) < 8 or min(self.shape[1:]) < 64:
            raise ValueError(f"shape {self.shape}: must be at least 8 slices of 64 x 64 voxels")
        if self.pe_fraction + self.indeterminate_fraction > 1:
            raise ValueError(
                f"pe_fraction {self.pe_fraction} + indeterminate_fraction "
                f"{self.indeterminate_fraction} must not exceed 1: lower one of them"
            )


@dataclass(frozen=True)
class Phantom:
    """A synthetic study and its truth.

    Attributes:
        hu: (Z, Y, X) int16 HU; z grows to the head, y to the back, x to the patient's left.
        spacing_mm, origin_mm: (z, y, x), LPS.
        lung, heart, clot, artery: (Z, Y, X) bool masks.
        landmarks_mm: name -> (z, y, x) LPS mm, or None if it is outside the volume.
        exam_labels: the exam columns of train.csv, 0 or 1.
        slice_labels: (Z,) uint8, label pe_present_on_image.
    """

    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    lung: np.ndarray
    heart: np.ndarray
    clot: np.ndarray
    artery: np.ndarray
    landmarks_mm: dict[str, tuple[float, float, float] | None]
    exam_labels: dict[str, int]
    slice_labels: np.ndarray


@dataclass(frozen=True)
class _Plan:
    """Findings of a study, drawn before anything is painted."""

    kind: str  # negative | positive | indeterminate
    motion: float  # 0, or the shift in mm
    weak_contrast: bool
    nodules: bool
    flow: bool
    other_defect: bool
    chronic: str  # "" | chronic | mixed
    rv_lv: float


def make_phantom(seed: int, config: PhantomConfig | None = None) -> Phantom:
    """Make one synthetic study.

    Args:
        seed: random seed, not negative; seed and `config` determine the study.
        config: settings; the defaults if None.
    """
    config = config or PhantomConfig()
    rng = np.random.default_rng(seed)
    grid = _draw_grid(rng, config)
    plan = _draw_plan(rng, config)
    blood = _draw_contrast(rng, plan)
    body = paint_body(grid, rng, blood, plan.rv_lv)
    clot = np.zeros(grid.shape, bool)
    places: list[Tube] = []
    if plan.kind == "positive":
        places = add_clots(body, clot, rng, config.difficulty, plan.chronic)
    add_mimics(body, clot, rng, nodules=plan.nodules, flow=plan.flow, defect=plan.other_defect)
    hu = ndimage.gaussian_filter(body.hu, (0.4, 0.6, 0.6), truncate=3.0)
    if plan.motion:
        add_motion(hu, rng, plan.motion / grid.spacing_mm[1])
    noise = config.noise_hu * config.difficulty**0.5
    hu += np.float32(noise) * rng.standard_normal(grid.shape, dtype=np.float32)
    return Phantom(
        hu=np.rint(hu, out=hu).clip(-1024, 3071).astype(np.int16),
        spacing_mm=tuple(grid.spacing_mm.tolist()),
        origin_mm=tuple(grid.origin_mm.tolist()),
        lung=body.lung,
        heart=body.heart,
        clot=clot,
        artery=body.artery,
        landmarks_mm={name: grid.to_world(LANDMARKS_MM[name]) for name in LANDMARKS},
        exam_labels=_exam_labels(plan, places),
        slice_labels=label_slices(clot),
    )


def _draw_grid(rng: np.random.Generator, config: PhantomConfig) -> Grid:
    """Draw size and habitus of a patient, and size and position of the field of view."""
    shape = config.shape
    scale = float(np.clip(rng.normal(1.0, 0.05), 0.88, 1.12))
    width = rng.uniform(345, 375) * scale**0.5
    height = rng.uniform(250, 325)
    # The scan begins slightly above the lungs; its random height determines where it ends.
    habitus = draw_habitus(rng, config.variety)
    top = scale * (float(habitus.to_patient(LUNG_TOP_MM, 0)) + rng.uniform(2, 24))
    spacing = np.round([height / shape[0], width / shape[1], width / shape[2]], 4)
    origin = np.round([rng.uniform(-400, 0), *rng.normal(-width / 2, 15, 2)], 2)
    shift = origin + (np.array(shape) - 1) * spacing / 2 + [0, *rng.normal(0, 7, 2)]
    shift[0] = origin[0] + height - top
    return Grid(tuple(shape), spacing, origin, shift, scale, habitus)


def _draw_plan(rng: np.random.Generator, config: PhantomConfig) -> _Plan:
    """Draw kind of study, mimics and quality, at about the frequencies of the RSNA data."""
    draw = rng.random()
    kind = "positive" if draw < config.pe_fraction else "negative"
    if 1 - draw <= config.indeterminate_fraction:
        kind = "indeterminate"
    moved = rng.random() < 0.4
    motion = rng.uniform(5, 8) if rng.random() < 0.02 else 0.0
    weak = rng.random() < 0.02
    if kind == "indeterminate":
        motion, weak = (rng.uniform(18, 26), False) if moved else (0.0, True)
    # Shares of the three mimics: about `mimic_fraction` of the studies has at least one.
    share = min(config.mimic_fraction * config.difficulty, 1.0)
    nodules, flow, other = rng.random(3) < share * np.array((0.65, 0.4, 0.07))
    chronic = str(rng.choice(["", "chronic", "mixed"], p=[0.8, 0.133, 0.067]))
    strained = kind == "positive" and rng.random() < 0.43
    rv_lv = rng.uniform(1.08, 1.5) if strained else rng.uniform(0.6, 0.93)
    return _Plan(kind, motion, weak, *map(bool, (nodules, flow, other)), chronic, rv_lv)


def _draw_contrast(rng: np.random.Generator, plan: _Plan) -> Contrast:
    """Draw the HU of the blood: early or late bolus, weak or missing contrast."""
    artery = float(np.clip(rng.normal(350, 50), 240, 520))
    vein = float(np.clip(rng.normal(185, 30), 110, 260))
    aorta = float(np.clip(rng.normal(205, 40), 110, 330))
    cava = artery + rng.uniform(0, 250)
    if plan.weak_contrast and plan.kind == "indeterminate":
        artery, vein, aorta, cava = (rng.uniform(45, 75) for _ in range(4))
    elif plan.weak_contrast:
        artery, cava = rng.uniform(215, 240), rng.uniform(240, 300)
    return Contrast(artery, vein, aorta, cava)


def _exam_labels(plan: _Plan, places: list[Tube]) -> dict[str, int]:
    """Exam columns of train.csv, consistent with the label rules of the RSNA data."""
    positive = plan.kind == "positive"
    labels = dict.fromkeys(EXAM_LABELS, 0)
    labels |= {
        "negative_exam_for_pe": plan.kind == "negative",
        "indeterminate": plan.kind == "indeterminate",
        "qa_motion": plan.motion > 0,
        "qa_contrast": plan.weak_contrast,
        "flow_artifact": plan.flow,
        "true_filling_defect_not_pe": plan.other_defect,
        "rv_lv_ratio_gte_1": positive and plan.rv_lv >= 1,
        "rv_lv_ratio_lt_1": positive and plan.rv_lv < 1,
        "chronic_pe": positive and plan.chronic == "chronic",
        "acute_and_chronic_pe": positive and plan.chronic == "mixed",
        "central_pe": any(tube.level in CENTRAL for tube in places),
        "leftsided_pe": any(tube.side == "left" for tube in places),
        "rightsided_pe": any(tube.side == "right" for tube in places),
    }
    return {name: int(value) for name, value in labels.items()}
