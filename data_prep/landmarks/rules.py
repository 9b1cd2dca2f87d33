"""Rules that find the paper's 20 landmarks (section IV, "Keypoint pretraining").

A landmark may have several rules; the first one whose masks a study has is used. Masks have the
names of TotalSegmentator's classes (open tasks `total` and `lung_vessels`; `celiac_trunk` comes
from a further task or another segmenter). Every study has `lung`, `heart` and the CT itself.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from data_prep.landmarks import finders as find
from data_prep.landmarks.organ import Organ, Point
from data_prep.landmarks.scan import Scan

# Half the length of an adult's main bronchus: 2.5 to 3 cm on the right, 5 cm on the left.
RIGHT_BRONCHUS_MM, LEFT_BRONCHUS_MM = 15.0, 25.0
# A vertebra's arch and processes are less than half as thick as its body.
BODY_DEPTH = 0.6


@dataclass(frozen=True)
class Rule:
    """A rule that finds one landmark.

    Attributes:
        name: one of `pekit.dataset.schema.LANDMARKS`.
        rule: the rule in words.
        masks: all masks that it needs.
        find: returns the position in a study with these masks, or None if it is not seen.
    """

    name: str
    rule: str
    masks: tuple[str, ...]
    find: Callable[[Scan], Point | None]


def landmark_rules() -> pd.DataFrame:
    """The rules as a table: name, rule, masks; a landmark's first rule is the preferred one."""
    return pd.DataFrame(
        [(rule.name, rule.rule, ", ".join(rule.masks)) for rule in RULES],
        columns=["name", "rule", "masks"],
    )


def find_landmark(name: str, scan: Scan) -> Point | None:
    """A landmark's voxel (z, y, x) by the first of its rules whose masks all exist, or None."""
    for rule in RULES:
        if rule.name == name and scan.known.issuperset(rule.masks):
            return rule.find(scan)
    return None


def _organs(name: str, rule: str, function: Callable[..., Point | None], *masks: str) -> Rule:
    """A rule on organs that must all be present and have a plausible size."""

    def find_in(scan: Scan) -> Point | None:
        organs = [scan.organ(mask) for mask in masks]
        return None if any(organ is None for organ in organs) else function(*organs)

    return Rule(name, rule, masks, find_in)


def _lung_top(side: str, sign: int) -> tuple[Rule, Rule]:
    lobes = ("upper", "middle", "lower") if side == "right" else ("upper", "lower")
    masks = tuple(f"lung_{lobe}_lobe_{side}" for lobe in lobes)
    name, text = f"{side.title()} Lung Top", f"Middle of the highest section of the {side} lung's"
    return (
        Rule(name, f"{text} lobes.", masks, lambda scan: find.highest(*map(scan.organ, masks))),
        Rule(
            name,
            f"{text} part of the lung mask, on that side of the body's middle.",
            ("lung", "CT"),
            lambda scan: scan.lung_top(sign),
        ),
    )


def _bronchus(side: str, sign: int, mm: float) -> tuple[Rule, Rule]:
    name = f"{side.title()} Primary Bronchus"
    text = f"Centre of the {side} main bronchus {mm:.0f} mm from the carina"

    def inside(airway: Organ) -> Point | None:
        return find.bronchus(airway, find.carina(airway), sign, mm)

    def traced(scan: Scan) -> Point | None:
        if scan.traced_airway is None:
            return None
        return scan.from_coarse(find.bronchus(*scan.traced_airway, sign, mm))

    return (
        _organs(name, f"{text}, half its length.", inside, "lung_trachea_bronchia"),
        Rule(name, f"{text}, in the airway traced through the CT.", ("CT",), traced),
    )


def _branch(name: str, artery: str, parent: str) -> Rule:
    text = f"Origin: centre of the part of the artery nearest to the {parent}."
    return _organs(name, text, find.origin, artery, parent)


