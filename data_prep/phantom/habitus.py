"""Differences between patients in the position of their organs: a smooth monotone map per axis.

The template is one body. In a patient the mediastinum may be shifted to one side, the heart may be
higher, the front of the thorax deeper than the back: each axis is stretched in one place and
compressed in another, so that the outline of the lungs does not determine the place of a landmark.
The maps act axis by axis, so that painting is as cheap as on the template.
"""

from dataclasses import dataclass

import numpy as np

# Middle and half length of the thorax along z, y, x, in template mm. Nothing moves outside it.
_MIDDLE_MM = np.array((0.0, -10.0, 0.0))
_HALF_MM = np.array((140.0, 115.0, 140.0))
# Standard deviations in mm along z, y, x: of the shift of the middle (moves all organs together),
# and of how far the two halves are moved apart (moves organs against each other).
_SHIFT_MM = np.array((5.0, 17.0, 17.0))
_SPREAD_MM = np.array((3.0, 9.0, 8.0))
_STEEPEST = 0.7  # the slope of a map is within 1 +- this, so that it can be inverted


@dataclass(frozen=True)
class Habitus:
    """Maps template mm to a patient's mm and back, for axis 0 (z), 1 (y) or 2 (x).

    Attributes:
        shift_mm: shift of the middle of the thorax, (z, y, x).
        spread_mm: how far the halves are moved apart, at a quarter of the thorax, (z, y, x).
    """

    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    spread_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def to_patient(self, template_mm: np.ndarray | float, axis: int) -> np.ndarray:
        """Convert template coordinates of an axis to the patient's."""
        template_mm = np.asarray(template_mm, float)
        place = np.clip((template_mm - _MIDDLE_MM[axis]) / _HALF_MM[axis], -1, 1)
        moved = self.shift_mm[axis] * np.cos(np.pi / 2 * place) ** 2
        return template_mm + moved + self.spread_mm[axis] * np.sin(np.pi * place)

    def to_template(self, patient_mm: np.ndarray, axis: int) -> np.ndarray:
        """The inverse of `to_patient`, to 0.01 mm."""
        reach = 2 * _HALF_MM[axis] + np.abs(patient_mm - _MIDDLE_MM[axis]).max()
        fine = np.arange(-reach, reach, 0.25) + _MIDDLE_MM[axis]
        return np.interp(patient_mm, self.to_patient(fine, axis), fine)


TEMPLATE = Habitus()


def draw_habitus(rng: np.random.Generator, variety: float = 1.0) -> Habitus:
    """Draw a random patient.

    Args:
        rng: the number of draws does not depend on the variety.
        variety: scales the differences between patients; 0 gives the template.
    """
    shift, spread = rng.standard_normal((2, 3)).clip(-2, 2)
    shift, spread = variety * shift * _SHIFT_MM, variety * spread * _SPREAD_MM
    slope = np.pi * (np.abs(shift) / 2 + np.abs(spread)) / _HALF_MM
    share = np.minimum(1, _STEEPEST / np.maximum(slope, 1e-9))
    return Habitus(tuple((shift * share).tolist()), tuple((spread * share).tolist()))
