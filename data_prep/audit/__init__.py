"""Is every study what it says?

rules.py        the rules of a verdict
continuity.py   slices unlike both neighbours
studies.py      a whole data set, in tables
"""
