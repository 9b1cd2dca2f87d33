"""From DICOM files, or from nothing (phantoms), to prepared studies.

rsna.py      the RSNA-STR data set: CSVs and folders
dicom/       a folder of DICOM files -> volume in HU;  images.py: NIfTI, NRRD;  volume.py
audit/       is each study what it says?
anatomy/     masks of lungs and heart, hull, crop
landmarks/   the 20 landmarks
prepare/     one study, and all of them, into a store
split/       train, validation, test and folds
parallel/    many studies in many processes, resumable
phantom/     synthetic studies with their truth
"""
