"""From predictions to tables that a reviewer can check.

predictions.py   predictions, checked once; by study
evaluate.py      all tables of 31_evaluate; tables.py: one function per table
protocols.py     thresholds chosen on the studies reported (paper) or on others (held-out)
thresholds.py    thresholds.json: the chosen votes
metrics.py       metrics with intervals; bootstrap.py: how the intervals are made
paired.py        are two models different? McNemar, DeLong
calibration.py   reliability, Brier score, ECE, temperature
subgroups.py     sensitivity by clot burden, location, image quality
exam_labels.py   the nine exam labels
errors.py        error analysis: studies with a wrong verdict
ablation.py      tables of an ablation: arms with several seeds; arm.py: one of them
summary.py       the table that people read first, and its title
published.py     published results of the paper and others (on other studies, not comparable)
checks.py        checks of columns and vectors
"""
