"""The RSNA-STR competition.

metric.py        the official metric
consistency.py   label rules, and the repair of submissions that break them
writer.py        exam probabilities and the submission file
"""
