from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from pipeline.distill.losses import cross_entropy, hinton
from pipeline.distill.methods import SoftTargets, StepBatch
from pipeline.params import Distillation

HINTON = Distillation(loss="hinton", temperature=2.0, weight=0.75)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Dropout(0.5))


def batch(**logits: Tensor) -> StepBatch:
    labels = torch.tensor([0, 1, 2, 1])
    images = torch.randn(4, 1, 3, 4, generator=torch.Generator().manual_seed(9))
    return StepBatch(images, functional.one_hot(labels, 3).float(), labels, logits)


def set_up(
    weights: dict[str, float], distillation: Distillation | None
) -> tuple[SoftTargets, dict[str, nn.Module], nn.Module]:
    teachers = {name: network(place) for place, name in enumerate(weights, 1)}
    student = network(0).eval()
    method = SoftTargets(weights, distillation)
    method.setup(teachers, student)
    return method, teachers, student


def test_without_teachers_the_loss_is_the_cross_entropy() -> None:
    method, _, student = set_up({}, None)
    found = method.loss(batch())
    expected = cross_entropy(student(batch().images), batch().targets)
    torch.testing.assert_close(found.total, expected)
    torch.testing.assert_close(found.hard, expected.detach())
    assert float(found.soft) == 0


def test_with_a_teacher_the_loss_is_the_weighted_sum_of_both_parts() -> None:
    method, teachers, student = set_up({"a": 1.0}, HINTON)
    found = method.loss(batch())
    ours, theirs = student(batch().images), teachers["a"](batch().images)
    hard, soft = cross_entropy(ours, batch().targets), hinton(ours, theirs, 2.0)
    torch.testing.assert_close(found.total, 0.25 * hard + 0.75 * soft)
    torch.testing.assert_close(found.hard, hard.detach())
    torch.testing.assert_close(found.soft, soft.detach())
    torch.testing.assert_close(found.logits, ours.detach())


def test_several_teachers_count_by_their_weights() -> None:
    method, teachers, student = set_up({"a": 0.2, "b": 0.8}, HINTON)
    ours = student(batch().images)
    parts = {name: hinton(ours, t(batch().images), 2.0) for name, t in teachers.items()}
    assert not torch.isclose(parts["a"], parts["b"])
    torch.testing.assert_close(
        method.loss(batch()).soft, (0.2 * parts["a"] + 0.8 * parts["b"]).detach()
    )


def test_teachers_get_no_gradient_and_show_no_dropout() -> None:
    method, teachers, student = set_up({"a": 1.0}, HINTON)
    first, second = method.loss(batch()), method.loss(batch())
    torch.testing.assert_close(first.soft, second.soft, rtol=0, atol=0)
    torch.autograd.backward(first.total)
    assert all(parameter.grad is None for parameter in teachers["a"].parameters())
    assert all(parameter.grad is not None for parameter in student.parameters())


def test_stored_logits_stand_for_a_teacher_that_is_not_here() -> None:
    method, teachers, student = set_up({"a": 0.2, "b": 0.8}, HINTON)
    expected = method.loss(batch()).soft
    reading = SoftTargets({"a": 0.2, "b": 0.8}, HINTON)
    reading.setup({}, student)
    said = {name: teacher(batch().images).half() for name, teacher in teachers.items()}
    found = reading.loss(batch(**said)).soft
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=0)
    both = SoftTargets({"a": 0.2, "b": 0.8}, HINTON)
    both.setup({"a": teachers["a"]}, student)
    torch.testing.assert_close(both.loss(batch(b=said["b"])).soft, expected, rtol=2e-3, atol=0)


@pytest.mark.parametrize(("weights", "distillation"), [({"a": 1.0}, None), ({}, HINTON)])
def test_teachers_and_distillation_are_refused_without_each_other(
    weights: dict[str, float], distillation: Distillation | None
) -> None:
    with pytest.raises(ValueError, match="go together"):
        SoftTargets(weights, distillation)


def test_a_state_that_is_not_the_methods_own_is_refused() -> None:
    method, _, student = set_up({}, None)
    method.load_state_dict(method.state_dict())
    assert method.export(student) is student
    state: dict[str, Tensor] = {"dictionary": torch.zeros(1)}
    with pytest.raises(ValueError, match="dictionary"):
        method.load_state_dict(state)
