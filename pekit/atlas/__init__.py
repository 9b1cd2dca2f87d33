"""What the network used in a study, and the error atlas: every study that a vote gets wrong.

errors.py    which they are, grouped and sorted, with labels, quality flags and audit notes
cases.py     one study explained: top slices, attribution of each hop, curve, slice viewer
sections.py  the atlas as sections of a page
"""

from pekit.atlas.cases import Case, Explainer
from pekit.atlas.errors import (
    FALSE_NEGATIVE,
    FALSE_POSITIVE,
    facts,
    most_telling,
    study_errors,
    top_slices,
)
from pekit.atlas.sections import atlas_sections

__all__ = [
    "FALSE_NEGATIVE",
    "FALSE_POSITIVE",
    "Case",
    "Explainer",
    "atlas_sections",
    "facts",
    "most_telling",
    "study_errors",
    "top_slices",
]
