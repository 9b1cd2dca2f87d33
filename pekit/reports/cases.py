"""Error analysis: cases (studies with their top slices explained), and the page of all errors.

explainer = Explainer(store, predictions, votes, net, card.image_size)
case = explainer.case(study)
case.figure()           # slices, attribution of each hop, curve
case.viewer()           # to scroll through
error_sections(errors, cases)    # for `write_page`
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pekit.dataset.schema import SLICE_LABEL
from pekit.dataset.store import Store
from pekit.evaluation.errors import facts, top_slices
from pekit.explain import Attribution, attribution_focus, attribution_method, explain_volume
from pekit.figures.curves import study_case
from pekit.hop import HopNet
from pekit.reports.page import Figure, Picture, Section
from pekit.reports.viewer.frame import Viewer
from pekit.reports.viewer.study import StudyView, slice_viewer, view_study
from pekit.voting import Vote

# JPEG quality of viewers in a page of errors: at 256 pixels a study of 250 slices takes 2 MB, so
# that 39 errors, as many as the paper has, fit one page.
QUALITY = 80


@dataclass(frozen=True)
class Case:
    """A study with N explained slices.

    Attributes:
        study: its UID.
        slices: indices z of the explained slices in the study, the most probable first.
        attributions: by hop, maps `(N, Y, X)` of these slices.
        rows: predictions of the study, one row per slice.
        votes: one per hop.
        view: the study for the slice viewer.
    """

    study: str
    slices: list[int]
    attributions: dict[str, Attribution]
    rows: pd.DataFrame
    votes: Mapping[str, Vote]
    view: StudyView

    @property
    def crop_rows(self) -> list[int]:
        """Indices of the explained slices in the crop."""
        return [z - self.view.z0 for z in self.slices]

    @property
    def hu(self) -> np.ndarray:
        """The explained slices `(N, Y, X)` int16 HU."""
        return self.view.hu[self.crop_rows]

    @property
    def clots(self) -> np.ndarray | None:
        """Masks of the true clots `(N, Y, X)` bool on the explained slices; None where unknown."""
        clots = self.view.outlines.get("clots")
        return None if clots is None else clots[self.crop_rows]

    def focus(self) -> list[dict]:
        """Share of attribution inside the true clots, and by chance: one record per hop and slice.

        The clots of the neighbouring slices count too: the network sees a 2.5D stack.
        """
        clots = self.view.outlines["clots"]
        found = []
        for hop, attribution in self.attributions.items():
            for k, row in enumerate(self.crop_rows):
                around = clots[max(row - 1, 0) : row + 2].any(axis=0)
                inside, chance = attribution_focus(attribution.maps[[k]], around[None])
                found.append(
                    {"study": self.study, "z": self.slices[k], "hop": hop,
                     "inside_clots": inside, "chance": chance}
                )  # fmt: skip
        return found

    def figure(self, images: bool = True) -> Figure:
        """Slices, attribution of each hop and curve; without `images`, the curve only."""
        return study_case(
            self.rows,
            self.votes,
            self.slices,
            self.hu if images else None,
            {hop: found.maps for hop, found in self.attributions.items()},
            self.clots,
            self.view.caption,
        )

    def viewer(self, **how: int) -> Viewer:
        """The slice viewer; `how` holds arguments of `slice_viewer`: side, quality, height."""
        return slice_viewer(self.view, **how)


@dataclass(frozen=True)
class Explainer:
    """Makes cases from the studies of one experiment.

    Attributes:
        store: the prepared studies.
        predictions: one row per slice, one column per hop.
        votes: one per hop, in order; slices are chosen by the last hop's probabilities.
        net: the network, on the device to use; None: no attributions.
        image_size: side of the square images that the network was trained on, pixels.
        method, steps: arguments of `pekit.explain.explain`.
    """

    store: Store
    predictions: pd.DataFrame
    votes: Mapping[str, Vote]
    net: HopNet | None = None
    image_size: int = 0
    method: str = "integrated_gradients"
    steps: int = 32

    def case(
        self,
        study: str,
        n: int = 2,
        only_labelled: bool = False,
        clots: np.ndarray | None = None,
        **shown: object,
    ) -> Case:
        """A study with its n most probable slices inside the crop box explained.

        Args:
            only_labelled: only slices labelled PE, as for a false negative; if all of those lie
                outside the crop box, the most probable slices.
            clots: mask `(Z, Y, X)` bool on the crop, where known.
            shown: fields of `StudyView`: title, facts, start.

        Raises:
            UserError: the method is unknown, or the study is not predicted.
        """
        about = self.store.studies.set_index("StudyInstanceUID").loc[study]
        z0, z1 = int(about["box_z0"]), int(about["box_z1"])
        rows = self.predictions[self.predictions["StudyInstanceUID"] == study]
        inside = rows[rows["z"].between(z0, z1 - 1)]
        labelled = only_labelled and inside[SLICE_LABEL].eq(1).any()
        slices = top_slices(inside, list(self.votes)[-1], labelled, n)
        caption, found = "", {}
        if self.net is not None and slices:
            caption = attribution_method(self.method).caption
            found = explain_volume(
                self.net,
                self.store.read_volume(study),
                [z - z0 for z in slices],
                self.image_size,
                method=self.method,
                steps=self.steps,
            )
        maps = {hop: dict(zip(slices, a.maps, strict=True)) for hop, a in found.items()}
        start = {"start": slices[0]} if slices else {}
        view = view_study(
            self.store,
            rows,
            study,
            self.votes,
            clots,
            **{"attributions": maps, "caption": caption} | start | shown,
        )
        return Case(study, slices, found, rows, self.votes, view)


def error_sections(
    errors: pd.DataFrame, cases: Sequence[Case], images: bool = True, side: int | None = 256
) -> list[Section]:
    """A section with the table of errors, then one per group with a picture and a viewer per error.

    Args:
        errors: table made by `study_errors`.
        cases: one per error.
        images: whether the page may hold CT images, and so viewers; it holds curves either way.
        side: longest side of the viewers' slices, pixels; None: not shrunk; 0: no viewers.
    """
    if errors.empty:
        return [Section("Error analysis", ["The vote gets no study wrong."])]
    lead = "False positives, then false negatives, grouped; in each group the most confident first."
    sections = [Section("Error analysis", [lead, errors.drop(columns="group")])]
    by_study = {case.study: case for case in cases}
    for (kind, group), rows in errors.groupby(["kind", "group"], sort=False):
        items: list = []
        for _, error in rows.iterrows():
            case = by_study[error["StudyInstanceUID"]]
            items += [f"{case.study}: {facts(error)}", _picture(case, images)]
            if images and side != 0:
                items.append(case.viewer(side=side, quality=QUALITY))
        sections.append(Section(f"{kind.capitalize()}: {group} ({len(rows)})", items))
    return sections


def _picture(case: Case, images: bool) -> Picture:
    shown = "curve" if not images else "top slices, attribution of each hop, and curve"
    return Picture(case.figure(images), f"Study {case.study}: {shown}")
