"""What there is to see of a study, and the viewer that shows it.

view = StudyView("Study 1a2b", volume_hu, spacing_mm, probs={"hop1": p1, "hop2": p2})
slice_viewer(view)                      # the last expression of a notebook's cell
slice_viewer(view).write(path)          # a page
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from pekit.common.errors import UserError
from pekit.dataset.schema import OUTSIDE_HU, SLICE_LABEL
from pekit.dataset.store import Store
from pekit.dataset.windows import WINDOWS
from pekit.reports.viewer.encode import (
    LEVELS,
    QUALITY,
    attribution_share,
    jpeg,
    outlines,
    rounded,
    shrink,
    to_levels,
)
from pekit.reports.viewer.frame import Viewer
from pekit.voting import Vote

PE, SOFT_TISSUE, LUNG = WINDOWS
SHOWN_WINDOWS = (("Lung", LUNG), ("PE", PE), ("Mediastinum", SOFT_TISSUE))


@dataclass(frozen=True)
class StudyView:
    """What there is to see of a study of N slices.

    Attributes:
        title: heads the viewer.
        hu: `(Z, Y, X)` int16 HU of the crop.
        spacing_mm: (z, y, x).
        probs: `(N,)` probability of each slice, by hop; the last hop decides what is an error.
        z0: the study's slice that is the crop's first.
        deltas: the vote's delta, by hop.
        labels: `(N,)` 1 with PE, 0 without, -1 not known.
        outlines: `(Z, Y, X)` bool, by name (hull, clots): their outlines can be shown.
        attributions: by hop, of the study's slice z the attribution `(Y, X)` on the crop.
        facts: a line under the title.
        caption: what the attributions are.
        start: the slice shown at first; the most probable one by default.
    """

    title: str
    hu: np.ndarray
    spacing_mm: tuple[float, float, float]
    probs: Mapping[str, np.ndarray]
    z0: int = 0
    deltas: Mapping[str, float] = field(default_factory=dict)
    labels: np.ndarray | None = None
    outlines: Mapping[str, np.ndarray] = field(default_factory=dict)
    attributions: Mapping[str, Mapping[int, np.ndarray]] = field(default_factory=dict)
    facts: str = ""
    caption: str = ""
    start: int | None = None

    def __post_init__(self) -> None:
        if not self.probs:
            raise UserError(f"{self.title}: no probabilities: predict the study first")
        n = self.slices
        if self.hu.ndim != 3 or not 0 <= self.z0 <= n - len(self.hu):
            raise UserError(
                f"{self.title}: a crop {self.hu.shape} from slice {self.z0} on does not lie in "
                f"{n} predicted slices"
            )
        for name, values in (*self.probs.items(), ("labels", self.labels)):
            if values is not None and np.shape(values) != (n,):
                raise UserError(
                    f"{self.title}: {name} has {np.shape(values)} values for {n} slices"
                )
        for name, mask in self.outlines.items():
            if mask.shape != self.hu.shape:
                raise UserError(f"{self.title}: {name} is {mask.shape}, the crop {self.hu.shape}")
        for hop, maps in self.attributions.items():
            for z, plane in maps.items():
                if plane.shape != self.hu.shape[1:] or not 0 <= z - self.z0 < len(self.hu):
                    raise UserError(f"{self.title}: attribution {hop} of z={z} is not of the crop")

    @property
    def slices(self) -> int:
        """Slices of the study."""
        return len(next(iter(self.probs.values())))

    def errors(self) -> list[int]:
        """Slices whose call by the last hop's delta differs from their label."""
        hop = list(self.probs)[-1]
        if self.labels is None or hop not in self.deltas:
            return []
        called = np.asarray(self.probs[hop], dtype=np.float64) > self.deltas[hop]
        labels = np.asarray(self.labels)
        return np.flatnonzero((labels >= 0) & (called != (labels == 1))).tolist()


