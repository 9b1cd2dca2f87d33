"""Records of runs.

run.py          record of one run of a stage: parameters, log, figures, tables, metrics
csv_log.py      log as CSV, written row by row; values for JSON
wandb_log.py    the same record for Weights & Biases
provenance.py   commit, package versions, device
"""
