"""Audit of the studies: each gets the status ok, repaired or excluded, with reasons.

rules.py        rules for one study
continuity.py   damaged slices, by comparison with their neighbours
studies.py      a whole data set, into tables
"""
