"""The page to hand over: one folder that shows an experiment, opens from disk, can be verified.

    review = make_review(Path("runs/demo"), Path("runs/demo/review"), {"cohort": "01_cohort.ipynb"})

`python notebooks/run.py review` names the stages; `python -m pekit.verify` checks the result.
"""

from pekit.review.build import Review, make_review

__all__ = ["Review", "make_review"]
