"""Figures of the kit: arrays and tables in, matplotlib figures out.

slices.py        axial and coronal slices, attributions; overlays.py: what is drawn on them
curves.py        probability along a study
training.py      loss curves
preparation.py   studies, crop, landmarks
scores.py        ROC, confusion, calibration, subgroups
ablation.py      arms with their intervals
base.py          figure class, colours, axes in a grid

Every function returns a figure that Jupyter shows when it is a cell's last expression; `to_png`
gives its bytes. There is no pyplot, so nothing is kept open and no display is needed. Images are
shown as radiologists hold them: the patient's right on the left, front up.
"""
