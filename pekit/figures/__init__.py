"""Figures of the kit: arrays and tables in, matplotlib figures out.

Every function returns a figure that Jupyter shows when it is a cell's last expression; `to_png`
gives its bytes for a file or a page. There is no pyplot, so nothing is kept open and no display is
needed. Images are shown as radiologists hold them: the patient's right on the left, front up.
"""

from pekit.figures.audit import audit_overview
from pekit.figures.base import (
    BLUE,
    BOX,
    CLOT,
    GREEN,
    HOP_COLOURS,
    HULL,
    LANDMARK,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    TRUTH,
    YELLOW,
    KitFigure,
    to_png,
)
from pekit.figures.charts import (
    landmark_errors,
    landmark_presence,
    loss_curves,
    slice_curves,
    volume_ratio_histogram,
)
from pekit.figures.images import PE_WINDOW, attribution_overlay, coronal, slice_grid
from pekit.figures.scores import confusion_tables, forest, reliability_curves, roc_curves

__all__ = [
    "BLUE",
    "BOX",
    "CLOT",
    "GREEN",
    "HOP_COLOURS",
    "HULL",
    "LANDMARK",
    "ORANGE",
    "PE_WINDOW",
    "PURPLE",
    "RED",
    "SKY",
    "TRUTH",
    "YELLOW",
    "KitFigure",
    "attribution_overlay",
    "audit_overview",
    "confusion_tables",
    "coronal",
    "forest",
    "landmark_errors",
    "landmark_presence",
    "loss_curves",
    "reliability_curves",
    "roc_curves",
    "slice_curves",
    "slice_grid",
    "to_png",
    "volume_ratio_histogram",
]
