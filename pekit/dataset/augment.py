"""The paper's augmentation of a stack (section IV), in one pass over the stored slices.

Contrast; shift, scale and rotation; two cut-outs: order, ranges and meaning are those of
Albumentations' RandomBrightnessContrast, Affine and (of the paper's time) Cutout; tests compare
with it.
Resizing and the affine transform are one OpenCV warp of the stored HU, so that an image is
interpolated once. All slices of a stack get the same parameters.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from pydantic import Field

from pekit.common.settings import Settings
from pekit.dataset.schema import OUTSIDE_HU

BORDERS = {"air": cv2.BORDER_CONSTANT, "reflect": cv2.BORDER_REFLECT_101}


class AugmentSettings(Settings):
    """Ranges of the augmentation, in the paper's order (section IV).

    Attributes:
        cutout_size: side of a cut-out, as a fraction of the image's side.
        border: what lies beyond the image where it is moved: `air`, or its reflection, which is
            Albumentations' default and so what the paper's call implies.
    """

    contrast: float = Field(0.2, ge=0, lt=1)
    shift: float = Field(0.2, ge=0, lt=1)
    scale: float = Field(0.2, ge=0, lt=1)
    rotate_deg: float = Field(45.0, ge=0, le=180)
    cutout_holes: int = Field(2, ge=0)
    cutout_size: float = Field(0.4, ge=0, lt=1)
    border: Literal["air", "reflect"] = "air"


@dataclass(frozen=True)
class Draw:
    """Augmentation parameters of one sample.

    Attributes:
        contrast: factor on the windowed values; `Windows` applies it on the device.
        matrix: `(2, 3)` affine transform of points (x, y) in the resized image, pixels.
        holes: `(N, 4)` int, y0, y1, x0, x1 of the cut-outs in the resized image, pixels.
        border: as in `AugmentSettings`.
    """

    contrast: float
    matrix: np.ndarray
    holes: np.ndarray
    border: str = "air"


def draw_augmentation(settings: AugmentSettings, image_size: int, seed: int) -> Draw:
    """Draw a sample's parameters from its random seed; `image_size`: side of the image, pixels."""
    rng = np.random.default_rng(seed)
    contrast = 1 + settings.contrast * rng.uniform(-1, 1)
    shift = image_size * settings.shift * rng.uniform(-1, 1, 2)
    scale = 1 + settings.scale * rng.uniform(-1, 1)
    angle = settings.rotate_deg * rng.uniform(-1, 1)
    centre = (image_size - 1) / 2
    matrix = cv2.getRotationMatrix2D((centre, centre), angle, scale)
    matrix[:, 2] += shift
    # A fixed size around a centre anywhere in the image, so what reaches past the border is lost.
    count = settings.cutout_holes if settings.cutout_size else 0
    half = int(image_size * settings.cutout_size) // 2
    centre = rng.integers(0, image_size, (count, 2), endpoint=True)
    holes = np.stack([centre - half, centre + half], axis=2).clip(0, image_size)
    return Draw(contrast, matrix, holes.reshape(count, 4), settings.border)


def augment_stack(stack_hu: np.ndarray, image_size: int, draw: Draw) -> np.ndarray:
    """Resize a stack `(D, Y, X)` int16 HU and augment it: `(D, image_size, image_size)` int16 HU.

    Cut-outs, and with `border` = air what lies beyond the image, become `OUTSIDE_HU`, which is 0 in
    all windows.
    """
    resize = _resizing(stack_hu.shape[1:], image_size)
    matrix = draw.matrix @ resize
    size = (image_size, image_size)
    result = np.empty((len(stack_hu), *size), np.int16)
    for plane, target in zip(stack_hu, result, strict=True):
        # Three times as fast in float32 as in int16, for which OpenCV has no vector code.
        warped = cv2.warpAffine(
            plane.astype(np.float32),
            matrix,
            size,
            flags=cv2.INTER_LINEAR,
            borderMode=BORDERS[draw.border],
            borderValue=OUTSIDE_HU,
        )
        np.rint(warped, out=target, casting="unsafe")
    for y0, y1, x0, x1 in draw.holes:
        result[:, y0:y1, x0:x1] = OUTSIDE_HU
    return result


def move_points(xy: np.ndarray, image_size: int, draw: Draw) -> np.ndarray:
    """Apply the transform to points `(N, 2)`, x and y in [0, 1] of the image; NaN stays NaN."""
    pixels = xy * image_size - 0.5
    moved = pixels @ draw.matrix[:, :2].T + draw.matrix[:, 2]
    return (moved + 0.5) / image_size


def _resizing(shape: tuple[int, int], image_size: int) -> np.ndarray:
    # (3, 3): maps pixel centres of the stored slice to the resized one, as cv2.resize does.
    y, x = (image_size / side for side in shape)
    return np.array([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])
