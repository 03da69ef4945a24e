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


def batch(number: int = 0, rows: tuple[int, ...] = (5, 0, 3, 4)) -> StepBatch:
    labels = torch.tensor([0, 1, 2, 1])
    images = torch.randn(4, 1, 3, 4, generator=torch.Generator().manual_seed(9))
    return StepBatch(
        images, functional.one_hot(labels, 3).float(), labels, number, torch.tensor(rows)
    )


def set_up(
    weights: dict[str, float],
    distillation: Distillation | None,
    memory: tuple[int, int, int] | None = None,
) -> tuple[SoftTargets, dict[str, nn.Module], nn.Module]:
    teachers = {name: network(place) for place, name in enumerate(weights, 1)}
    student = network(0).eval()
    method = SoftTargets(weights, distillation, memory)
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


class Counting(nn.Module):
    """A teacher that counts how often it is asked."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.asked = network, 0

    def forward(self, images: Tensor) -> Tensor:
        self.asked += 1
        logits: Tensor = self.network(images)
        return logits


def test_a_teacher_is_asked_once_about_a_view_that_is_remembered() -> None:
    teacher = Counting(network(1))
    method = SoftTargets({"a": 1.0}, HINTON, memory=(2, 6, 3))
    method.setup({"a": teacher}, network(0).eval())
    first, again = method.loss(batch()), method.loss(batch())
    assert teacher.asked == 1
    assert torch.equal(first.soft, again.soft)
    # The same images in another order, and so in other rows of the batch.
    order = torch.tensor([2, 0, 3, 1])
    one = batch()
    mixed = StepBatch(one.images[order], one.targets[order], one.labels[order], 0, one.rows[order])
    torch.testing.assert_close(method.loss(mixed).soft, first.soft)
    assert teacher.asked == 1
    method.loss(batch(number=1))
    method.loss(batch(rows=(5, 0, 3, 1)))
    assert teacher.asked == 3, "another view, and a row that is not known yet"


def test_what_is_remembered_comes_back_from_a_state() -> None:
    method, teachers, student = set_up({"a": 1.0}, HINTON, memory=(1, 6, 3))
    expected = method.loss(batch()).soft
    state = {name: logits.clone() for name, logits in method.state_dict().items()}
    counting = Counting(teachers["a"])
    restored = SoftTargets({"a": 1.0}, HINTON, memory=(1, 6, 3))
    restored.setup({"a": counting}, student)
    restored.load_state_dict(state)
    assert torch.equal(restored.loss(batch()).soft, expected)
    assert counting.asked == 0


@pytest.mark.parametrize("memories", [((1, 6, 3), None), (None, (1, 6, 3))])
def test_another_number_of_workers_goes_on_whether_or_not_it_remembers(
    memories: tuple[tuple[int, int, int] | None, ...],
) -> None:
    before, teachers, student = set_up({"a": 1.0}, HINTON, memory=memories[0])
    expected = before.loss(batch()).soft
    after = SoftTargets({"a": 1.0}, HINTON, memory=memories[1])
    after.setup(teachers, student)
    after.load_state_dict(before.state_dict())
    assert torch.equal(after.loss(batch()).soft, expected)


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