def _clavicle(side: str, sign: int) -> Rule:
    return _organs(
        f"{side.title()} Medial Clavicle",
        "Medial end: centre of the 5 mm nearest to the body's middle.",
        lambda bone: bone.end(2, -sign, 5.0).centre(),
        f"clavicula_{side}",
    )


def _vertebral_branch(side: str, sign: int) -> Rule:
    return _organs(
        f"{side.title()} Subclavian and Vertebralis Branch",
        "Approximation, since no public mask shows the vertebral artery: the highest 3 mm of the"
        " subclavian artery within 30 mm of its medial end, near the origin of the branch.",
        lambda artery: find.vertebral_branch(artery, sign),
        f"subclavian_artery_{side}",
    )


RULES: tuple[Rule, ...] = (
    Rule(
        "Heart",
        "Centre of mass of the heart; absent if the first or last slice cuts it.",
        ("heart",),
        lambda scan: scan.heart_centre(),
    ),
    _organs(
        "Carina Bifurcation",
        "Centre of the trachea's last slice before it divides into the main bronchi.",
        find.carina,
        "lung_trachea_bronchia",
    ),
    _organs(
        "Carina Bifurcation",
        "Centre of the trachea's last slice before it divides, or its lower end if it does not.",
        find.trachea_end,
        "trachea",
    ),
    Rule(
        "Carina Bifurcation",
        "Slice where the airway traced through the CT widens before it divides.",
        ("CT",),
        lambda scan: scan.traced_carina(),
    ),
    _organs(
        "T4",
        "Centre of the vertebral body: the part deeper than 0.6 times the largest depth.",
        lambda bone: bone.core(BODY_DEPTH),
        "vertebrae_T4",
    ),
    *_bronchus("right", -1, RIGHT_BRONCHUS_MM),
    _organs(
        "Aortic Arch Center",
        "Centre of the aorta above the slice where it divides into ascending and descending.",
        find.arch_centre,
        "aorta",
    ),
    _organs(
        "Aortic Root",
        "Centre of the lowest 10 mm of the ascending aorta, the front one of its two parts.",
        find.root,
        "aorta",
    ),
    _branch("Left Subclavian Artery", "subclavian_artery_left", "aorta"),
    *_bronchus("left", 1, LEFT_BRONCHUS_MM),
    _branch("Left Common Carotid Artery", "common_carotid_artery_left", "aorta"),
    _organs(
        "Liver Top",
        "Dome: middle of the liver's highest section.",
        lambda liver: liver.end(0, 1).centre(),
        "liver",
    ),
    Rule(
        "Liver Top",
        "Top of the right diaphragm: of the soft tissue that bulges into the right lung.",
        ("lung", "CT"),
        lambda scan: scan.dome(),
    ),
    _clavicle("right", -1),
    _organs(
        "Suprasternal Notch",
        "Middle 10 mm of the upper edge of the sternum's highest 25 mm.",
        find.notch,
        "sternum",
    ),
    _organs(
        "Brachiocephalic Artery Bifurcation",
        "Centre of the part of the trunk nearest to both of its branches.",
        find.bifurcation,
        "brachiocephalic_trunk",
        "subclavian_artery_right",
        "common_carotid_artery_right",
    ),
    _organs(
        "Brachiocephalic Artery Bifurcation",
        "Upper end of the trunk: centre of its highest 5 mm.",
        lambda trunk: trunk.end(0, 1, 5.0).centre(),
        "brachiocephalic_trunk",
    ),
    _clavicle("left", 1),
    _vertebral_branch("right", -1),
    _vertebral_branch("left", 1),
    *_lung_top("right", -1),
    _organs(
        "Sternum Tip",
        "Lower end of the sternum: centre of its lowest 5 mm.",
        lambda sternum: sternum.end(0, -1, 5.0).centre(),
        "sternum",
    ),
    *_lung_top("left", 1),
    _branch("Celiac Trunk", "celiac_trunk", "aorta"),
)
