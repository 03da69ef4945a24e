"""What a training has come to: by epoch, and at its end."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import asdict, dataclass, fields

import torch
from torch import Tensor

from pipeline.distill.methods import Losses
from pipeline.train.device import Worker


@dataclass(frozen=True)
class EpochRow:
    """One epoch, a row of history.csv.

    Attributes:
        epoch: from 1.
        images: seen by all workers.
        loss: mean over the images, as are ``hard_loss`` and ``soft_loss``, its unweighted parts.
        accuracy: on the training views, percent; with mixup on, of the main image of each mixture.
        validation_loss: cross-entropy of the evaluated weights.
        validation_accuracy: percent.
        lr: the learning rate of its last step.
        seconds: of the epoch, validation included.
        images_per_second: of its training steps.
        waiting: the share of its training time in which a worker waited for data.
    """

    epoch: int
    images: int
    loss: float
    hard_loss: float
    soft_loss: float
    accuracy: float
    validation_loss: float
    validation_accuracy: float
    lr: float
    seconds: float
    images_per_second: float
    waiting: float


@dataclass
class Sums:
    """What an epoch under way has come to, over one worker's images."""

    images: int = 0
    loss: float = 0.0
    hard_loss: float = 0.0
    soft_loss: float = 0.0
    correct: int = 0
    seconds: float = 0.0
    waiting: float = 0.0

    def of_all(self, worker: Worker) -> Sums:
        """The sums over all workers; of ``seconds`` and ``waiting`` their mean."""
        values = torch.tensor(list(asdict(self).values()), dtype=torch.float64)
        names = [column.name for column in fields(self)]
        total = dict(zip(names, worker.sum(values.to(worker.device)).tolist(), strict=True))
        for name in ("seconds", "waiting"):
            total[name] /= worker.world_size
        for name in ("images", "correct"):
            total[name] = round(total[name])
        return Sums(**total)

    def add(self, losses: Losses, labels: Tensor) -> None:
        """Counts a step in."""
        count = len(labels)
        self.images += count
        self.loss += float(losses.total.detach()) * count
        self.hard_loss += float(losses.hard) * count
        self.soft_loss += float(losses.soft) * count
        self.correct += int((losses.logits.argmax(dim=1) == labels).sum())


@dataclass(frozen=True)
class Trained:
    """What a training ended with.

    Attributes:
        weights: of the best epoch on validation.
        history: a row an epoch.
        best_epoch: from 1.
        seconds: from the first step to the last checkpoint, over all attempts.
    """

    weights: dict[str, Tensor]
    history: list[EpochRow]
    best_epoch: int
    seconds: float


def as_csv(history: list[EpochRow]) -> str:
    """The content of history.csv."""
    text = io.StringIO()
    writer = csv.DictWriter(
        text, [column.name for column in fields(EpochRow)], lineterminator=os.linesep
    )
    writer.writeheader()
    writer.writerows(
        {name: round(value, 6) for name, value in asdict(row).items()} for row in history
    )
    return text.getvalue()
