"""What every segmentation method makes of a study: the masks of its organs."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Masks:
    """Organ masks of one study: `lung` (both) and `heart`, each (Z, Y, X) bool."""

    lung: np.ndarray
    heart: np.ndarray
