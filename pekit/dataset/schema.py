"""Names and constants that the whole kit shares: columns, labels, landmarks, HU, public UIDs."""

import hashlib
import re
from collections.abc import Iterable

AIR_HU = -1024
# Lower end of the lung window (-600, 1500): 0 in all three windows of the paper (section IV).
OUTSIDE_HU = -1350

UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
SLICE_LABEL = "pe_present_on_image"
LABELS = (
    SLICE_LABEL,
    "negative_exam_for_pe",
    "qa_motion",
    "qa_contrast",
    "flow_artifact",
    "rv_lv_ratio_gte_1",
    "rv_lv_ratio_lt_1",
    "leftsided_pe",
    "chronic_pe",
    "true_filling_defect_not_pe",
    "rightsided_pe",
    "acute_and_chronic_pe",
    "central_pe",
    "indeterminate",
)
EXAM_LABELS = LABELS[1:]
BOX_COLUMNS = ("box_z0", "box_z1", "box_y0", "box_y1", "box_x0", "box_x1")

# The 20 landmarks of the paper, section IV "Keypoint pretraining", in its order.
LANDMARKS = (
    "Heart",
    "Carina Bifurcation",
    "T4",
    "Right Primary Bronchus",
    "Aortic Arch Center",
    "Aortic Root",
    "Left Subclavian Artery",
    "Left Primary Bronchus",
    "Left Common Carotid Artery",
    "Liver Top",
    "Right Medial Clavicle",
    "Suprasternal Notch",
    "Brachiocephalic Artery Bifurcation",
    "Left Medial Clavicle",
    "Right Subclavian and Vertebralis Branch",
    "Left Subclavian and Vertebralis Branch",
    "Right Lung Top",
    "Sternum Tip",
    "Left Lung Top",
    "Celiac Trunk",
)

_RSNA_UID = re.compile(r"[0-9a-f]{12}")
_HOP = re.compile(r"hop([1-9]\d*)")


def public_uid(uid: str) -> str:
    """A UID that may leave the machine: RSNA UIDs (12 hex digits) as they are, others hashed."""
    if _RSNA_UID.fullmatch(uid):
        return uid
    # A folder's name, which stands for a UID, need not be UTF-8.
    return hashlib.sha256(uid.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def hop_names(names: Iterable[str]) -> list[str]:
    """The names of hops among these, in the order of the hops: "hop2" before "hop10".

    Args:
        names: such as the columns of a table of predictions, or the votes of thresholds.json.
    """
    return sorted(filter(_HOP.fullmatch, names), key=lambda name: int(name.removeprefix("hop")))
