"""Calibration, on answers whose calibration is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from pipeline.calibration import BINS, bins, calibration, calibration_error, temperature
from pipeline.inference import Answers


def honest(images: int, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits, and labels drawn by just the probabilities that they give."""
    drawn = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(images, classes, generator=drawn)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=drawn)[:, 0]


def answers(logits: Tensor, labels: Tensor) -> Answers:
    return Answers(tuple(map(str, range(len(labels)))), labels, logits)


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0])
def test_the_temperature_is_what_logits_were_multiplied_by(factor: float) -> None:
    logits, labels = honest(20_000)
    assert temperature(factor * logits, labels) == pytest.approx(factor, rel=0.03)


def test_who_is_too_sure_is_put_right_by_other_images() -> None:
    logits, labels = honest(20_000)
    found = calibration(answers(3 * logits, labels), answers(*_too_sure(seed=1)))
    assert found.error > 10
    assert found.error_scaled < 1
    assert found.temperature == pytest.approx(3, rel=0.03)
    assert sum(one.images for one in found.bins) == 20_000
    assert found.bins[-1].confidence > found.bins[-1].accuracy


def _too_sure(seed: int) -> tuple[Tensor, Tensor]:
    logits, labels = honest(20_000, seed=seed)
    return 3 * logits, labels


def test_the_error_is_the_mean_distance_of_sure_and_right() -> None:
    """Of four images that are 80 % sure three are right, and of two at 60 % one."""
    logits = torch.tensor([[math.log(4), 0.0]] * 4 + [[math.log(1.5), 0.0]] * 2)
    found = bins(logits, torch.tensor([0, 0, 0, 1, 0, 1]))
    assert [(one.images, round(one.confidence), one.accuracy) for one in found] == [
        (2, 60, 50.0),
        (4, 80, 75.0),
    ]
    assert calibration_error(found) == pytest.approx((4 * 5 + 2 * 10) / 6)


def test_certainty_is_in_the_last_bin_and_a_guess_in_its_own() -> None:
    logits = torch.tensor([[100.0, 0.0], [0.0, 0.0]])
    found = bins(logits, torch.tensor([0, 0]))
    assert len(found) == 2
    assert found[-1].confidence == 100
    assert found[0].confidence == 50
    assert BINS == 15


def test_what_is_always_right_is_trusted_as_far_as_it_may_be() -> None:
    logits = torch.tensor([[1.0, 0.0]] * 8)
    assert temperature(logits, torch.zeros(8, dtype=torch.int64)) == pytest.approx(0.05, rel=0.01)