def slice_viewer(
    view: StudyView, side: int | None = None, quality: int = QUALITY, height: int = 700
) -> Viewer:
    """The viewer of a study.

    Args:
        side: longest side of the slices, pixels; a larger crop is shrunk. None: as it is.
        quality: of the JPEG images, 1 to 100.
        height: of the frame in a page, pixels.

    Raises:
        UserError: a slice to start from that the study does not have.
    """
    last = np.asarray(list(view.probs.values())[-1])
    start = int(last.argmax()) if view.start is None else view.start
    if not 0 <= start < view.slices:
        raise UserError(f"{view.title}: start={start} is none of {view.slices} slices")
    planes = shrink(view.hu, side)
    dz, dy, dx = (float(step) for step in view.spacing_mm)
    shrunk = np.divide(planes.shape[1:], view.hu.shape[1:]).tolist()
    content = {
        "title": view.title,
        "facts": view.facts,
        "caption": view.caption,
        "slices": view.slices,
        "z0": view.z0,
        "rows": planes.shape[1],
        "columns": planes.shape[2],
        "millimetres": [dz, dy / shrunk[0], dx / shrunk[1]],
        "levels": LEVELS,
        "windows": [{"name": name, "centre": c, "width": w} for name, (c, w) in SHOWN_WINDOWS],
        "images": [jpeg(plane, quality) for plane in to_levels(planes)],
        "outlines": {
            name: outlines(shrink(mask.astype(np.uint8) * 255, side) > 127)
            for name, mask in view.outlines.items()
        },
        "maps": {
            hop: {int(z): _map(plane, side) for z, plane in maps.items()}
            for hop, maps in view.attributions.items()
        },
        "probs": {hop: rounded(values) for hop, values in view.probs.items()},
        "deltas": {hop: float(delta) for hop, delta in view.deltas.items()},
        "labels": None if view.labels is None else [int(label) for label in view.labels],
        "errors": view.errors(),
        "start": start,
    }
    return Viewer(f"Slice viewer: {view.title}", content, height)


def _map(plane: np.ndarray, side: int | None) -> str:
    return jpeg(attribution_share(shrink(plane[None].astype(np.float32), side)[0]))


def view_study(
    store: Store,
    predictions: pd.DataFrame,
    study: str,
    votes: Mapping[str, Vote],
    clots: np.ndarray | None = None,
    **shown: object,
) -> StudyView:
    """The view of a study, for `slice_viewer`.

    The hull is read off the store where it is masked: what lies outside has a value of its own.

    Args:
        predictions: a row a slice of at least this study: StudyInstanceUID, z, a column a hop, and
            pe_present_on_image where known.
        votes: one a hop, in order.
        clots: `(Z, Y, X)` bool on the crop, where they are known.
        shown: other fields of StudyView: attributions, caption, facts, start, title.

    Raises:
        UserError: no predictions of the study, or not of each of its slices.
    """
    rows = predictions[predictions["StudyInstanceUID"] == study].sort_values("z")
    if rows.empty or rows["z"].tolist() != list(range(len(rows))):
        raise UserError(f"study {study}: not every slice is predicted: predict this study again")
    about = store.studies.set_index("StudyInstanceUID").loc[study]
    hu = store.read_volume(study)
    outlines = {}
    if store.settings.get("crop") == "masked":
        outlines["hull"] = hu != OUTSIDE_HU
    if clots is not None:
        outlines["clots"] = clots
    return StudyView(
        **{"title": f"study {study}"} | shown,
        hu=hu,
        spacing_mm=tuple(float(about[f"spacing_{axis}"]) for axis in "zyx"),
        probs={hop: rows[hop].to_numpy() for hop in votes},
        z0=int(about["box_z0"]),
        deltas={hop: vote.delta for hop, vote in votes.items()},
        labels=rows[SLICE_LABEL].to_numpy() if SLICE_LABEL in rows else None,
        outlines=outlines,
    )
