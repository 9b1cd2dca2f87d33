"""Work on many studies in parallel, resumable.

pool.py      pool of worker processes; a killed worker does not end the batch
records.py   one record on disk per study, for resuming
"""
