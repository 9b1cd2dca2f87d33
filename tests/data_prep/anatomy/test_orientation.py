"""Spine, trachea and heart contradict a header that turns the patient over."""

import numpy as np
import pytest

from data_prep.anatomy import segment
from data_prep.audit.rules import audit_alone
from data_prep.errors import SegmentationError
from data_prep.phantom import PhantomConfig, make_phantom

REAL = (
    "chest_dicom", "chest_ct/lung2_image.nrrd", "chest_pa_contrast", "chest_arterial",
    "chest_segmented/ct_cropped.nii.gz",
)  # fmt: skip
UP, FRONT, LEFT = "upside down", "front and back are exchanged", "left and right may be exchanged"


def said(hu: np.ndarray, spacing) -> str:
    """Remarks, or the error, of a volume."""
    try:
        return "; ".join(segment(np.ascontiguousarray(hu), spacing).remarks)
    except SegmentationError as error:
        return str(error)


@pytest.fixture(params=("phantom 1", "phantom 3", *REAL))
def scan(request):
    if request.param not in REAL:
        phantom = make_phantom(int(request.param.split()[1]), PhantomConfig())
        return request.param, phantom.hu, phantom.spacing_mm
    volume = audit_alone(request.getfixturevalue("shared_data") / request.param)[1]
    return request.param, volume.hu, volume.spacing_mm


def test_axes_that_are_right_get_no_remark(scan):
    _, hu, spacing = scan
    assert not any(wrong in said(hu, spacing) for wrong in (UP, FRONT, LEFT))


def test_axes_that_are_wrong_get_one(scan):
    name, hu, spacing = scan
    spine, whole = "segmented" not in name, "pa_contrast" not in name  # of the others too little
    assert (UP in said(hu[::-1], spacing)) == whole
    assert (FRONT in said(hu[:, ::-1], spacing)) == spine
    turned = said(hu[::-1, ::-1], spacing)  # as if by 180 degrees about the x axis
    assert (UP in turned, FRONT in turned) == (whole, spine)
    if name in REAL[:2]:  # whole chests, whose heart lies as most do
        assert LEFT in said(hu[:, :, ::-1], spacing)
