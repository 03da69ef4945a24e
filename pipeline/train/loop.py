"""The training loop: one for teachers, assistants and students. Plain PyTorch; it knows no Ray."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from pipeline.distill.methods import Losses, Method, StepBatch
from pipeline.errors import TrainingError
from pipeline.models.build import ScriptClassifier
from pipeline.params import Training
from pipeline.train.checkpoint import Checkpoint
from pipeline.train.device import Worker, autocast_dtype
from pipeline.train.history import EpochRow, Sums, Trained
from pipeline.train.optimize import (
    Average,
    learning_rate,
    make_optimizer,
    mixup,
    optimizer_tensors,
    restore_optimizer,
    set_rate,
    targets_of,
)

if TYPE_CHECKING:
    from pipeline.data.loader import Batch, Loader

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 5.0


class Keeper(Protocol):
    """Where checkpoints go. All workers call it equally often."""

    def keep(self, checkpoint: Checkpoint, metrics: Mapping[str, float]) -> None:
        """Keeps a checkpoint, so that it replaces the one before it."""

    def asks(self, step: int) -> bool:
        """Whether a checkpoint is wanted after a step, beyond the regular ones.

        All workers call it after every step, and get the same answer.
        """


@dataclass
class Trainer:
    """One model's training.

    Attributes:
        name: the run's, for messages.
        model: trained in place.
        classes: of its logits.
        method: how it learns.
        teachers: by run name, those that are asked; the logits of others come with the batches.
        training: the parameters.
        seed: of dropout and mixup.
        train: loads this worker's views.
        validation: loads this worker's share of the validation images.
        worker: which process this is.
        keeper: where checkpoints go.
        checkpoint_steps: steps between two checkpoints within an epoch; 0 keeps only those at an
            epoch's end. No parameter of the result.
    """

    name: str
    model: ScriptClassifier
    classes: int
    method: Method
    teachers: Mapping[str, nn.Module]
    training: Training
    seed: int
    train: Loader
    validation: Loader
    worker: Worker
    keeper: Keeper
    checkpoint_steps: int = 0
    _history: list[EpochRow] = field(default_factory=list, init=False)
    _best: dict[str, Tensor] = field(default_factory=dict, init=False)
    _best_epoch: int = field(default=0, init=False)

    def run(self, resume: Checkpoint | None = None) -> Trained:
        """Trains from the start, or on from a checkpoint.

        Returns:
            The best weights on validation.

        Raises:
            TrainingError: the loss is not finite; the message names the step and the images.
        """
        epoch, step, sums = 0, 0, Sums()
        if resume is not None:
            epoch, step = resume.epoch, resume.step
        self._ask_for(epoch, step)
        self._set_up()
        self._began = time.perf_counter()
        if resume is not None:
            sums = self._restore(resume)
            log.info("%s goes on from epoch %d, step %d", self.name, epoch + 1, step)
        while epoch < self.training.epochs and not self._out_of_patience():
            self._train_epoch(epoch, step, sums)
            epoch, step, sums = epoch + 1, 0, Sums()
            row = self._history[-1]
            self.keeper.keep(
                self._checkpoint(epoch, 0, sums),
                {"epoch": row.epoch, "validation_accuracy": row.validation_accuracy},
            )
        self.train.close()
        return Trained(self._best, self._history, self._best_epoch, self._seconds())

    def _set_up(self) -> None:
        device = self.worker.device
        self._dtype = autocast_dtype(self.training.precision, device)
        for model in (self.model, *self.teachers.values()):
            model.to(device).to(memory_format=torch.channels_last)
        self._optimizer = make_optimizer(self.training, self.model, self.model.pretrained)
        self._scaler = torch.amp.GradScaler(
            device.type, enabled=self._dtype is torch.float16, init_scale=2.0**14
        )
        self._average = Average(self.model, self.training.ema) if self.training.ema else None
        self.method.setup(self.teachers, self.worker.wrap(self.model))
        self._steps = self.train.planner.steps * self.training.epochs

    def _ask_for(self, epoch: int, step: int) -> None:
        """Lets the loader begin with an epoch, so that batches are there when they are wanted."""
        if epoch < self.training.epochs:
            self._batches = self.train.epoch(epoch, step)

    def _train_epoch(self, epoch: int, first_step: int, sums: Sums) -> None:
        self.model.train()
        plan = self.train.planner.shuffled(epoch)
        began = shown = time.perf_counter()
        spent = sums.seconds
        for step in range(first_step, plan.steps):
            asked = time.perf_counter()
            batch = next(self._batches)
            sums.waiting += time.perf_counter() - asked
            done = epoch * plan.steps + step
            rate = learning_rate(self.training, done, self._steps)
            share = len(batch.keys) * self.worker.world_size / plan.size(step)
            sums.add(*self._step(batch, epoch, step, rate, share))
            if self._average is not None:
                self._average.update(self.model, done)
            now = time.perf_counter()
            sums.seconds = spent + now - began
            if now - shown > PROGRESS_SECONDS and step + 1 < plan.steps:
                self._show(epoch, step + 1, plan.steps, sums)
                shown = now
            due = self.checkpoint_steps and (step + 1) % self.checkpoint_steps == 0
            if self.keeper.asks(step) or due:
                self.keeper.keep(self._checkpoint(epoch, step + 1, sums), {"epoch": epoch})
        self._ask_for(epoch + 1, 0)
        last = learning_rate(self.training, (epoch + 1) * plan.steps - 1, self._steps)
        self._end_epoch(epoch, last, sums)

    def _step(
        self, batch: Batch, epoch: int, step: int, rate: float, share: float
    ) -> tuple[Losses, Tensor]:
        # The random state is a function of where the training is, so a checkpoint need not hold it.
        place = f"{self.seed}/{epoch}/{step}/{self.worker.rank}".encode()
        torch.manual_seed(int.from_bytes(hashlib.blake2b(place, digest_size=7).digest()))
        device = self.worker.device
        images = batch.images.to(device, torch.float32, non_blocking=True)
        labels = batch.labels.to(device, non_blocking=True)
        targets = targets_of(labels, self.classes, self.training.label_smoothing)
        if self.training.mixup:
            images, targets = mixup(images, targets, self.training.mixup)
        logits = {name: said.to(device, non_blocking=True) for name, said in batch.logits.items()}
        with self._autocast():
            losses = self.method.loss(StepBatch(images, targets, labels, logits))
        if not math.isfinite(float(losses.total.detach())):
            keys = ", ".join(batch.keys[:8]) + (" ..." if len(batch.keys) > 8 else "")
            raise TrainingError(
                f"{self.name}: the loss is {float(losses.total.detach())} at epoch {epoch + 1}, "
                f"step {step + 1}, rank {self.worker.rank}, on the images {keys}; lower "
                "training.lr, set training.clip_norm, or look at these images"
            )
        set_rate(self._optimizer, rate)
        # Workers' gradients are averaged, so a worker counts by its share of the global batch.
        torch.autograd.backward(self._scaler.scale(losses.total * share))
        if self.training.clip_norm:
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.training.clip_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        return losses, labels

    def _end_epoch(self, epoch: int, rate: float, sums: Sums) -> None:
        began = time.perf_counter()
        evaluated = self.worker.of_the_first(
            self._average.state if self._average else self.model.state_dict()
        )
        validation_loss, validation_accuracy = self._validate(evaluated)
        total = sums.of_all(self.worker)
        row = EpochRow(
            epoch=epoch + 1,
            images=total.images,
            loss=total.loss / total.images,
            hard_loss=total.hard_loss / total.images,
            soft_loss=total.soft_loss / total.images,
            accuracy=100 * total.correct / total.images,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            lr=rate,
            seconds=total.seconds + time.perf_counter() - began,
            images_per_second=total.images / total.seconds,
            waiting=total.waiting / total.seconds,
        )
        if self._is_best(row):
            self._best = {name: value.detach().clone() for name, value in evaluated.items()}
            self._best_epoch = row.epoch
        self._history.append(row)
        left = row.seconds * (self.training.epochs - row.epoch)
        log.info(
            "%s  epoch %d/%d  loss %.3f  validation %.2f %%  %.0f images/s  %s left",
            *(self.name, row.epoch, self.training.epochs, row.loss, validation_accuracy),
            *(row.images_per_second, _clock(left)),
        )

    def _is_best(self, row: EpochRow) -> bool:
        def merit(of: EpochRow) -> tuple[float, float]:
            return of.validation_accuracy, -of.validation_loss

        return not self._best_epoch or merit(row) > merit(self._history[self._best_epoch - 1])

    def _out_of_patience(self) -> bool:
        waited = len(self._history) - self._best_epoch
        return bool(self.training.patience) and waited >= self.training.patience

    @torch.inference_mode()
    def _validate(self, weights: Mapping[str, Tensor]) -> tuple[float, float]:
        """Mean cross-entropy and accuracy in percent, over all workers' shares."""
        with self._weights_in_place(weights):
            loss, correct, images = 0.0, 0, 0
            for batch in self.validation.all_in_order():
                with self._autocast():
                    logits = self.model(batch.images.to(self.worker.device, torch.float32)).float()
                labels = batch.labels.to(self.worker.device)
                loss += float(nn.functional.cross_entropy(logits, labels, reduction="sum"))
                correct += int((logits.argmax(dim=1) == labels).sum())
                images += len(labels)
        totals = torch.tensor(
            [loss, correct, images], dtype=torch.float64, device=self.worker.device
        )
        loss, hits, count = self.worker.sum(totals).tolist()
        return loss / count, 100 * hits / count

    @contextmanager
    def _weights_in_place(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        own = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(weights)
        self.model.eval()
        try:
            yield
        finally:
            self.model.load_state_dict(own)
            self.model.train()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.worker.device.type, self._dtype or torch.bfloat16, enabled=self._dtype is not None
        )

    def _checkpoint(self, epoch: int, step: int, sums: Sums) -> Checkpoint:
        parts = {
            "model": self.model.state_dict(),
            "average": self._average.state if self._average else {},
            "best": self._best,
            "optimizer": optimizer_tensors(self._optimizer),
            "method": self.method.state_dict(),
        }
        numbers: dict[str, Any] = {
            "history": [asdict(row) for row in self._history],
            "best_epoch": self._best_epoch,
            "seconds": self._seconds(),
            "sums": asdict(sums.of_all(self.worker)),
            "scaler": self._scaler.state_dict(),
        }
        tensors = {
            f"{part}.{name}": value
            for part, values in parts.items()
            for name, value in values.items()
        }
        return Checkpoint(epoch, step, tensors, numbers)

    def _restore(self, checkpoint: Checkpoint) -> Sums:
        device = self.worker.device
        self.model.load_state_dict(checkpoint.part("model"))
        if self._average is not None:
            for name, value in checkpoint.part("average").items():
                self._average.state[name].copy_(value)
        restore_optimizer(self._optimizer, checkpoint.part("optimizer"))
        self.method.load_state_dict(checkpoint.part("method"))
        self._scaler.load_state_dict(checkpoint.numbers["scaler"])
        self._best = {name: value.to(device) for name, value in checkpoint.part("best").items()}
        self._best_epoch = checkpoint.numbers["best_epoch"]
        self._began -= checkpoint.numbers["seconds"]
        self._history = [EpochRow(**row) for row in checkpoint.numbers["history"]]
        sums = Sums(**checkpoint.numbers["sums"])
        # They are of all workers together, so one of them goes on with them.
        return sums if self.worker.rank == 0 else Sums(seconds=sums.seconds, waiting=sums.waiting)

    def _seconds(self) -> float:
        return time.perf_counter() - self._began

    def _show(self, epoch: int, done: int, steps: int, sums: Sums) -> None:
        share = (epoch + done / steps) / self.training.epochs
        spent = sum(row.seconds for row in self._history) + sums.seconds
        log.info(
            "%s  epoch %d/%d  %3.0f %%  loss %.3f  %.0f images/s  %s left",
            *(self.name, epoch + 1, self.training.epochs, 100 * done / steps),
            *(sums.loss / sums.images, sums.images * self.worker.world_size / sums.seconds),
            _clock(spent * (1 - share) / share),
        )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
