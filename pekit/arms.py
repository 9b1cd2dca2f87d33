"""One arm of an ablation: seeds judged on the same studies, metrics resampled over both."""

from dataclasses import dataclass

import numpy as np

from pekit.resampling import draws


@dataclass(frozen=True)
class Arm:
    """Verdicts `(seeds, studies)` bool and scores in [0,1] of one arm; truth `(studies,)` bool.

    Its metrics are those of `pekit.metrics.SUMMARY`, in that order.
    """

    truth: np.ndarray
    verdict: np.ndarray
    score: np.ndarray
    seeds: tuple[int, ...]

    def by_seed(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Metrics `(resamples, metrics, seeds)`; each study once where no weights are given."""
        weights = np.ones((1, len(self.truth))) if weights is None else weights
        return np.stack([self._metrics(weights, s) for s in range(len(self.seeds))], axis=2)

    def resampled(self, n_boot: int, seed: int) -> np.ndarray:
        """Metrics `(1 + resamples, metrics)`, mean over seeds; the first row is of all studies."""
        studies, seeds = (
            np.concatenate([np.ones((1, n)), *draws(n, n_boot, seed + k)])
            for k, n in enumerate((len(self.truth), len(self.seeds)))
        )
        # A seed that was not drawn has no say, not even with a metric that is undefined.
        seeds = seeds[:, None]
        weighted = np.where(seeds > 0, self.by_seed(studies) * seeds, 0)
        return weighted.sum(axis=2) / len(self.seeds)

    def _metrics(self, weights: np.ndarray, seed: int) -> np.ndarray:
        """Metrics `(resamples, metrics)` of one seed; NaN where undefined."""
        truth, verdict, score = self.truth, self.verdict[seed], self.score[seed]
        cells = [truth & verdict, ~truth & verdict, truth & ~verdict, ~truth & ~verdict]
        tp, fp, fn, tn = (weights @ cell.astype(float) for cell in cells)
        above = score[truth][:, None] - score[~truth][None]
        wins = (above > 0) + 0.5 * (above == 0)
        pairs = ((weights[:, truth] @ wins) * weights[:, ~truth]).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.stack(
                [
                    tp / (tp + fn),
                    tn / (tn + fp),
                    tp / (tp + fp),
                    tn / (tn + fn),
                    2 * tp / (2 * tp + fp + fn),
                    pairs / ((tp + fn) * (tn + fp)),
                ],
                axis=1,
            )
