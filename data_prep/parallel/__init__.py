"""Many studies in many processes.

pool.py      worker processes whose death is survived
records.py   one record per study: what is done, and what is to be done again
"""
