"""The title of a table: studies, prevalence, thresholds, and what the intervals cover."""

import pandas as pd
import pytest

from pekit.evaluation.ablation import AblationSettings
from pekit.evaluation.evaluate import EvaluationSettings
from pekit.evaluation.summary import ablation_title, evaluation_title, seeds_text

AT = (
    "PPV at 25 % and F1 at 25 %: from sensitivity and specificity at the paper's prevalence "
    "(25.2 %)"
)


def test_an_evaluation():
    truth = pd.Series([1] * 47 + [0] * 103)
    assert evaluation_title("lab", truth, EvaluationSettings()) == (
        "lab: 150 test studies, 47 with PE (31.3 %); thresholds chosen on these same studies "
        "(paper), on validation studies (held-out); 95 % intervals over studies; not over "
        f"trainings; {AT}"
    )
    same = evaluation_title("lab", truth, EvaluationSettings(choose_on="test"))
    assert "on the other half of these studies (held-out)" in same


def arms(*rows: tuple[str, int, int, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["level", "seeds", "studies", "with_pe"])


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ((3, 3), "mean of 3 seeds; 95 % intervals over studies and seeds"),
        ((1, 1), "1 seed; 95 % intervals over studies; not over trainings"),
        ((2, 3), "mean of 2 to 3 seeds; 95 % intervals over studies and seeds"),
        (
            (1, 3),
            "mean of 1 to 3 seeds; 95 % intervals over studies and seeds (1 seed: over studies; "
            "not over trainings)",
        ),
    ],
)
def test_intervals_of_one_seed_do_not_cover_trainings(seeds, text):
    of_seeds = arms(("", 0, 40, 10), *(("", n, 40, 10) for n in seeds))  # 0: all positive
    assert seeds_text(of_seeds) == text
    title = ablation_title("lab", of_seeds, AblationSettings(tables={}))
    assert title.startswith(f"lab: 40 test studies, 10 with PE (25.0 %); {text}; thresholds chosen")
    assert title.endswith(AT)


def test_levels_with_other_studies_are_named():
    title = ablation_title(
        "lab", arms(("easy", 3, 40, 10), ("hard", 3, 40, 20)), AblationSettings(tables={})
    )
    assert "easy: 40 test studies, 10 with PE (25.0 %), hard: 40 test studies, 20 with" in title
