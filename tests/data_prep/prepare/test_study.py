"""Preparation of a study that is in no data set."""

import numpy as np
import pytest

from data_prep.images import write_image
from data_prep.prepare import PrepareSettings, prepare_volume, settings_of_one_study
from data_prep.volume import Volume
from pekit.common.errors import UserError

SPACING, ORIGIN = (10.0, 8.0, 8.0), (0.0, 0.0, 0.0)
PRECOMPUTED = PrepareSettings(segmenter="precomputed", masks_folder="masks", crop="box")


def test_a_study_brings_its_own_masks(tmp_path):
    lung, heart = np.zeros((2, 30, 40, 50), bool)
    lung[5:25, 10:30, 8:16] = lung[5:25, 10:30, 34:42] = True  # 4096 mL
    heart[8:18, 14:22, 22:27] = True
    hu = np.full(lung.shape, 40, np.int16)
    hu[lung] = -850
    for name, mask in (("lung", lung), ("heart", heart)):
        write_image(tmp_path / f"{name}.nii.gz", mask, SPACING, ORIGIN)
    volume = Volume(hu, SPACING, ORIGIN, "study", "series", [f"{z}" for z in range(30)])
    made = prepare_volume(volume, settings_of_one_study(PRECOMPUTED, masks=str(tmp_path)))
    assert made.box_zyx.tolist() == [[5, 25], [10, 30], [8, 42]]
    # A data set that was prepared by another method takes masks too.
    other = PrepareSettings(crop="box", segmenter_options={"weights": "x"}, landmarks="x.csv")
    again = prepare_volume(volume, settings_of_one_study(other, masks=str(tmp_path)))
    assert (again.hu == made.hu).all()


def test_precomputed_masks_that_are_missing_say_what_to_set():
    with pytest.raises(UserError, match=r"set MASKS=<folder .* or SEGMENTER=threshold"):
        settings_of_one_study(PRECOMPUTED)
    chosen = settings_of_one_study(PRECOMPUTED, segmenter="threshold")
    assert (chosen.segmenter, chosen.masks_folder) == ("threshold", None)
    with pytest.raises(UserError, match="MASKS and SEGMENTER=threshold exclude each other"):
        settings_of_one_study(PRECOMPUTED, "folder", "threshold")
    with pytest.raises(UserError, match="no segmentation method 'treshold'"):
        settings_of_one_study(PRECOMPUTED, segmenter="treshold")


def test_without_a_choice_a_study_is_prepared_as_those_of_the_data_set():
    settings = PrepareSettings(segmenter="lungmask", segmenter_options={"weights": "x"})
    assert settings_of_one_study(settings) == settings
    assert settings_of_one_study(settings, segmenter="threshold").segmenter_options == {}
