"""What there is to see of a prepared and predicted study."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pekit.errors import UserError
from pekit.store import OUTSIDE_HU, SLICE_LABEL, Store
from pekit.viewer.study import StudyView
from pekit.voting import Vote


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
