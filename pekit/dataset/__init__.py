"""From prepared studies to samples.

schema.py    column names, labels, landmarks, HU constants, public UIDs
store.py     prepared studies on disk: blosc2 volumes, parquet tables
split.py     the frozen split: parts and folds
stacks.py    2.5D stacks of neighbouring slices, as a torch Dataset
windows.py   HU windows, as a layer
augment.py   resizing and augmentation in one warp
sampler.py   which slices an epoch samples
synthetic.py prepared studies of noise, to measure speed
"""
