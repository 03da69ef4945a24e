"""Distillation methods: what a training step asks of its teachers and its student."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

from pipeline.distill.losses import cross_entropy, soft_loss
from pipeline.params import Distillation


@dataclass(frozen=True)
class StepBatch:
    """One rank's images of one step, on the device.

    Attributes:
        images: float (N, 1, H, W), grey values 0 to 255, mixed already where mixup is on.
        targets: float (N, C), target probabilities, smoothed and mixed.
        labels: int64 (N,), the images' own classes.
        logits: of the teachers whose answers are stored, by run name: (N, C), of any float type.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor
    logits: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Losses:
    """What a step came to.

    Attributes:
        total: the scalar to minimise.
        hard: its part on the labels, unweighted.
        soft: its part on the soft targets, unweighted; zero without teachers.
        logits: the student's, (N, C).
    """

    total: Tensor
    hard: Tensor
    soft: Tensor
    logits: Tensor


class Method(Protocol):
    """How a student learns. A method with weights of its own keeps them in its state."""

    def setup(self, teachers: Mapping[str, nn.Module], student: nn.Module) -> None:
        """Takes the models; ``student`` is wrapped for data-parallel training where that is on."""

    def loss(self, batch: StepBatch) -> Losses:
        """Runs the models on a batch."""

    def state_dict(self) -> dict[str, Tensor]:
        """The method's own state, for a checkpoint."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes back what :meth:`state_dict` gave."""

    def export(self, student: nn.Module) -> nn.Module:
        """The network to keep, of a trained student."""


class SoftTargets:
    """Learning from labels and, where there are teachers, from their soft targets.

    The loss is ``(1 - weight) * cross-entropy + weight * soft loss`` (Mirzadeh 2020, eq. 3); the
    soft loss is averaged over the teachers with their weights. A model without teachers is the case
    of weight zero.

    Args:
        weights: of the teachers, by run name.
        distillation: null exactly where there are no teachers.
    """

    def __init__(self, weights: Mapping[str, float], distillation: Distillation | None) -> None:
        if bool(weights) != (distillation is not None):
            raise ValueError("teachers and distillation go together")
        self._weights = dict(weights)
        self._distillation = distillation
        self._teachers: dict[str, nn.Module] = {}
        self._student: nn.Module = nn.Identity()

    def setup(self, teachers: Mapping[str, nn.Module], student: nn.Module) -> None:
        """See :class:`Method`; a teacher that is not here has its logits in every batch."""
        self._teachers = {
            name: teacher.eval().requires_grad_(False) for name, teacher in teachers.items()
        }
        self._student = student

    def loss(self, batch: StepBatch) -> Losses:
        """See :class:`Method`."""
        logits = self._student(batch.images).float()
        hard = cross_entropy(logits, batch.targets)
        if self._distillation is None:
            return Losses(hard, hard.detach(), torch.zeros_like(hard), logits.detach())
        soft = torch.zeros_like(hard)
        for name, share in self._weights.items():
            theirs = self._ask(name, batch)
            soft = soft + share * soft_loss(logits, theirs, batch.labels, self._distillation)
        weight = self._distillation.weight
        total = (1 - weight) * hard + weight * soft
        return Losses(total, hard.detach(), soft.detach(), logits.detach())

    @torch.no_grad()
    def _ask(self, name: str, batch: StepBatch) -> Tensor:
        """A teacher's logits (N, C) on a batch."""
        if name in self._teachers:
            logits: Tensor = self._teachers[name](batch.images)
        else:
            logits = batch.logits[name]
        return logits.float()

    def state_dict(self) -> dict[str, Tensor]:
        """Nothing: neither teachers nor stored logits change."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See :class:`Method`."""
        if state:
            raise ValueError(f"this method has no state, but is given {sorted(state)}")

    def export(self, student: nn.Module) -> nn.Module:
        """The student as it is."""
        return student
