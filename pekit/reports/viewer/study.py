"""The slice viewer of one study: from the store and its predictions, or from arrays.

view = view_study(store, predictions, study, votes)     # a prepared study
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
    """The content of the slice viewer for a study of N slices.

    Attributes:
        title: heading of the viewer.
        hu: `(Z, Y, X)` int16 HU of the crop.
        spacing_mm: (z, y, x).
        probs: by hop, the probability of each slice `(N,)`; the last hop's are checked for errors.
        z0: index in the study of the crop's first slice.
        deltas: by hop, the delta of its vote.
        labels: `(N,)` 1 with PE, 0 without, -1 unknown.
        outlines: by name (hull, clots), masks `(Z, Y, X)` bool whose outlines can be shown.
        attributions: by hop and by index z of a slice in the study, attribution `(Y, X)` on the
            crop.
        facts: a line under the title.
        caption: method of the attributions.
        start: index of the slice shown first; by default the most probable one by the last hop.

    Raises:
        UserError: there are no probabilities, or arrays whose shapes do not fit together.
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
                    raise UserError(
                        f"{self.title}: attribution {hop} of z={z} does not fit the crop"
                    )

    @property
    def slices(self) -> int:
        """Number of slices of the study."""
        return len(next(iter(self.probs.values())))

    def errors(self) -> list[int]:
        """Indices of the slices that the last hop misclassifies at its delta."""
        hop = list(self.probs)[-1]
        if self.labels is None or hop not in self.deltas:
            return []
        positive = np.asarray(self.probs[hop], dtype=np.float64) > self.deltas[hop]
        labels = np.asarray(self.labels)
        return np.flatnonzero((labels >= 0) & (positive != (labels == 1))).tolist()


def slice_viewer(
    view: StudyView, side: int | None = None, quality: int = QUALITY, height: int = 700
) -> Viewer:
    """The viewer of a study.

    Args:
        side: longest side of the slices, pixels; a larger crop is shrunk. None: not shrunk.
        quality: of the JPEG images, 1 to 100.
        height: of the frame in a page, pixels.

    Raises:
        UserError: the study has no slice `view.start`.
    """
    last = np.asarray(list(view.probs.values())[-1])
    start = int(last.argmax()) if view.start is None else view.start
    if not 0 <= start < view.slices:
        raise UserError(f"{view.title}: start={start} must be a slice from 0 to {view.slices - 1}")
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

    Where the store's crops are masked, the hull is known: voxels outside it have HU OUTSIDE_HU.

    Args:
        predictions: one row per slice, of this study at least: StudyInstanceUID, z, one column per
            hop, and pe_present_on_image where known.
        votes: one per hop, in order.
        clots: mask `(Z, Y, X)` bool on the crop, where known.
        shown: other fields of StudyView: attributions, caption, facts, start, title.

    Raises:
        UserError: slices of the study have no prediction.
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
