"""One study that is in no store: its slices with their probabilities, and the verdict.

slices = slice_table(study_uid, sop_uids, z_mm, predict_volume(predict, hu, size), z0)
verdict_table(slices, votes)
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from pekit.dataset.schema import public_uid
from pekit.inference.predict import whole_study
from pekit.voting import Vote, vote_study


def slice_table(
    study_uid: str, sop_uids: Sequence[str], z_mm: Sequence[float], inside: np.ndarray, z0: int
) -> pd.DataFrame:
    """One row per slice of a study, with public identifiers.

    Args:
        study_uid, sop_uids: as in the files; hashed here unless they are RSNA's own.
        z_mm: position of each slice, mm.
        inside: `(Z, K)` probabilities of the slices in the crop box, one column per hop.
        z0: first slice of the crop box; slices outside it get probability 0.

    Returns:
        Columns StudyInstanceUID, SOPInstanceUID, z, z_mm, hop1, hop2, ...
    """
    whole = whole_study(inside, z0, len(sop_uids))
    table = pd.DataFrame(
        {
            "StudyInstanceUID": public_uid(study_uid),
            "SOPInstanceUID": [public_uid(uid) for uid in sop_uids],
            "z": range(len(sop_uids)),
            "z_mm": z_mm,
        }
    )
    table[[f"hop{k + 1}" for k in range(whole.shape[1])]] = whole
    return table


def verdict_table(slices: pd.DataFrame, votes: Mapping[str, Vote]) -> pd.DataFrame:
    """One row per hop: its verdict by the vote (equation 1), and what the vote counted.

    Args:
        slices: of one study, one column per hop.
        votes: mu and delta, by hop.
    """
    return pd.DataFrame(
        [
            {
                "hop": hop,
                "verdict": "PE suspected"
                if vote_study(slices[hop].to_numpy(), vote)
                else "no PE found",
                "slices above delta": int((slices[hop] > vote.delta).sum()),
                "slices needed (mu)": vote.mu,
                "delta": round(vote.delta, 3),
                "highest probability": round(float(slices[hop].max()), 3),
            }
            for hop, vote in votes.items()
        ]
    )
