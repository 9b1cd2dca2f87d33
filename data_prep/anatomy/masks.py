"""Organ masks of a study, the result of every segmentation method."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Masks:
    """Organ masks of one study, each (Z, Y, X) bool.

    Attributes:
        lung: both lungs.
        heart: the heart.
        organs: further masks by TotalSegmentator's class names, e.g. `aorta`; the mapping may read
            or compute a mask on access, since twenty masks would fill the memory.
        unseen: place of lung that is missing from `lung` (fluid, collapse, cut by the image), or
            None; the hull covers it.
        coarse: the CT at about 4 mm, `reduce_volume` of it, once it has been computed.
        remarks: what a reader of the result should know of the image.
    """

    lung: np.ndarray
    heart: np.ndarray
    organs: Mapping[str, np.ndarray] = field(default_factory=dict)
    unseen: np.ndarray | None = None
    coarse: tuple[np.ndarray, tuple[float, float, float]] | None = None
    remarks: tuple[str, ...] = ()

    def parts(self) -> list[np.ndarray]:
        """The masks that the hull encloses."""
        return [part for part in (self.lung, self.heart, self.unseen) if part is not None]


class LabelMap(Mapping):
    """Masks of one label volume, each computed on access: (Z, Y, X) bool.

    Args:
        labels: (Z, Y, X) uint8, one label number per voxel.
        numbers: name -> number; names whose number does not occur in `labels` are left out.
    """

    def __init__(self, labels: np.ndarray, numbers: Mapping[str, int]):
        there = np.zeros(256, bool)
        for plane in labels:  # all at once would take eight bytes per voxel
            there[plane] = True
        self.labels = labels
        self.numbers = {name: number for name, number in numbers.items() if there[number]}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.labels == self.numbers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __contains__(self, name: object) -> bool:
        return name in self.numbers  # Mapping's own method would compute the mask
