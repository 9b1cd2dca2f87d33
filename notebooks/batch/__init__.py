"""Running notebooks, one by one and in batches.

parameters.py    what a parameters cell declares; whether values fit; settings.py: what they make
notebook.py      run one notebook by papermill, in a kernel.py of its own
experiment.py    an experiment's YAML -> stages; axes.py: repeats over seeds and levels
checks.py        what would stop a stage hours later: files, values, GPUs, disk
fingerprint.py   what a stage's result depends on; contents.py: the files that it reads
record.py        which stages have to run, and why; changed.py: what differs from the commit
schedule.py      run these stages
commands.py      predict one study, review, export
lab.py           JupyterLab on copies of the notebooks
"""

import sys

# jsonschema, which nbformat imports, builds the grammar of internationalised addresses from this
# package at once: 3 s of every stage, for nothing. Where it is missing, jsonschema does without.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
