"""Is every study what it says?

rules.py        the rules of a status
continuity.py   slices unlike both neighbours
studies.py      a whole data set, in tables
"""
