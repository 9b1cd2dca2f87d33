"""Review bundle: a folder that shows an experiment to a reviewer, opens from disk, can be verified.

build.py       make a bundle: `make review`
index.py       its first page
notebook.py    an executed notebook as a page
privacy.py     no path, host name, user name or DICOM UID
pictures.py    every picture decodes
bundle.py      layout, files and hashes
verify.py      check a bundle: `make verify`
recompute.py   recompute its tables from its predictions
"""
