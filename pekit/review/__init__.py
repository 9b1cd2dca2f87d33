"""One folder that shows an experiment to a reviewer, opens from disk, and can be verified.

build.py      gather it: `make review`
index.py      its first page; notebook.py: an executed notebook as a page
privacy.py    no path, host, user name or patient tag
bundle.py     files and hashes
verify.py     `make verify`; recompute.py: the tables again from the predictions
"""
