"""The parts of a training step that know nothing of the model: rate, optimizer, average, mixup."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipeline.params import Training


def learning_rate(training: Training, step: int, steps: int) -> float:
    """The rate of a step: linear warm-up, then a cosine to zero (Loshchilov 2017, eq. 5).

    Args:
        training: the peak and the share of warm-up.
        step: from 0, over all epochs.
        steps: of all epochs.
    """
    warmup = round(training.warmup * steps)
    if step < warmup:
        return training.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return training.lr * 0.5 * (1 + math.cos(math.pi * progress))


def make_optimizer(
    training: Training, model: nn.Module, pretrained: Iterable[nn.Parameter] = ()
) -> torch.optim.Optimizer:
    """The optimizer; biases and norms are not decayed, pretrained parameters move slowly."""
    slow = set(map(id, pretrained))
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in filter(lambda parameter: parameter.requires_grad, model.parameters()):
        share = training.pretrained_lr if id(parameter) in slow else 1.0
        decay = training.weight_decay if parameter.ndim > 1 else 0.0
        groups.setdefault((share, decay), []).append(parameter)
    described = [
        {"params": members, "share": share, "weight_decay": decay}
        for (share, decay), members in groups.items()
    ]
    if training.optimizer == "sgd":
        nesterov = training.momentum > 0
        return torch.optim.SGD(described, training.lr, training.momentum, nesterov=nesterov)
    return torch.optim.AdamW(described, training.lr, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of every group of :func:`make_optimizer`, each by its share."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by parameter and name, for example ``3.exp_avg``."""
    state = optimizer.state_dict()["state"]
    return {
        f"{parameter}.{name}": value
        for parameter, values in state.items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Takes back what :func:`optimizer_tensors` gave."""
    content = optimizer.state_dict()
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        place, name = key.split(".", 1)
        parameter = parameters[int(place)]
        if tensor.shape == parameter.shape:
            # Laid out in memory as its parameter is: a fused step walks through both at once.
            tensor = torch.empty_like(parameter).copy_(tensor)  # noqa: PLW2901
        state.setdefault(int(place), {})[name] = tensor
    optimizer.load_state_dict({**content, "state": state})


def targets_of(labels: Tensor, classes: int, smoothing: float) -> Tensor:
    """Target probabilities (N, classes), a part of them spread over all classes evenly."""
    return functional.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes


def mixup(images: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Mixes each image with another of the batch, and their targets alike (Zhang 2018, eq. 1).

    Args:
        images: float (N, 1, H, W).
        targets: float (N, C).
        alpha: of the Beta distribution from which the share is drawn, one for the batch.
    """
    share = float(torch.distributions.Beta(alpha, alpha).sample())
    order = torch.randperm(len(images)).to(images.device)
    mixed = share * images + (1 - share) * images[order]
    return mixed, share * targets + (1 - share) * targets[order]


class Average:
    """A moving average of a model's weights and buffers.

    The decay rises with the steps, so that the first weights, which are noise, are forgotten soon.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.state = {name: value.detach().clone() for name, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Moves towards the model's weights after a step, counted from 0 over all epochs."""
        decay = min(self._decay, (1 + step) / (10 + step))
        now = model.state_dict()
        averaged = [name for name, value in now.items() if value.is_floating_point()]
        get_ema_multi_avg_fn(decay)(  # type: ignore[no-untyped-call]
            [self.state[name] for name in averaged], [now[name] for name in averaged], None
        )
        for name in now.keys() - set(averaged):
            self.state[name].copy_(now[name])
