"""Running notebooks, one by one and in batches.

parameters.py    what a parameters cell declares; whether values fit
notebook.py      run one notebook by papermill
experiment.py    an experiment's YAML -> stages; axes.py: repeats over seeds and levels
fingerprint.py   what a stage's result depends on
schedule.py      run the stages that are missing or out of date
commands.py      predict one study, review, export
"""
