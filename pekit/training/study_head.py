"""Training of a study head on frozen slice features, with the competition's score as loss.

    history = fit_head(head, features, store, split, weights, image_weight, settings, folder, log)
    trained = load_head(folder)

`head` is where the training starts, and stays as it is: the same call again repeats the training;
after a kill it resumes after the last whole epoch; once it has ended, it gives its history. All
that is random in an epoch depends on seed and epoch only: on a CPU the weights end the same to the
bit.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from pekit.checkpoint import save_head
from pekit.common.errors import UserError
from pekit.common.progress import progress
from pekit.dataset.schema import SLICE_LABEL
from pekit.dataset.store import Store
from pekit.inference.features import Batch, SliceFeatures, pad_studies
from pekit.model.study_head import StudyHead
from pekit.training.resume import Checkpoint, Position, ended, key_of, telling_what_follows
from pekit.training.settings import HeadSettings

Log = Callable[[dict[str, float], int], None]


def competition_loss(
    slice_logits: Tensor, exam_logits: Tensor, batch: Batch, weights: Tensor, image_weight: float
) -> tuple[Tensor, Tensor]:
    """Numerator and denominator of the competition's score, over the slices in the crop box.

    sum_ij w_j BCE_ij + sum_i w q_i sum_k BCE_ik over N + w sum_i m_i: study i has m_i positive
    slices, a fraction q_i of its slices, so that slices of a study without PE weigh nothing.
    """
    exam = F.binary_cross_entropy_with_logits(exam_logits, batch["exam_label"], reduction="none")
    slices = F.binary_cross_entropy_with_logits(
        slice_logits, batch["slice_label"], reduction="none"
    )
    burden = batch["positives"] / batch["slices"]
    image = ((slices * batch["repeats"]).sum(dim=1) * burden).sum()
    weight = len(exam) + image_weight * batch["positives"].sum()
    return (exam * weights).sum() + image_weight * image, weight


def fit_head(
    head: StudyHead,
    features: SliceFeatures,
    store: Store,
    split: pd.DataFrame,
    weights: Mapping[str, float],
    image_weight: float,
    settings: HeadSettings,
    folder: Path,
    log: Log,
) -> pd.DataFrame:
    """Train a copy of `head` on the split's training part and save it in `folder`.

    The result has the weights after the last epoch; the validation loss chooses nothing.

    Args:
        head: the start; it is not changed.
        features: of the train and validation studies.
        split: StudyInstanceUID and part (train, validation).
        weights: weight in the loss of each exam label, in the order of `head.labels`.
        image_weight: weight of the slices in the loss.
        folder: where the head and `training.json` are written, and `resume-<key>.ckpt` until then.
        log: takes a row of numbers and the epoch.

    Returns:
        One row per epoch: epoch, train_loss, validation_loss, lr.

    Raises:
        UserError: an empty part, unlabelled studies, other labels, a loss that is not finite.
    """
    if tuple(weights) != head.labels:
        raise UserError(
            f"weights are for {list(weights)}, but the head predicts {list(head.labels)}"
        )
    parts = {}
    for part in ("train", "validation"):
        studies = sorted(split.loc[split["part"] == part, "StudyInstanceUID"])
        if not studies:
            raise UserError(f"the split has no study in its {part} part")
        parts[part] = LabelledStudies(features, store, studies, head.labels)
    data = f"{features.key} {sorted(features.volumes.items())} {dict(weights)} {image_weight}"
    module, shaping = "pekit.training.study_head", settings.model_dump_json()
    key = key_of(head, store, split, module, shaping, data)
    saved = Path(folder) / "head.safetensors"
    if history := ended(folder, key, saved):
        for row in history:
            log(row, row["epoch"])
        return pd.DataFrame(history)
    head = copy.deepcopy(head)
    _start_at_prevalence(head, parts["train"].exam)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    run = _Training(head.to(device), parts, weights, image_weight, settings, device)
    checkpoint = Checkpoint(folder, key, head, run.optimizer)
    position = checkpoint.load()
    checkpoint.announce(position)
    run.history = position.history
    for row in run.history:
        log(row, row["epoch"])
    left = range(len(run.history), settings.epochs)
    with telling_what_follows(folder, key):
        for _ in progress(left, desc=f"{settings.kind} head, epochs"):
            row = run.epoch()
            checkpoint.save(Position(epoch=len(run.history), history=run.history))
            log(row, row["epoch"])
    save_head(folder, head)
    checkpoint.end(saved, run.history)
    return pd.DataFrame(run.history)


class _Training:
    """State of a training between epochs; `epoch` trains one."""

    def __init__(self, head, parts, weights, image_weight, settings, device):
        self.head, self.parts, self.settings, self.device = head, parts, settings, device
        self.weights = torch.tensor(list(weights.values()), device=device)
        self.image_weight = image_weight
        self.history: list[dict[str, float]] = []
        self.optimizer = torch.optim.AdamW(
            head.parameters(), lr=settings.lr, weight_decay=settings.weight_decay
        )
        self.steps = -(-len(parts["train"].studies) // settings.batch_size)

    def epoch(self) -> dict[str, float]:
        """One pass over the training studies and one over the validation studies."""
        s, done = self.settings, len(self.history)
        order = np.random.default_rng((s.seed, done)).permutation(self.parts["train"].studies)
        # Dropout depends on seed and epoch only as well.
        torch.manual_seed(s.seed * 10_000 + done)
        train = self._mean_loss("train", order.tolist(), learn=True)
        with torch.inference_mode():
            validation = self._mean_loss("validation", self.parts["validation"].studies)
        row = {"epoch": done + 1, "train_loss": train, "validation_loss": validation}
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        self.history.append(row)
        return row

    def _mean_loss(self, part: str, studies: list[str], learn: bool = False) -> float:
        self.head.train(learn)
        total, weight, size = 0.0, 0.0, self.settings.batch_size
        for step, at in enumerate(range(0, len(studies), size)):
            batch = self.parts[part].batch(studies[at : at + size])
            batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
            logits = self.head(batch["features"], batch["probability"], batch["mask"])
            above, below = competition_loss(*logits, batch, self.weights, self.image_weight)
            if not torch.isfinite(above):
                raise UserError(
                    f"the loss is {above.item()} in epoch {len(self.history) + 1}, batch {step}, "
                    f"{part} part: lower lr"
                )
            if learn:
                self._learn(above / below, len(self.history) * self.steps + step)
            total, weight = total + above.item(), weight + below.item()
        return total / weight

    def _learn(self, loss: Tensor, step: int) -> None:
        whole = self.settings.epochs * self.steps
        warmup = max(1, whole // 10)
        factor = min((step + 1) / warmup, (whole - step) / max(1, whole - warmup))
        self.optimizer.param_groups[0]["lr"] = self.settings.lr * factor
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.head.parameters(), 1.0)
        self.optimizer.step()


def _start_at_prevalence(head: StudyHead, exam: pd.DataFrame) -> None:
    # Exam labels are rare: from one half, the first epochs would learn their prevalence only.
    known = (exam.sum() + 0.5) / (len(exam) + 1)
    with torch.no_grad():
        head.exam_out.weight.mul_(0.1)
        head.exam_out.bias.copy_(torch.logit(torch.tensor(known.to_numpy(np.float32))))


class LabelledStudies:
    """Slice features of studies with their labels, as padded batches.

    Args:
        features: of at least these studies.
        studies: their StudyInstanceUIDs.
        labels: names of the exam labels, columns of the store's studies.

    Raises:
        UserError: a study is not prepared, a label column is missing, or a label is not 0 or 1.
    """

    def __init__(
        self, features: SliceFeatures, store: Store, studies: Sequence[str], labels: tuple[str, ...]
    ):
        self.features, self.studies = features, list(studies)
        unknown = [study for study in self.studies if study not in features.volumes]
        if unknown:
            raise UserError(f"study {unknown[0]} is not prepared in {store.root}: check the split")
        table = store.studies.set_index("StudyInstanceUID")
        missing = [name for name in labels if name not in table]
        if missing:
            raise UserError(f"{store.root} has no exam labels {', '.join(missing)}")
        self.exam = table.loc[self.studies, list(labels)]
        slices = store.slices
        slices = slices[slices["StudyInstanceUID"].isin(self.studies)]
        known = self.exam.isin((0, 1)).all(axis=1)
        unlabelled = slices.loc[~slices[SLICE_LABEL].isin((0, 1)), "StudyInstanceUID"]
        for study in (*known.index[~known], *unlabelled):
            raise UserError(f"study {study} is not labelled: leave it out of the split")
        ordered = slices.sort_values(["StudyInstanceUID", "z"])
        self.whole = {s: g.to_numpy() for s, g in ordered.groupby("StudyInstanceUID")[SLICE_LABEL]}
        self.box = table.loc[self.studies, ["box_z0", "box_z1"]].astype(int)

    def batch(self, studies: Sequence[str]) -> Batch:
        """Features of `pad_studies` with labels: slice_label and repeats `(B, S)`, exam_label
        `(B, labels)`, positives and slices `(B,)` (counts in the whole studies, also outside the
        crop box).

        With a stride, a slice stands for itself and those until the next one that was read, as in
        predictions: `repeats` is their number (0 in the padding) and slice_label their mean label.
        The loss is then that of all slices with repeated probabilities.
        """
        box = [self.box.loc[study] for study in studies]
        within = [self.whole[s][b.box_z0 : b.box_z1] for s, b in zip(studies, box, strict=True)]
        starts = [np.arange(0, len(w), self.features.stride) for w in within]
        repeats = [np.diff(at, append=len(w)) for w, at in zip(within, starts, strict=True)]
        label = [
            np.add.reduceat(w, at) / n for w, at, n in zip(within, starts, repeats, strict=True)
        ]
        return pad_studies(self.features, studies) | {
            "slice_label": pad_sequence([torch.tensor(part).float() for part in label], True),
            "repeats": pad_sequence([torch.tensor(part).float() for part in repeats], True),
            "exam_label": torch.tensor(self.exam.loc[list(studies)].to_numpy(np.float32)),
            "positives": torch.tensor([float(self.whole[s].sum()) for s in studies]),
            "slices": torch.tensor([float(len(self.whole[s])) for s in studies]),
        }
