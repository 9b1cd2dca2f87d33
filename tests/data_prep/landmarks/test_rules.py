"""Each landmark rule on masks built by hand, and on masks of a real CT with points set by eye."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest

from data_prep.anatomy.masks import Masks
from data_prep.images import read_image
from data_prep.landmarks import from_masks
from data_prep.landmarks.rules import RULES, landmark_rules
from pekit.common.errors import UserError
from pekit.dataset.schema import LANDMARKS

SHAPE = (60, 60, 60)
MM = (2.0, 2.0, 2.0)
CT = np.full(SHAPE, 40, np.int16)  # no airway to trace
NOTHING = np.zeros(SHAPE, bool)
Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def boxes(*parts: Box, shape=SHAPE) -> np.ndarray:
    """A mask of boxes, each start and stop along z, y, x."""
    mask = np.zeros(shape, bool)
    for part in parts:
        mask[tuple(slice(*ends) for ends in part)] = True
    return mask


def find(lung=NOTHING, **organs) -> dict:
    return from_masks(Masks(lung, NOTHING, organs), CT, MM)


def near(*voxel, voxels=1e-9):
    return pytest.approx(voxel, abs=voxels)


# Ascending in front, the arch above slice 45, descending behind.
ASCENDING, ARCH, DESCENDING = (
    ((20, 45), (15, 25), (25, 35)),
    ((45, 55), (15, 48), (25, 35)),
    ((5, 45), (40, 48), (25, 35)),
)
AORTA = boxes(ASCENDING, ARCH, DESCENDING)


def test_arch_and_root():
    found = find(aorta=AORTA)
    assert found["Aortic Arch Center"] == near(49.5, 31, 29.5)
    # The lowest 10 mm are slices 20 to 24.
    assert found["Aortic Root"] == near(22, 19.5, 29.5)


@pytest.mark.parametrize(
    ("aorta", "arch", "root"),
    [
        ((ASCENDING, ((45, 60), (15, 48), (25, 35)), DESCENDING), False, True),  # arch cut
        ((((20, 60), *ASCENDING[1:]), ((5, 60), *DESCENDING[1:])), False, True),  # no arch in view
        ((((0, 45), *ASCENDING[1:]), ARCH, DESCENDING), True, False),  # root cut
        ((DESCENDING,), False, False),
        ((ASCENDING,), False, False),
    ],
)
def test_arch_or_root_cut_by_the_edge(aorta, arch, root):
    found = find(aorta=boxes(*aorta))
    assert (found["Aortic Arch Center"] is not None) == arch
    assert (found["Aortic Root"] is not None) == root


def test_bumps_on_the_arch_are_no_parting():
    bumps = ((55, 58), (15, 25), (25, 35)), ((55, 58), (30, 40), (25, 35))  # 400 mm2, 6 mm high
    found = find(aorta=boxes(ASCENDING, ARCH, DESCENDING, *bumps))
    assert found["Aortic Root"] == near(22, 19.5, 29.5)
    assert 49.5 < found["Aortic Arch Center"][0] < 51


def test_origins_from_the_aorta():
    subclavian = ((55, 59), (34, 37), (28, 31)), ((57, 59), (34, 37), (31, 50))
    found = find(
        aorta=AORTA,
        subclavian_artery_left=boxes(*subclavian),
        common_carotid_artery_left=boxes(((55, 59), (20, 24), (26, 30))),
        celiac_trunk=boxes(((8, 11), (30, 40), (28, 31))),
    )
    # The two layers next to the aorta, 2 and 4 mm away.
    assert found["Left Subclavian Artery"] == near(55.5, 35, 29)
    assert found["Left Common Carotid Artery"] == near(55.5, 21.5, 27.5)
    assert found["Celiac Trunk"] == near(9, 38.5, 29)


@pytest.mark.parametrize(
    "celiac",
    [
        ((0, 3), (30, 40), (28, 31)),  # its origin on the first slice
        ((8, 11), (24, 34), (28, 31)),  # 14 mm from the aorta
    ],
)
def test_origin_cut_or_too_far(celiac):
    aorta = boxes(((0, 45), *DESCENDING[1:]))
    assert find(aorta=aorta, celiac_trunk=boxes(celiac))["Celiac Trunk"] is None
    assert find(celiac_trunk=boxes(celiac))["Celiac Trunk"] is None, "the aorta is needed"


def test_nearest_is_measured_in_mm():
    shape, mm = (40, 60, 60), (5.0, 1.0, 1.0)
    aorta = boxes(((5, 35), (20, 40), (20, 40)), shape=shape)
    # Starts 2 mm beside the aorta, and runs one slice, 5 mm, above it.
    celiac = boxes(((33, 35), (28, 32), (41, 46)), ((35, 36), (28, 32), (30, 46)), shape=shape)
    nothing = np.zeros(shape, bool)
    masks = Masks(nothing, nothing, {"aorta": aorta, "celiac_trunk": celiac})
    found = from_masks(masks, np.full(shape, 40, np.int16), mm)["Celiac Trunk"]
    # Columns 41 to 43, 2 to 4 mm from column 39.
    assert found == near(33.5, 29.5, 42)


def test_t4_is_the_vertebras_body():
    body = ((20, 32), (20, 30), (20, 34))
    spine = ((22, 30), (30, 50), (25, 29))  # 8 mm thick, a third of the volume
    bone = boxes(body, spine)
    assert find(vertebrae_T4=bone)["T4"] == near(25.5, 24.5, 26.5, voxels=0.5)
    cut = boxes(((52, 60), *body[1:]), ((52, 58), *spine[1:]))
    assert find(vertebrae_T4=cut)["T4"] is None
    cut = boxes(((0, 8), *body[1:]), ((2, 8), *spine[1:]))
    assert find(vertebrae_T4=cut)["T4"] is None
    below = boxes(body, ((0, 30), (44, 50), (25, 29)), spine)
    assert find(vertebrae_T4=below)["T4"] == near(25.5, 24.5, 26.5, voxels=0.5), "only its process"


TRACHEA = ((40, 58), (28, 34), (27, 33))
# One voxel lower, one voxel further out; 5 voxels wide.
RIGHT = [((39 - k, 40 - k), (28, 34), (24 - k, 29 - k)) for k in range(15)]
LEFT = [((39 - k, 40 - k), (28, 34), (31 + k, 36 + k)) for k in range(15)]
APICAL = ((36, 55), (30, 32), (20, 22))  # a branch that rises beside the trachea


def test_carina_and_main_bronchi():
    found = find(lung_trachea_bronchia=boxes(TRACHEA, *RIGHT, *LEFT, APICAL))
    assert found["Carina Bifurcation"] == near(40, 30.5, 29.5)
    # k voxels down the middle is 2 sqrt((1 + k)^2 + (3.5 + k)^2) mm away: 15 mm at 2.9, 25 at 6.5.
    assert found["Right Primary Bronchus"] == near(36.1, 30.5, 23.1, voxels=0.7)
    assert found["Left Primary Bronchus"] == near(32.5, 30.5, 39.5, voxels=0.7)


def test_carina_and_bronchi_not_in_view():
    bronchi = boxes(*(((z[0] + 20, z[1] + 20), y, x) for z, y, x in (*RIGHT, *LEFT)))
    found = find(lung_trachea_bronchia=bronchi)
    assert found["Carina Bifurcation"] is found["Left Primary Bronchus"] is None
    found = find(lung_trachea_bronchia=boxes(TRACHEA))
    assert found["Carina Bifurcation"] is found["Right Primary Bronchus"] is None
    short = boxes(TRACHEA, *RIGHT, *LEFT[:5])
    assert find(lung_trachea_bronchia=short)["Left Primary Bronchus"] is None


def test_carina_of_the_trachea_alone():
    parted = boxes(TRACHEA, *RIGHT[:6], *LEFT[:6])
    assert find(trachea=parted)["Carina Bifurcation"] == near(40, 30.5, 29.5)
    assert find(trachea=boxes(TRACHEA))["Carina Bifurcation"] == near(40, 30.5, 29.5)
    assert find(trachea=boxes(((0, 58), *TRACHEA[1:])))["Carina Bifurcation"] is None


def test_liver_top():
    liver = ((5, 20), (10, 40), (5, 40)), ((20, 25), (20, 30), (15, 25))
    assert find(liver=boxes(*liver))["Liver Top"] == near(24, 24.5, 19.5)
    cut = boxes(liver[0], ((20, 60), *liver[1][1:]))
    assert find(liver=cut)["Liver Top"] is None


def test_liver_top_of_the_lung_mask():
    def lung(top: int) -> np.ndarray:
        """A right lung above a dome that reaches up to slice `top` (exclusive)."""
        mask = boxes(((0, 40), (5, 55), (2, 26)))
        mask[:top, 10:45, 2:18] = False
        return mask

    # Found at 4 mm, two voxels of these.
    assert find(lung(9))["Liver Top"] == near(8, 27, 9.5, voxels=2)
    assert find(lung(1))["Liver Top"] is None, "the first slice cuts it"
    assert find(lung(0))["Liver Top"] is None


def test_medial_clavicles():
    right = ((48, 52), (10, 14), (16, 26)), ((52, 56), (10, 14), (5, 16))
    left = tuple((z, y, (60 - x[1], 60 - x[0])) for z, y, x in right)
    found = find(clavicula_right=boxes(*right), clavicula_left=boxes(*left))
    # 5 mm are two columns.
    assert found["Right Medial Clavicle"] == near(49.5, 11.5, 24.5)
    assert found["Left Medial Clavicle"] == near(49.5, 11.5, 34.5)
    lateral_cut = boxes(right[0], ((52, 60), (10, 14), (0, 16)))
    assert find(clavicula_right=lateral_cut)["Right Medial Clavicle"] == near(49.5, 11.5, 24.5)
    cut = boxes(((56, 60), *right[0][1:]), ((56, 60), *right[1][1:]))
    assert find(clavicula_right=cut)["Right Medial Clavicle"] is None


BREASTBONE = ((12, 40), (8, 11), (26, 34))
XIPHOID = ((8, 12), (9, 11), (28, 32))


def manubrium(top: int) -> np.ndarray:
    mask = boxes(((40, top), (8, 12), (20, 40)))
    mask[top - 2 :, :, 27:33] = False  # the notch
    return mask


def test_sternum_tip_and_notch():
    stray = ((2, 4), (8, 10), (40, 42))
    cartilage = ((20, 26), (8, 11), (34, 50))  # the whole is not symmetrical, its top is
    found = find(sternum=manubrium(52) | boxes(BREASTBONE, XIPHOID, cartilage, stray))
    # 3 mm are slices 48 and 49, under the notch; the strip is columns 27 to 32.
    assert found["Suprasternal Notch"] == near(48.5, 9.5, 29.5)
    assert found["Sternum Tip"] == near(8.5, 9.5, 29.5)
    found = find(sternum=boxes(((40, 60), (8, 12), (20, 40)), BREASTBONE, XIPHOID))
    assert found["Suprasternal Notch"] is None
    assert found["Sternum Tip"] is not None
    found = find(sternum=manubrium(52) | boxes(((0, 40), *BREASTBONE[1:])))
    assert found["Suprasternal Notch"] is not None
    assert found["Sternum Tip"] is None


def test_brachiocephalic_bifurcation():
    trunk = boxes(((40, 58), (20, 25), (20, 25)))
    assert find(brachiocephalic_trunk=trunk)["Brachiocephalic Artery Bifurcation"] == near(
        56.5, 22, 22
    )
    arteries = {
        "subclavian_artery_right": boxes(((46, 49), (20, 25), (8, 20))),
        "common_carotid_artery_right": boxes(((46, 49), (5, 20), (20, 25))),
    }
    found = find(brachiocephalic_trunk=trunk, **arteries)["Brachiocephalic Artery Bifurcation"]
    # The corner between both: 2 mm from each at its edge, 4 mm one voxel further in.
    assert found == near(47, 20.5, 20.5, voxels=0.3)
    cut = boxes(((40, 60), (20, 25), (20, 25)))
    assert find(brachiocephalic_trunk=cut)["Brachiocephalic Artery Bifurcation"] is None


@pytest.mark.parametrize(("side", "x"), [("left", 41), ("right", 18)])
def test_vertebral_branch(side, x):
    def artery(*parts: Box) -> dict[str, np.ndarray]:
        mask = boxes(*parts)
        return {f"subclavian_artery_{side}": mask if side == "left" else mask[:, :, ::-1]}

    rise, bend = ((30, 50), (30, 33), (34, 37)), ((50, 53), (30, 33), (34, 56))
    arm = ((53, 58), (30, 33), (50, 56))  # higher, but more than 30 mm from the medial end
    name = f"{side.title()} Subclavian and Vertebralis Branch"
    # 30 mm are columns 34 to 48, 3 mm slices 51 and 52.
    assert find(**artery(rise, bend, arm))[name] == near(51.5, 31, x)
    cut = ((30, 60), (30, 33), (34, 37))
    assert find(**artery(cut, bend))[name] is None


LOBES = {
    "lung_upper_lobe_right": boxes(((30, 50), (20, 40), (5, 20))),
    "lung_middle_lobe_right": NOTHING,
    "lung_lower_lobe_right": boxes(((10, 30), (20, 40), (5, 20))),
    "lung_upper_lobe_left": boxes(((30, 50), (20, 30), (40, 55))),
    "lung_lower_lobe_left": boxes(((10, 52), (30, 40), (40, 55))),
}


def test_lung_tops_come_from_lobes_first():
    lung = boxes(((10, 40), (20, 40), (5, 20)), ((10, 40), (20, 40), (40, 55)))
    found = find(lung, **LOBES)
    assert found["Right Lung Top"] == near(49, 29.5, 12)
    assert found["Left Lung Top"] == near(51, 34.5, 47)
    some = {name: mask for name, mask in LOBES.items() if name != "lung_middle_lobe_right"}
    assert find(lung, **some)["Right Lung Top"] == near(39, 29.5, 12), "not all lobes are there"
    cut = {"lung_upper_lobe_left": boxes(((30, 60), (20, 30), (40, 55)))}
    assert find(lung, **(LOBES | cut))["Left Lung Top"] is None
    assert find(lung, **dict.fromkeys(LOBES, NOTHING))["Right Lung Top"] is None


def test_every_landmark_has_rules():
    table = landmark_rules()
    assert list(table.columns) == ["name", "rule", "masks"]
    assert set(table["name"]) == set(LANDMARKS)
    assert table["rule"].str.endswith(".").all()
    assert table["masks"].str.len().min() > 0
    tops = table.loc[table["name"] == "Left Lung Top", "masks"].tolist()
    assert tops == ["lung_upper_lobe_left, lung_lower_lobe_left", "lung, CT"]


ORGANS = {mask for rule in RULES for mask in rule.masks} - {"CT", "lung", "heart"}


def test_missing_empty_and_tiny_masks_give_nothing():
    tiny = boxes(((30, 32), (30, 32), (30, 32)))  # 64 mm3
    assert set(find()) == set(LANDMARKS)
    for organs in ({}, dict.fromkeys(ORGANS, NOTHING), dict.fromkeys(ORGANS, tiny)):
        assert not any(find(**organs).values())


class Lazy(Mapping):
    """Masks that are made on access and counted."""

    def __init__(self):
        self.asked = Counter()

    def __getitem__(self, name):
        self.asked[name] += 1
        return AORTA

    def __iter__(self):
        return iter((*ORGANS, "spleen"))

    def __len__(self):
        return len(ORGANS) + 1


def test_each_mask_is_asked_for_once():
    organs = Lazy()
    from_masks(Masks(NOTHING, NOTHING, organs), CT, MM)
    assert set(organs.asked.values()) == {1}
    assert "aorta" in organs.asked
    assert "spleen" not in organs.asked, "no rule needs it"
    assert "trachea" not in organs.asked, "the first rule for the carina does without"


def test_mask_of_another_shape_is_named():
    with pytest.raises(UserError, match=r"the mask liver has the shape \(3, 4, 5\)"):
        find(liver=np.ones((3, 4, 5), bool))


# Placed by eye in pictures of the CT (axial, coronal and sagittal slices with the masks' outlines)
# before the rules were run; voxels (z, y, x) in LPS, 1.5 mm.
BY_EYE = {
    # Middle of the outflow at the foot of the sinuses: axial slice 81, sagittal 55.
    "Aortic Root": (81, 47, 56),
    # Half-way along the arch and between its upper and lower wall, the false lumen included:
    # axial slice 140, sagittal 61.
    "Aortic Arch Center": (140, 75, 61),
    # Where each artery's outline, followed downwards, meets the arch.
    "Left Common Carotid Artery": (132, 50, 50),
    "Left Subclavian Artery": (141, 59, 57),
    # Where it leaves the aorta's front wall: axial slices 14 to 16, sagittal 51.
    "Celiac Trunk": (15, 69, 51),
}


def test_rules_on_real_masks_against_the_eye(shared_data):
    folder = shared_data / "chest_segmented"
    ct = read_image(folder / "ct_cropped.nii.gz")
    organs = {f.name.removesuffix(".nii.gz"): read_image(f).array > 0 for f in folder.glob("*.gz")}
    # T4 is not in the scan; its rule is tested on T12, whose body is as easy to see.
    organs["vertebrae_T4"] = organs["vertebrae_T12"]
    nothing = np.zeros(ct.array.shape, bool)
    found = from_masks(Masks(nothing, nothing, organs), ct.array, ct.spacing_mm)
    for name, voxel in {**BY_EYE, "T4": (18, 98, 46)}.items():
        error = (np.array(found[name]) - voxel) * ct.spacing_mm
        assert np.linalg.norm(error) < 10, name
    # The last slice cuts the artery before its bend.
    assert found["Left Subclavian and Vertebralis Branch"] is None
