"""Slices, outlines and attributions as texts for the browser.

A slice is one grey JPEG. Its 256 levels are finest where the windows are narrow, so that the
browser can show every window from it. A real chest CT of 250 x 350 x 350 voxels takes 7 MB as text,
with a mean error of about 1 of 255 grey levels in a window; PNG would take 19 MB.
"""

import base64
from collections.abc import Sequence

import cv2
import numpy as np

from pekit.figures.overlays import share_of_peak

# (HU, grey level): 17 HU per level in the lung, 3.7 HU in vessels and soft tissue. The ends are the
# lowest and the highest HU that a window of the paper distinguishes.
LEVELS = ((-1350, 0), (-250, 64), (450, 255))
QUALITY = 90


def to_levels(hu: np.ndarray) -> np.ndarray:
    """HU as grey levels of LEVELS, uint8 of the same shape; HU outside LEVELS are clipped."""
    hus, levels = zip(*LEVELS, strict=True)
    table = np.interp(np.arange(hus[0], hus[-1] + 1), hus, levels).round().astype(np.uint8)
    return table[np.clip(hu, hus[0], hus[-1]).astype(np.int32) - hus[0]]


def shrink(planes: np.ndarray, side: int | None) -> np.ndarray:
    """Shrink planes `(N, Y, X)` to a longer side of at most `side` pixels; None: no change."""
    rows, columns = planes.shape[1:]
    if side is None or max(rows, columns) <= side:
        return planes
    share = side / max(rows, columns)
    size = (max(round(columns * share), 1), max(round(rows * share), 1))
    return np.stack([cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in planes])


def jpeg(plane: np.ndarray, quality: int = QUALITY) -> str:
    """A plane `(Y, X)` uint8 as a grey JPEG: a data URI, so that it can be told from text."""
    _, coded = cv2.imencode(".jpg", plane, (cv2.IMWRITE_JPEG_QUALITY, quality))
    return f"data:image/jpeg;base64,{base64.b64encode(coded.tobytes()).decode('ascii')}"


def outlines(mask: np.ndarray) -> list[list[list[int]]]:
    """Outlines of a mask `(Z, Y, X)` bool: polygons per slice, each x, y, x, y, ... (voxels)."""
    return [_polygons(plane) for plane in mask]


def attribution_share(plane: np.ndarray) -> np.ndarray:
    """Attribution `(Y, X)` as a share of the slice's 99.9th percentile, in uint8."""
    return (share_of_peak(plane) * 255).round().astype(np.uint8)


def _polygons(plane: np.ndarray) -> list[list[int]]:
    found, _ = cv2.findContours(plane.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_TC89_L1)
    return [points.ravel().tolist() for points in found]


def rounded(values: Sequence[float]) -> list[float]:
    """Probabilities with 4 decimals: more cannot be seen in a curve."""
    return [round(float(value), 4) for value in values]
