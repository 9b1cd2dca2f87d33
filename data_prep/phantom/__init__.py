"""Synthetic CT pulmonary angiograms with known truth, so that the kit runs without the real data.

phantom.py   a study: anatomy, disease, labels
body.py      trunk, lungs, heart, bones, airways
vessels.py   arteries, veins, tubes on a grid
habitus.py   differences between patients
disease.py   clots, mimics, motion
files.py     DICOM files with headers as varied as the real ones
study.py     one study on disk, with its truth
cohort.py    a data set in the RSNA layout
"""

from data_prep.phantom.cohort import CohortConfig, write_cohort
from data_prep.phantom.phantom import Phantom, PhantomConfig, make_phantom
from data_prep.phantom.study import crop_truth, read_truth

__all__ = [
    "CohortConfig",
    "Phantom",
    "PhantomConfig",
    "crop_truth",
    "make_phantom",
    "read_truth",
    "write_cohort",
]
