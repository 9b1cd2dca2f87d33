"""What a run records.

run.py          one stage's run: parameters, log, figures, tables, metrics
csv_log.py      rows that survive a kill
wandb_log.py    the same to Weights & Biases
provenance.py   commit, package versions, device
"""
