"""Losses on logits (N, C): pure functions, each a scalar for the whole batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.params import Distillation


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy against target probabilities (N, C)."""
    return -(targets * functional.log_softmax(logits, dim=1)).sum(dim=1).mean()


def standardize(logits: Tensor) -> Tensor:
    """Each image's logits with mean zero and deviation one (Sun 2024, eq. 5).

    Only the relations between the classes are left to learn, not the teacher's scale.
    """
    deviation = logits.std(dim=1, keepdim=True, correction=0)
    return (logits - logits.mean(dim=1, keepdim=True)) / (deviation + 1e-7)


def hinton(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² KL(teacher ‖ student) of the softened probabilities (Hinton 2015, section 2)."""
    return temperature**2 * functional.kl_div(
        functional.log_softmax(student / temperature, dim=1),
        functional.log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )


def dkd(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, alpha: float, beta: float
) -> Tensor:
    """Decoupled knowledge distillation (Zhao 2022, eq. 7).

    Args:
        student: logits (N, C).
        teacher: logits (N, C).
        labels: int64 (N,), the target classes.
        temperature: divides the logits; the loss is multiplied by its square.
        alpha: weight of the part on the target class against all others together.
        beta: weight of the part on the other classes among themselves.
    """
    target = functional.one_hot(labels, student.shape[1]).bool()

    def parts(logits: Tensor) -> tuple[Tensor, Tensor]:
        scaled = logits / temperature
        others = scaled.masked_fill(target, -torch.inf)
        two = torch.stack((scaled[target], others.logsumexp(dim=1)), dim=1)
        among = scaled[~target].reshape(len(scaled), -1)
        return functional.log_softmax(two, dim=1), functional.log_softmax(among, dim=1)

    student_two, student_among = parts(student)
    teacher_two, teacher_among = parts(teacher)
    on_target = functional.kl_div(student_two, teacher_two, reduction="batchmean", log_target=True)
    on_others = functional.kl_div(
        student_among, teacher_among, reduction="batchmean", log_target=True
    )
    return temperature**2 * (alpha * on_target + beta * on_others)


def dist(student: Tensor, teacher: Tensor, temperature: float, alpha: float, beta: float) -> Tensor:
    """Distillation from a stronger teacher: match relations, not values (Huang 2022, eq. 7 to 10).

    Args:
        student: logits (N, C).
        teacher: logits (N, C).
        temperature: divides the logits; the loss is multiplied by its square.
        alpha: weight of the correlation over the classes of each image.
        beta: weight of the correlation over the images for each class.
    """
    ours = (student / temperature).softmax(dim=1)
    theirs = (teacher / temperature).softmax(dim=1)
    between = 1 - _pearson(ours, theirs).mean()
    within = 1 - _pearson(ours.T, theirs.T).mean()
    return temperature**2 * (alpha * between + beta * within)


def soft_loss(
    student: Tensor, teacher: Tensor, labels: Tensor, distillation: Distillation
) -> Tensor:
    """The soft loss that the parameters name."""
    if distillation.standardize:
        student, teacher = standardize(student), standardize(teacher)
    temperature, alpha, beta = distillation.temperature, distillation.alpha, distillation.beta
    if distillation.loss == "hinton":
        return hinton(student, teacher, temperature)
    if distillation.loss == "dkd":
        return dkd(student, teacher, labels, temperature, alpha, beta)
    return dist(student, teacher, temperature, alpha, beta)


def _pearson(first: Tensor, second: Tensor) -> Tensor:
    first = first - first.mean(dim=1, keepdim=True)
    second = second - second.mean(dim=1, keepdim=True)
    return functional.cosine_similarity(first, second, dim=1)
