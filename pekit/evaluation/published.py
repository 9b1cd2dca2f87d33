"""Published results of the paper and others, to show beside ours.

They were measured on other studies, most of them on other data sets: a difference from our results
is not a comparison of methods. Nothing in the kit computes with these values, apart from
`PAPER_PREVALENCE`.

    published("IV")     # the paper's table IV, one row per value
    published()         # everything
"""

import pandas as pd

from pekit.common.errors import UserError

COLUMNS = ("table", "row", "metric", "value", "source", "dataset")
TABLES = ("I", "II", "III", "IV", "")
_METRICS = ("sensitivity", "specificity", "PPV", "NPV", "F1")

# Share of studies with PE among the paper's validation studies. 836 is printed (section V-A);
# 211 follows from its results (`_COUNTS` below). F1 and PPV depend on this share.
PAPER_PREVALENCE = 211 / 836

_PAPER = "Condrea et al."
_RSNA = "RSNA-STR, the paper's 836 validation studies"
# The paper chose the thresholds of its rows on the same studies that it reports.
_RANDOM = (0.693, 0.727, 0.468, 0.873, 0.559)
_BASELINE = (0.920, 0.944, 0.852, 0.971, 0.884)
_CROP = (0.958, 0.933, 0.832, 0.984, 0.890)
_LANDMARKS = (0.934, 0.946, 0.857, 0.976, 0.894)
_HOP2 = (0.929, 0.961, 0.891, 0.975, 0.910)

# The paper's rows: table -> row -> values of _METRICS. Table I is an image in the copy of the paper
# that was used: its two rows are those that table IV repeats.
_OWN = {
    "I": {"uncropped": _BASELINE, "crop": _CROP},
    "II": {"random": _RANDOM, "ImageNet-21K": _CROP, "landmarks": _LANDMARKS},
    "III": {"hop 1": _LANDMARKS, "hop 2": _HOP2},
    "IV": {"baseline": _BASELINE, "+ crop": _CROP, "+ landmarks": _LANDMARKS, "+ hop 2": _HOP2},
}

# Others in the paper's table IV: (authors, year, row, values of _METRICS, dataset). Ma et al. give
# the first two metrics only; their 0.81 is 0.82 in section II of the paper.
_CHEIKH = "1202 studies, 15.8 % with PE"
_PEERS = (
    ("Weikert", 2020, "AI", (0.927, 0.955, 0.796, 0.986, 0.860), "1455 studies, 15 % with PE"),
    ("Cheikh", 2022, "AI", (0.926, 0.958, 0.804, 0.986, 0.861), _CHEIKH),
    ("Cheikh", 2022, "radiologists", (0.9, 0.991, 0.95, 0.981, 0.924), _CHEIKH),
    ("Buls", 2021, "AI", (0.73, 0.95, 0.73, 0.94, 0.73), "500 studies, 15.8 % with PE"),
    ("Ma", 2022, "validation", (0.86, 0.85), "RSNA-STR, their validation part"),
    ("Ma", 2022, "test", (0.81, 0.90), "RSNA-STR, official test part"),
)

_BOARD = ("Kaggle, private leaderboard", "RSNA-STR, private test, 1517 studies")
_SIXTH = ("Kaggle, 6th place's write-up", "RSNA-STR train, five folds out of fold")
_FIRST = ("Kaggle, 1st place's write-up", "RSNA-STR train, 1000 studies held out")
# 24 and 15 are printed. 196 and 601 follow from table IV's row and 836 studies; its three digits
# also allow 197 and 600, or 198 and 599.
_COUNTS = (f"{_PAPER}, section V-G; TP and TN follow from table IV", _RSNA)
_READERS = (f"{_PAPER}, section V-E (several reader studies)", "various")
_PENET = ("Huang et al. 2020", "Stanford")

# Values that are in none of the paper's tables: (row, metric, value, (source, dataset)).
_OTHER = (
    ("+ hop 2", "TP", 196, _COUNTS),
    ("+ hop 2", "FN", 15, _COUNTS),
    ("+ hop 2", "TN", 601, _COUNTS),
    ("+ hop 2", "FP", 24, _COUNTS),
    ("radiologists, lowest", "sensitivity", 0.67, _READERS),
    ("radiologists, lowest", "specificity", 0.89, _READERS),
    ("radiologists, highest", "sensitivity", 0.87, _READERS),
    ("radiologists, highest", "specificity", 0.99, _READERS),
    ("PENet, internal test", "AUROC", 0.84, _PENET),
    ("PENet, external test", "AUROC", 0.85, ("Huang et al. 2020", "Intermountain")),
    ("Kaggle 1st, lowest", "slice AUROC", 0.962, _FIRST),
    ("Kaggle 1st, highest", "slice AUROC", 0.964, _FIRST),
    ("Kaggle 6th", "AUROC", 0.895, _SIXTH),
    ("Kaggle 6th", "slice q-weighted AUROC", 0.966, _SIXTH),
    ("Kaggle 6th", "weighted log loss", 0.2015, _SIXTH),
    ("Kaggle 4th", "weighted log loss", 0.152, _BOARD),
    ("Kaggle 5th", "weighted log loss", 0.155, _BOARD),
    ("Kaggle 6th", "weighted log loss", 0.156, _BOARD),
    ("Kaggle 7th", "weighted log loss", 0.157, _BOARD),
    ("Kaggle 9th", "weighted log loss", 0.162, _BOARD),
)


def published(table: str | None = None) -> pd.DataFrame:
    """Published results, one row per value, in the order of the paper.

    Args:
        table: the paper's table "I" (crop), "II" (initialisation), "III" (hops) or "IV" (peers); ""
            for values that are in none of them; all by default.

    Returns:
        Columns table, row, metric, value, source, dataset. Metrics have the names of
        `pekit.evaluation.metrics`: sensitivity, specificity, PPV, NPV, F1, AUROC. Values have the
        printed digits.

    Raises:
        UserError: no such table.
    """
    if table is not None and table not in TABLES:
        raise UserError(f"the paper has no table {table!r}: choose I, II, III, IV or ''")
    whole = [
        (
            "IV",
            f"{name} {year}, {row}",
            values,
            f"{name} et al. {year}, by {_PAPER}, table IV",
            data,
        )
        for name, year, row, values, data in _PEERS
    ]
    for number, rows in _OWN.items():
        source = f"{_PAPER}, table {number}" + (" as repeated in table IV" if number == "I" else "")
        whole += [(number, row, values, source, _RSNA) for row, values in rows.items()]
    found = [
        (number, row, metric, value, source, dataset)
        for number, row, values, source, dataset in sorted(whole, key=lambda r: TABLES.index(r[0]))
        for metric, value in zip(_METRICS, values, strict=False)
    ]
    found += [
        ("", row, metric, value, source, dataset)
        for row, metric, value, (source, dataset) in _OTHER
    ]
    everything = pd.DataFrame(found, columns=list(COLUMNS))
    if table is None:
        return everything
    return everything[everything["table"] == table].reset_index(drop=True)
