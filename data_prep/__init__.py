"""From DICOM files, or synthetic studies (phantoms), to prepared studies.

rsna.py      layout of the RSNA-STR data set: CSVs and folders
dicom/       a folder of DICOM files -> volume in HU;  images.py: NIfTI, NRRD;  volume.py
audit/       status of each study: ok, repaired, excluded
anatomy/     masks of lungs and heart, hull, crop
landmarks/   the 20 landmarks
prepare/     one study, or a whole data set, into a store
split/       train, validation, test and folds
parallel/    many studies in many processes, resumable
phantom/     synthetic studies with known truth
"""
