"""What every segmentation method makes of a study: the masks of its organs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Masks:
    """Organ masks of one study, each (Z, Y, X) bool.

    Attributes:
        lung: both lungs.
        heart: the heart.
        organs: further ones by TotalSegmentator's class names, e.g. `aorta`; a mapping that may
            read or compute a mask when it is asked for, since twenty of them fill the memory.
        opaque: where a lung should be that is not in `lung` (fluid, collapse), or None; the hull
            covers it.
    """

    lung: np.ndarray
    heart: np.ndarray
    organs: Mapping[str, np.ndarray] = field(default_factory=dict)
    opaque: np.ndarray | None = None

    def parts(self) -> list[np.ndarray]:
        """The masks that the hull goes around."""
        return [part for part in (self.lung, self.heart, self.opaque) if part is not None]


class LabelMap(Mapping):
    """Masks out of one label volume, each made when it is asked for.

    Args:
        labels: (Z, Y, X) uint8, a number a voxel.
        numbers: name -> number; names whose number is nowhere in `labels` are left out.
    """

    def __init__(self, labels: np.ndarray, numbers: Mapping[str, int]):
        there = np.zeros(256, bool)
        for plane in labels:  # all at once would take eight bytes a voxel
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
        return name in self.numbers  # Mapping's own makes the mask
