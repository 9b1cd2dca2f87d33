"""A study as the landmark rules use it: organs, each loaded once, and the traced airway."""

from functools import cached_property

import numpy as np

from data_prep.anatomy.airway import AIRWAY_HU, trace_airway
from data_prep.anatomy.body import air_inside_body, midline
from data_prep.anatomy.coarse import reduce_mask, reduce_volume
from data_prep.anatomy.heart import diaphragm_dome
from data_prep.anatomy.masks import Masks
from data_prep.anatomy.thorax import Thorax
from data_prep.landmarks.organ import Organ, Point
from pekit.common.errors import UserError

EMBEDDED = ("CT", "lung", "heart")  # every study has these

# Smallest plausible volume of an organ, in mL: less is a segmenter's error or a sliver at the
# volume's edge. About a tenth of an adult's organ, less of a long artery.
MIN_ML = {
    "aorta": 20.0,
    "brachiocephalic_trunk": 0.5,
    "celiac_trunk": 0.3,
    "clavicula": 2.0,
    "common_carotid_artery": 0.3,
    "liver": 20.0,
    "lung": 20.0,
    "lung_trachea_bronchia": 5.0,
    "sternum": 5.0,
    "subclavian_artery": 0.5,
    "trachea": 3.0,
    "vertebrae": 5.0,
}


def min_ml(name: str) -> float:
    """Smallest plausible volume in mL of a mask, by TotalSegmentator's class name."""
    return MIN_ML[max((key for key in MIN_ML if name.startswith(key)), key=len)]


def centre_of_mass(mask: np.ndarray) -> list[float]:
    """Mean voxel (z, y, x) of a mask, by sums along its axes, without a list of voxels."""
    planes = np.count_nonzero(mask, axis=2)
    sums = planes.sum(1), planes.sum(0), np.count_nonzero(mask, axis=(0, 1))
    return [float(np.average(np.arange(len(line)), weights=line)) for line in sums]


class Scan:
    """A study as the rules use it.

    Args:
        masks: of the whole study; an organ's mask is loaded when a rule needs it, and cut to its
            box.
        volume_hu: the whole study, (Z, Y, X) int16 HU.
        spacing_mm: voxel size (z, y, x).
    """

    def __init__(
        self, masks: Masks, volume_hu: np.ndarray, spacing_mm: tuple[float, float, float]
    ) -> None:
        self.masks, self.hu, self.spacing_mm = masks, volume_hu, spacing_mm
        # By keys, since `in` would ask the mapping for the value, which may run a segmenter.
        self.known = {*EMBEDDED, *masks.organs}
        self._organs: dict[str, Organ | None] = {}

    def organ(self, name: str) -> Organ | None:
        """The organ from a mask of `Masks.organs`; None if it is empty or implausibly small.

        Raises:
            UserError: the mask has another shape than the volume.
        """
        if name not in self._organs:
            mask = self.masks.organs[name]
            if mask.shape != self.hu.shape:
                raise UserError(
                    f"the mask {name} has the shape {mask.shape}, the volume {self.hu.shape}"
                    " (z, y, x)"
                )
            self._organs[name] = Organ.of(mask, self.spacing_mm, min_ml(name))
        return self._organs[name]

    @cached_property
    def middle(self) -> int:
        """The column between right and left."""
        return midline(self.hu, self.masks.lung, self.spacing_mm)

    def heart_centre(self) -> Point | None:
        """Centre of mass of the heart; None if the volume's first or last slice cuts it."""
        heart = self.masks.heart
        if heart[0].any() or heart[-1].any() or not heart.any():
            return None
        return tuple(float(axis) for axis in centre_of_mass(heart))

    def lung_top(self, sign: int) -> Point | None:
        """Centre of the highest section of the lung mask, on the right (-1) or left (1) side."""
        side = slice(None, self.middle) if sign < 0 else slice(self.middle, None)
        lung = self.masks.lung[:, :, side]
        z = np.flatnonzero(lung.any((1, 2)))
        if not len(z) or z[-1] == len(lung) - 1:
            return None
        y, x = np.argwhere(lung[z[-1]]).mean(0)
        return float(z[-1]), float(y), float(x) + (side.start or 0)

    def dome(self) -> Point | None:
        """Top of the right diaphragm under the lung mask; None if the first slice cuts it."""
        coarse, spacing = self.coarse
        lung = reduce_mask(self.masks.lung, self.spacing_mm)
        found = diaphragm_dome(Thorax(coarse, lung, spacing)) if lung.any() else None
        return self.from_coarse(found) if found and found[0] > 0 else None

    @cached_property
    def coarse(self) -> tuple[np.ndarray, tuple[float, float, float]]:
        """The reduced volume, and its voxel size (z, y, x) in mm."""
        return self.masks.coarse or reduce_volume(self.hu, self.spacing_mm)

    @cached_property
    def traced_airway(self) -> tuple[Organ, Point] | None:
        """Airway and carina traced in the reduced volume, in its voxels; None without a carina."""
        coarse, spacing = self.coarse
        airway, carina = trace_airway(air_inside_body(coarse) & (coarse < AIRWAY_HU), spacing)
        return None if carina is None else (Organ.of(airway, spacing), carina)

    def traced_carina(self) -> Point | None:
        """Carina of the traced airway, in voxels of the study."""
        return self.from_coarse(self.traced_airway[1]) if self.traced_airway else None

    def from_coarse(self, point: Point | None) -> Point | None:
        """Convert a point of the reduced volume to voxels of the study."""
        if point is None:
            return None
        factors = np.array(self.coarse[1]) / self.spacing_mm
        z, y, x = (np.array(point) + 0.5) * factors - 0.5
        return float(min(z, len(self.hu) - 1)), float(y), float(x)
