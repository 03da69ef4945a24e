"""Distillation methods: what a training step asks of its teachers and its student."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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
        number: which of their views the images are shown in.
        rows: int64 (N,), on the CPU, where the images stand in the training split.
    """

    images: Tensor
    targets: Tensor
    labels: Tensor
    number: int
    rows: Tensor


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
        memory: (views, images, classes) where the teachers' logits are to be remembered, so that a
            view that is shown again costs no teacher; null asks them every time.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        distillation: Distillation | None,
        memory: tuple[int, int, int] | None = None,
    ) -> None:
        if bool(weights) != (distillation is not None):
            raise ValueError("teachers and distillation go together")
        self._weights = dict(weights)
        self._distillation = distillation
        self._memory = (
            {name: torch.full(memory, torch.nan) for name in weights} if memory is not None else {}
        )
        self._teachers: dict[str, nn.Module] = {}
        self._student: nn.Module = nn.Identity()

    def setup(self, teachers: Mapping[str, nn.Module], student: nn.Module) -> None:
        """See :class:`Method`."""
        self._teachers = {
            name: teachers[name].eval().requires_grad_(False) for name in self._weights
        }
        self._student = student

    def loss(self, batch: StepBatch) -> Losses:
        """See :class:`Method`."""
        logits = self._student(batch.images).float()
        hard = cross_entropy(logits, batch.targets)
        if self._distillation is None:
            return Losses(hard, hard.detach(), torch.zeros_like(hard), logits.detach())
        soft = torch.zeros_like(hard)
        for name in self._teachers:
            theirs = self._ask(name, batch)
            soft = soft + self._weights[name] * soft_loss(
                logits, theirs, batch.labels, self._distillation
            )
        weight = self._distillation.weight
        total = (1 - weight) * hard + weight * soft
        return Losses(total, hard.detach(), soft.detach(), logits.detach())

    @torch.no_grad()
    def _ask(self, name: str, batch: StepBatch) -> Tensor:
        """A teacher's logits (N, C) on a batch, remembered where they are known."""
        memory = self._memory.get(name)
        if memory is not None:
            known = memory[batch.number, batch.rows]
            if not known.isnan().any():
                return known.to(batch.images.device)
        theirs: Tensor = self._teachers[name](batch.images).float()
        if memory is not None:
            memory[batch.number, batch.rows] = theirs.cpu()
        return theirs

    def state_dict(self) -> dict[str, Tensor]:
        """The remembered logits: asked again in another batch, they could differ by rounding."""
        return dict(self._memory)

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """See :class:`Method`.

        Another number of workers may have remembered where this one does not, or the reverse: what
        is not known is asked again.
        """
        if unknown := state.keys() - self._weights.keys():
            raise ValueError(f"remembered are {sorted(unknown)}, which teach nobody here")
        for name in state.keys() & self._memory.keys():
            self._memory[name].copy_(state[name])

    def export(self, student: nn.Module) -> nn.Module:
        """The student as it is."""
        return student
