"""The error atlas as sections of a page: `pekit.page.write_page`."""

from collections.abc import Sequence

import pandas as pd

from pekit.atlas.cases import Case
from pekit.atlas.errors import facts
from pekit.page import Picture, Section

# A study of 250 slices then takes 2 MB at 256 pixels: the paper's 39 errors fit one page.
QUALITY = 80


def atlas_sections(
    errors: pd.DataFrame, cases: Sequence[Case], images: bool = True, side: int | None = 256
) -> list[Section]:
    """A section for the table of errors, and one a group with a picture and a viewer each.

    Args:
        errors: as `study_errors` gives them.
        cases: one an error, in the same order.
        images: whether CT images, viewers with them, may be in the page; curves are either way.
        side: longest side of the viewers' slices, pixels; None: as they are; 0: no viewers.
    """
    if errors.empty:
        return [Section("Error atlas", ["The vote gets no study wrong."])]
    lead = "False positives, then false negatives, grouped; in each group the most confident first."
    sections = [Section("Error atlas", [lead, errors.drop(columns="group")])]
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
