from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pipeline.params import Training
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


def training(**changes: Any) -> Training:
    return Training.model_validate({"epochs": 1, "lr": 0.1, **changes})


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def take_steps(model: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    for step in range(count):
        images = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        torch.autograd.backward(model(images).square().mean())
        optimizer.step()


def test_the_rate_rises_linearly_to_its_peak() -> None:
    settings = training(warmup=0.25)
    rates = [learning_rate(settings, step, 40) for step in range(11)]
    assert rates == pytest.approx([*(0.01 * n for n in range(1, 11)), 0.1])


@pytest.mark.parametrize(
    ("step", "share"), [(0, 1.0), (25, (1 + math.sqrt(0.5)) / 2), (50, 0.5), (75, 0.1464466)]
)
def test_without_warm_up_the_rate_is_a_cosine(step: int, share: float) -> None:
    found = learning_rate(training(warmup=0), step, 100)
    assert found == pytest.approx(0.1 * share, rel=1e-5)


@given(st.floats(0, 1), st.integers(1, 300))
def test_the_rate_is_positive_never_above_its_peak_and_falls_once_it_is_reached(
    warmup: float, steps: int
) -> None:
    settings = training(warmup=warmup)
    rates = [learning_rate(settings, step, steps) for step in range(steps)]
    peak = rates.index(max(rates))
    assert all(0 < rate <= 0.1 + 1e-12 for rate in rates)
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_the_last_rate_is_near_zero() -> None:
    assert learning_rate(training(warmup=0.1), 999, 1000) < 1e-6


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_weights_are_decayed_and_biases_and_norms_are_not(name: str) -> None:
    model = network()
    settings = training(optimizer=name, weight_decay=0.5, momentum=0)
    optimizer = make_optimizer(settings, model)
    before = {name: value.clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for key, value in model.named_parameters():
        expected = before[key] * (1 - 0.1 * 0.5) if value.ndim > 1 else before[key]
        torch.testing.assert_close(value, expected)


def test_pretrained_weights_move_by_their_share_of_the_rate() -> None:
    model = network()
    backbone, head = model[0], model[3]
    settings = training(optimizer="sgd", momentum=0, weight_decay=0, pretrained_lr=0.25)
    optimizer = make_optimizer(settings, model, backbone.parameters())
    set_rate(optimizer, 0.4)
    before = {name: value.clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    for name, value in backbone.named_parameters():
        torch.testing.assert_close(value, before[f"0.{name}"] - 0.1)
    for name, value in head.named_parameters():
        torch.testing.assert_close(value, before[f"3.{name}"] - 0.4)


def test_sgd_follows_nesterovs_formula() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    optimizer = make_optimizer(training(optimizer="sgd", momentum=0.5, weight_decay=0), model)
    velocity, weight = 0.0, 1.0
    for gradient in (1.0, -2.0, 0.5):
        model.weight.grad = torch.full((1, 1), gradient)
        optimizer.step()
        velocity = 0.5 * velocity + gradient
        weight -= 0.1 * (gradient + 0.5 * velocity)
    assert model.weight.item() == pytest.approx(weight)


def test_sgd_without_momentum_is_plain_descent() -> None:
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    optimizer = make_optimizer(training(optimizer="sgd", momentum=0, weight_decay=0), model)
    model.weight.grad = torch.full((1, 1), 2.0)
    optimizer.step()
    assert model.weight.item() == pytest.approx(0.8)


def test_frozen_weights_are_left_to_themselves() -> None:
    model = network()
    next(iter(model.parameters())).requires_grad_(False)
    groups = make_optimizer(training(), model).param_groups
    assert sum(len(group["params"]) for group in groups) == 5


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_restored_optimizer_takes_the_same_steps(name: str) -> None:
    model, restored = network(), network()
    settings = training(optimizer=name)
    optimizer, fresh = make_optimizer(settings, model), make_optimizer(settings, restored)
    take_steps(model, optimizer, 3)
    restored.load_state_dict(model.state_dict())
    kept = {key: value.clone() for key, value in optimizer_tensors(optimizer).items()}
    restore_optimizer(fresh, kept)
    take_steps(model, optimizer, 2)
    take_steps(restored, fresh, 2)
    for ours, theirs in zip(model.parameters(), restored.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    unrestored = network()
    unrestored.load_state_dict(model.state_dict())
    assert optimizer_tensors(make_optimizer(settings, unrestored)) == {}


def test_smoothing_spreads_a_share_over_all_classes_evenly() -> None:
    found = targets_of(torch.tensor([2, 0]), 4, 0.2)
    expected = torch.tensor([[0.05, 0.05, 0.85, 0.05], [0.85, 0.05, 0.05, 0.05]])
    torch.testing.assert_close(found, expected)
    assert targets_of(torch.tensor([1]), 2, 0).tolist() == [[0, 1]]


def test_mixup_mixes_images_and_targets_with_one_share() -> None:
    torch.manual_seed(0)
    # Image n is the constant 10^n, so that a mixture tells what it was made from.
    images = (10.0 ** torch.arange(4)).reshape(4, 1, 1, 1).expand(4, 1, 2, 2)
    mixed, targets = mixup(images, torch.eye(4), 2.0)
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    torch.testing.assert_close(targets @ (10.0 ** torch.arange(4)), mixed[:, 0, 0, 0])
    assert float(targets.diagonal().min()) < 1


@pytest.mark.parametrize(("alpha", "extreme"), [(0.05, True), (50.0, False)])
def test_mixups_alpha_says_how_even_the_shares_are(alpha: float, extreme: bool) -> None:
    torch.manual_seed(0)
    shares = []
    for _ in range(100):
        _, targets = mixup(torch.zeros(8, 1, 1, 1), torch.eye(8), alpha)
        shares.append(float(targets.amax(dim=1).median()))
    assert (sum(share > 0.95 for share in shares) > 70) == extreme
    assert (sum(share < 0.75 for share in shares) > 70) == (not extreme)


def test_the_average_follows_its_formula_and_copies_counters() -> None:
    model = network()
    average = Average(model, decay=0.5)
    expected: dict[str, Tensor] = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = make_optimizer(training(), model)
    for step in range(12):
        take_steps(model, optimizer, 1)
        average.update(model, step)
        decay = min(0.5, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value
    assert average.state["1.num_batches_tracked"] == 12
    for name, value in average.state.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, expected[name])
    assert not torch.equal(average.state["0.weight"], model.state_dict()["0.weight"])
