"""How the organs of one patient lie against each other: a smooth monotone map for each axis.

The template is one body. A patient's mediastinum may be drawn to one side, the heart lie higher,
the front of the thorax be deeper than the back: each axis is stretched here and compressed there,
so that a landmark's place cannot be told from the outline of the lungs. Axis by axis, so that
painting stays as cheap as on the template.
"""

from dataclasses import dataclass

import numpy as np

# The thorax along z, y, x: template mm of its middle, and half of its length. Beyond it nothing
# moves.
_MIDDLE_MM = np.array((0.0, -10.0, 0.0))
_HALF_MM = np.array((140.0, 115.0, 140.0))
# Standard deviations in mm along z, y, x: of the middle's shift, and of how far the two halves
# are drawn apart (the first moves the organs together, the second against each other).
_SHIFT_MM = np.array((5.0, 17.0, 17.0))
_SPREAD_MM = np.array((3.0, 9.0, 8.0))
_STEEPEST = 0.7  # a map's slope stays within 1 +- this, so that it can be inverted


@dataclass(frozen=True)
class Habitus:
    """Maps template mm to a patient's mm and back, for axis 0 (z), 1 (y) or 2 (x).

    Attributes:
        shift_mm: how far the middle of the thorax is moved, (z, y, x).
        spread_mm: how far the halves are drawn apart, at a quarter of the thorax, (z, y, x).
    """

    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    spread_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def to_patient(self, template_mm: np.ndarray | float, axis: int) -> np.ndarray:
        """Where template coordinates of an axis lie in the patient."""
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
    """A random patient.

    Args:
        rng: draws it; the same number of draws whatever the variety.
        variety: scales how far patients differ; 0 is the template.
    """
    shift, spread = rng.standard_normal((2, 3)).clip(-2, 2)
    shift, spread = variety * shift * _SHIFT_MM, variety * spread * _SPREAD_MM
    slope = np.pi * (np.abs(shift) / 2 + np.abs(spread)) / _HALF_MM
    share = np.minimum(1, _STEEPEST / np.maximum(slope, 1e-9))
    return Habitus(tuple((shift * share).tolist()), tuple((spread * share).tolist()))
