"""Figures of the kit: arrays and tables in, matplotlib figures out.

slices.py        axial and coronal slices, attributions
curves.py        probability along a study
training.py      loss curves
preparation.py   audit, crop, landmarks
scores.py        ROC, confusion tables, calibration, subgroups
ablation.py      arms of an ablation with intervals
tables.py        a table in a notebook, set as in the pages
overlays.py      drawing on one image: slice, mask, crop box, landmarks, attribution
base.py          figure class, colours, grids of axes

Every function returns a figure that Jupyter shows if it is the last expression of a cell; `to_png`
gives its bytes. Nothing uses pyplot, so no figure stays open and no display is needed. Images have
the radiological orientation: the patient's right on the left, front up.
"""
