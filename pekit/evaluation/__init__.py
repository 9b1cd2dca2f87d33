"""From predictions to tables that a reviewer can check.

predictions.py   predictions, checked once; by study
evaluate.py      all tables of 31_evaluate; tables.py: each of them
protocols.py     thresholds chosen on the studies reported (paper), or on others (held-out)
thresholds.py    the file that keeps them
metrics.py       metrics with intervals; bootstrap.py: how the intervals are made
paired.py        are two models different? McNemar, DeLong
calibration.py   reliability, Brier score, ECE, temperature
subgroups.py     sensitivity by clot burden, place, quality
exam_labels.py   the nine exam labels
errors.py        which studies are wrong, and how
ablation.py      arms over seeds
published.py     figures of the paper and of others
checks.py        vectors that fit each other
"""
