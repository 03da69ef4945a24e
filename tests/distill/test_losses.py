"""The losses against their papers' formulas, written out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from pipeline.distill import losses
from pipeline.params import Distillation

LABELS = torch.tensor([0, 2, 1, 2])
SETTINGS = [
    Distillation(loss=loss, temperature=2.0, standardize=standardize)
    for loss in ("hinton", "dkd", "dist")
    for standardize in (False, True)
]
every_loss = pytest.mark.parametrize(
    "settings", SETTINGS, ids=lambda s: f"{s.loss}{'-standardized' * s.standardize}"
)


def logits(seed: int, images: int = 4, classes: int = 3, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(images, classes, generator=torch.Generator().manual_seed(seed))


def log(*probabilities: float) -> Tensor:
    """Logits whose softmax is these probabilities."""
    return torch.tensor([probabilities], dtype=torch.float64).log()


def test_cross_entropy_of_a_sure_target_is_minus_the_log_of_its_probability() -> None:
    found = losses.cross_entropy(log(0.2, 0.7, 0.1), torch.tensor([[0.0, 1.0, 0.0]]).double())
    assert float(found) == pytest.approx(-math.log(0.7))


def test_cross_entropy_of_soft_targets_weighs_each_class() -> None:
    found = losses.cross_entropy(log(0.5, 0.25, 0.25), torch.tensor([[0.5, 0.5, 0.0]]).double())
    assert float(found) == pytest.approx(1.5 * math.log(2))


def test_cross_entropy_agrees_with_pytorch_on_smoothed_labels() -> None:
    targets = functional.one_hot(LABELS, 3) * 0.9 + 0.1 / 3
    ours = losses.cross_entropy(logits(1), targets)
    theirs = functional.cross_entropy(logits(1), LABELS, label_smoothing=0.1)
    torch.testing.assert_close(ours, theirs)


def test_hinton_of_two_known_distributions_is_their_divergence() -> None:
    # KL((1/2, 1/2) | (1/4, 3/4)) = ln(2) / 2 + ln(2/3) / 2 = ln(4/3) / 2
    found = losses.hinton(log(0.25, 0.75), log(0.5, 0.5), 1.0)
    assert float(found) == pytest.approx(0.5 * math.log(4 / 3))


def test_hinton_is_t_squared_times_the_divergence_of_softened_probabilities() -> None:
    ours, theirs, temperature = logits(1), logits(2), 4.0
    p, q = (theirs / temperature).softmax(1), (ours / temperature).softmax(1)
    divergence = (p * (p.log() - q.log())).sum() / len(p)
    torch.testing.assert_close(
        losses.hinton(ours, theirs, temperature), temperature**2 * divergence
    )


def test_hinton_at_high_temperature_matches_centred_logits() -> None:
    # Hinton 2015, eq. 4: the gradient tends to (z - v) / N for logits of mean zero.
    ours = logits(1).double() - logits(1).double().mean(1, keepdim=True)
    theirs = logits(2).double() - logits(2).double().mean(1, keepdim=True)
    ours.requires_grad_(True)
    torch.autograd.backward(losses.hinton(ours, theirs, 1e4))
    assert ours.grad is not None
    torch.testing.assert_close(ours.grad * 4, (ours.detach() - theirs) / 3, rtol=1e-3, atol=1e-3)


def test_dkd_of_known_probabilities_adds_its_two_parts() -> None:
    # Of the target against the rest: KL((1/2, 1/2) | (1/4, 3/4)); among the rest, renormalised:
    # KL((3/5, 2/5) | (1/3, 2/3)).
    student, teacher = log(0.25, 0.25, 0.5), log(0.5, 0.3, 0.2)
    on_target = 0.5 * math.log(4 / 3)
    on_others = 0.6 * math.log(0.6 * 3) + 0.4 * math.log(0.4 * 1.5)
    found = losses.dkd(student, teacher, torch.tensor([0]), 1.0, 2.0, 5.0)
    assert float(found) == pytest.approx(2 * on_target + 5 * on_others)


@given(st.integers(0, 10_000), st.floats(0.5, 8), st.integers(2, 10))
def test_dkd_is_hinton_when_beta_is_what_the_teacher_leaves_to_the_others(
    seed: int, temperature: float, classes: int
) -> None:
    # Zhao 2022, eq. 6, an image at a time, since the weight 1 - p differs between images.
    student = logits(seed, 1, classes).double()
    teacher = logits(seed + 1, 1, classes).double()
    label = torch.tensor([seed % classes])
    rest = 1 - float((teacher / temperature).softmax(1)[0, label])
    torch.testing.assert_close(
        losses.dkd(student, teacher, label, temperature, 1.0, rest),
        losses.hinton(student, teacher, temperature),
        rtol=1e-9,
        atol=1e-12,
    )


def test_dkd_alpha_alone_ignores_the_order_of_the_other_classes() -> None:
    teacher, swapped = log(0.6, 0.3, 0.1), log(0.6, 0.1, 0.3)
    student, label = log(0.2, 0.5, 0.3), torch.tensor([0])
    first, second = (losses.dkd(student, t, label, 1.0, 1.0, 0.0) for t in (teacher, swapped))
    torch.testing.assert_close(first, second)
    assert not torch.isclose(first, losses.dkd(student, swapped, label, 1.0, 1.0, 1.0))


def test_dist_is_zero_for_affinely_related_probabilities() -> None:
    # Huang 2022: Pearson's correlation is blind to a shift and a positive factor.
    theirs = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.3, 0.5]])
    ours = 0.5 * theirs + 0.5 / 3
    found = losses.dist(ours.log(), theirs.log(), 1.0, 1.0, 1.0)
    assert float(found) == pytest.approx(0, abs=1e-6)


def test_dist_of_opposed_probabilities_is_two_for_each_part() -> None:
    theirs = torch.tensor([[0.75, 0.25], [0.25, 0.75]])
    found = losses.dist(theirs.flip(1).log(), theirs.log(), 1.0, 1.0, 10.0)
    assert float(found) == pytest.approx(2 * 1 + 2 * 10, rel=1e-5)


@pytest.mark.parametrize(("alpha", "beta", "axis"), [(1.0, 0.0, 1), (0.0, 1.0, 0)])
def test_dist_parts_are_one_minus_the_mean_correlation(
    alpha: float, beta: float, axis: int
) -> None:
    ours, theirs = logits(3), logits(4)
    p, q = ours.softmax(1), theirs.softmax(1)
    rows = zip(p, q, strict=True) if axis else zip(p.T, q.T, strict=True)
    correlations = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in rows]
    expected = 1 - torch.stack(correlations).mean()
    torch.testing.assert_close(losses.dist(ours, theirs, 1.0, alpha, beta), expected)


def test_standardized_logits_have_mean_zero_and_deviation_one() -> None:
    found = losses.standardize(logits(5))
    torch.testing.assert_close(found.mean(1), torch.zeros(4))
    torch.testing.assert_close(found.std(1, correction=0), torch.ones(4))


@given(st.integers(0, 10_000), st.floats(0.1, 50), st.floats(-100, 100))
def test_standardized_logits_do_not_change_under_shift_and_scale(
    seed: int, scale: float, shift: float
) -> None:
    values = logits(seed).double()
    torch.testing.assert_close(
        losses.standardize(scale * values + shift),
        losses.standardize(values),
        rtol=1e-4,
        atol=1e-4,
    )


def test_standardized_loss_asks_for_the_relations_only() -> None:
    settings = Distillation(loss="hinton", standardize=True)
    found = losses.soft_loss(0.1 * logits(1) + 7, logits(1), LABELS, settings)
    assert float(found) == pytest.approx(0, abs=1e-5)
    plain = settings.model_copy(update={"standardize": False})
    assert float(losses.soft_loss(0.1 * logits(1) + 7, logits(1), LABELS, plain)) > 0.1


@every_loss
def test_soft_loss_of_a_student_that_is_its_teacher_is_zero(settings: Distillation) -> None:
    found = losses.soft_loss(logits(1), logits(1), LABELS, settings)
    assert float(found) == pytest.approx(0, abs=1e-5)


@every_loss
@given(seed=st.integers(0, 10_000))
def test_soft_loss_is_a_scalar_that_is_never_negative(settings: Distillation, seed: int) -> None:
    found = losses.soft_loss(logits(seed), logits(seed + 1), LABELS, settings)
    assert found.shape == ()
    assert float(found) >= -1e-5


@every_loss
@pytest.mark.parametrize(
    "make",
    [
        lambda: logits(1, scale=1e-3),
        lambda: logits(1, scale=100.0),
        lambda: torch.zeros(4, 3),
        lambda: torch.tensor([[60.0, -60.0, -60.0]]).repeat(4, 1),
    ],
    ids=["faint", "loud", "undecided", "certain"],
)
def test_soft_loss_and_its_gradient_stay_finite(
    settings: Distillation, make: Callable[[], Tensor]
) -> None:
    student = make().requires_grad_(True)
    found = losses.soft_loss(student, logits(2, scale=100.0), LABELS, settings)
    torch.autograd.backward(found)
    assert torch.isfinite(found)
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


@every_loss
def test_following_the_gradient_makes_the_soft_loss_smaller(settings: Distillation) -> None:
    student, teacher = logits(1).requires_grad_(True), logits(2)
    before = losses.soft_loss(student, teacher, LABELS, settings)
    (slope,) = torch.autograd.grad(before, student)
    after = losses.soft_loss(student.detach() - 1e-2 * slope, teacher, LABELS, settings)
    assert float(after.detach()) < float(before.detach())


@pytest.mark.parametrize("loss", ["hinton", "dkd", "dist"])
def test_parameters_reach_the_loss_they_name(loss: str) -> None:
    settings = Distillation.model_validate(
        {"loss": loss, "temperature": 3.0, "alpha": 0.7, "beta": 2.0}
    )
    ours, theirs = logits(1), logits(2)
    expected = {
        "hinton": losses.hinton(ours, theirs, 3.0),
        "dkd": losses.dkd(ours, theirs, LABELS, 3.0, 0.7, 2.0),
        "dist": losses.dist(ours, theirs, 3.0, 0.7, 2.0),
    }
    found = losses.soft_loss(ours, theirs, LABELS, settings)
    torch.testing.assert_close(found, expected[loss])
    assert sum(bool(torch.isclose(found, value)) for value in expected.values()) == 1
