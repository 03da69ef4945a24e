"""Students with one setting changed, and what is refused before anything is trained."""

from __future__ import annotations

import pytest
from tiny import tiny_params

from pipeline.changes import Change, parse_change, with_changes
from pipeline.errors import UsageError
from pipeline.runs import find


def change(*texts: str, runs: tuple[str, ...] = ("student-cnn",)) -> list[str]:
    """The names of the students that these changes make."""
    params = tiny_params()
    students = [find(params, name) for name in runs]
    found, changed = with_changes(params, students, [parse_change(text) for text in texts])
    return [find(found, one.run.name).name for one in changed]


def test_a_changed_student_has_all_other_settings_of_its_base() -> None:
    params = tiny_params()
    base = find(params, "student-cnn")
    found, (faster, mixed) = with_changes(
        params,
        [base],
        [
            parse_change("training.lr=2e-3"),
            parse_change("teacher={teacher-cnn: 3, assistant-cnn: 1}"),
        ],
    )
    assert (faster.base, mixed.base) == ("student-cnn", "student-cnn")
    assert faster.run.training == base.training.model_copy(update={"lr": 0.002})
    own = {"name", "model", "training"}
    assert faster.run.model_dump(exclude=own) == base.model_dump(exclude=own)
    assert mixed.run.teachers == {"teacher-cnn": 0.75, "assistant-cnn": 0.25}
    assert find(found, "student-cnn") == base


def test_every_student_is_changed_that_can_be_and_named_by_it() -> None:
    runs = ("student-cnn", "student-cnn-assisted", "student-alone")
    assert change("width=0.5", "distillation.loss=dkd", runs=runs) == [
        "student-cnn-width-0-5",
        "student-cnn-assisted-width-0-5",
        "student-alone-width-0-5",
        "student-cnn-loss-dkd",
        "student-cnn-assisted-loss-dkd",
    ]
    assert change("teacher={teacher-cnn: 1, assistant-cnn: 1}") == [
        "student-cnn-teacher-cnn-1-assistant-cnn-1"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("width", "--change width: give KEY=VALUE"),
        ("augmentation=2", "that cannot be changed for one student; choose one of teacher, "),
        ("training.patience=2", "that cannot be changed for one student"),
        ("training.ema=", "'' is no value"),
        ("teacher={teacher-cnn:1}", "is no value"),
        ("teacher={teacher-cnn: x}", "is no value"),
        ("teacher=[", "is no value"),
        ("width=abc", "give a number from 0.01 to 100"),
        ("width=true", "give a number from 0.01 to 100"),
        ("width=.inf", "give a number from 0.01 to 100"),
        ("width=-2", "give a number from 0.01 to 100"),
    ],
)
def test_what_is_no_change_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_change(text)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (("training.ema=2",), "--change training.ema=2: Input should be less than 1"),
        (("distillation.loss=x",), "--change distillation.loss=x: Input should be 'hinton'"),
        (("teacher=teacher-x",), "--change teacher=teacher-x: teacher-x teaches nobody; there are"),
        (("teacher=student-cnn",), "student-cnn teaches nobody; there are assistant-cnn, teacher"),
        (("teacher={teacher-cnn: 0}",), "weights are above zero"),
        (("teacher={}",), "weights are above zero"),
        (("width=1",), "student-cnn so is what student-cnn is already"),
        (("teacher=teacher-cnn",), "student-cnn so is what student-cnn is already"),
        (("width=2", "width=2.0"), "student-cnn so is what student-cnn-width-2 is already"),
    ],
)
def test_a_change_that_makes_no_new_student_is_refused(
    texts: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UsageError) as refused:
        change(*texts)
    assert message in str(refused.value)


def test_a_student_alone_is_changed_in_all_but_what_concerns_teachers() -> None:
    params = tiny_params()
    alone = find(params, "student-alone")
    found, (longer,) = with_changes(params, [alone], [parse_change("training.epochs=7")])
    run = find(found, longer.run.name)
    assert (run.training.epochs, run.teachers, run.distillation) == (7, {}, None)
    with pytest.raises(UsageError, match="student-alone: taught by nobody; name a student with"):
        change("distillation.loss=dkd", runs=("student-alone",))


def test_a_name_that_is_taken_is_refused() -> None:
    taken = {"model": "student", "teachers": {"teacher-cnn": 1}, "distillation": {"loss": "dist"}}
    params = tiny_params(runs={"student-cnn-loss-dkd": taken})
    with pytest.raises(UsageError, match=r"params\.yaml has a student-cnn-loss-dkd already"):
        with_changes(params, [find(params, "student-cnn")], [Change("distillation.loss", "dkd")])
