"""What every segmentation method makes of a study: the masks of its organs."""

from collections.abc import Mapping
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
    """

    lung: np.ndarray
    heart: np.ndarray
    organs: Mapping[str, np.ndarray] = field(default_factory=dict)
