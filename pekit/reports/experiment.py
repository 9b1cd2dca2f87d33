"""Cases of a finished experiment, opened from the folders of its stages."""

from pathlib import Path

from pekit.checkpoint import load_hops
from pekit.dataset.split import read_split
from pekit.dataset.store import Store
from pekit.evaluation.predictions import read_predictions
from pekit.evaluation.thresholds import read_thresholds
from pekit.hop import to_best_device
from pekit.reports.cases import Explainer


def open_explainer(
    prepared: Path,
    model: Path,
    predictions: Path,
    evaluation: Path,
    part: str,
    method: str = "integrated_gradients",
    steps: int = 32,
) -> Explainer:
    """An explainer of the studies of one part, from the stages' folders.

    Raises:
        UserError: a stage is missing, or was made with another split.
    """
    _, split_hash = read_split(Path(prepared) / "split.csv")
    votes = read_thresholds(Path(evaluation) / "thresholds.json", split_hash).votes
    rows = read_predictions(Path(predictions), split_hash).query("part == @part")
    net, card = load_hops(Path(model))
    store = Store(Path(prepared) / "store")
    return Explainer(store, rows, votes, to_best_device(net), card.image_size, method, steps)
