from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import tiny_model, tiny_params, tiny_shards

from pipeline.errors import UsageError
from pipeline.runs import Run, all_runs, find
from pipeline.train import fingerprint
from pipeline.train.fingerprint import SOURCES, code_version, run_fingerprint

TEACHER = {"network": {"architecture": "cnn", "channels": [4]}}


def two_teachers(**overrides: Any) -> dict[str, Run]:
    models = {"a": TEACHER, "b": TEACHER}
    settings = tiny_params(teachers=["a", "b"], models=models, **overrides)
    return {run.name: run for run in all_runs(settings)}


def further(teachers: dict[str, float], model: str = "student") -> dict[str, Any]:
    return {"model": model, "teachers": teachers, "distillation": {"loss": "dist"}}


def test_the_matrix_has_four_runs_for_each_teacher_and_the_student_alone() -> None:
    assert list(two_teachers()) == [
        *("teacher-a", "assistant-a", "student-a", "student-a-assisted"),
        *("teacher-b", "assistant-b", "student-b", "student-b-assisted"),
        "student-alone",
    ]


def test_who_learns_from_whom() -> None:
    runs = two_teachers()
    taught = {name: dict(run.teachers) for name, run in runs.items() if name.find("-b") < 0}
    assert taught == {
        "teacher-a": {},
        "assistant-a": {"teacher-a": 1.0},
        "student-a": {"teacher-a": 1.0},
        "student-a-assisted": {"assistant-a": 1.0},
        "student-alone": {},
    }
    for run in runs.values():
        assert (run.distillation is None) == (not run.teachers)
        assert run.role == run.name.split("-")[0]


def test_every_run_comes_after_its_teachers() -> None:
    runs = two_teachers(runs={"long": further({"student-a-assisted": 1, "teacher-b": 1})})
    names = list(runs)
    for name, run in runs.items():
        assert all(names.index(teacher) < names.index(name) for teacher in run.teachers)


def test_roles_take_their_own_distillation_and_training() -> None:
    runs = two_teachers(
        distillation={"assistant": {"loss": "dkd"}, "student": {"loss": "dist", "weight": 0.3}},
    )
    assistant, student = runs["assistant-a"].distillation, runs["student-a-assisted"].distillation
    assert assistant is not None and assistant.loss == "dkd"
    assert student is not None and (student.loss, student.weight) == ("dist", 0.3)


def test_weights_of_several_teachers_sum_to_one() -> None:
    runs = two_teachers(runs={"both": further({"teacher-a": 1, "teacher-b": 3})})
    assert runs["both"].teachers == {"teacher-a": 0.25, "teacher-b": 0.75}
    assert runs["both"].role == "student"


def test_a_further_run_may_learn_from_one_before_it_and_not_from_one_after_it() -> None:
    first, second = further({"teacher-a": 1}, "assistant"), further({"first": 1})
    assert two_teachers(runs={"first": first, "second": second})["first"].role == "assistant"
    with pytest.raises(UsageError, match=r"runs\.second\.teachers: no run first before it"):
        two_teachers(runs={"second": second, "first": first})


def test_a_teacher_that_is_no_run_is_refused_beside_the_ones_there_are() -> None:
    with pytest.raises(UsageError, match=r"runs\.x\.teachers: no run teacher-c .*teacher-b"):
        two_teachers(runs={"x": further({"teacher-c": 1, "teacher-a": 1})})


def test_a_further_run_may_not_take_the_name_of_one_of_the_matrix() -> None:
    with pytest.raises(UsageError, match=r"runs\.student-a: .*choose another"):
        two_teachers(runs={"student-a": further({"teacher-b": 1})})


def test_a_run_is_found_by_its_name_and_an_unknown_one_refused_beside_the_known() -> None:
    assert find(tiny_params(), "student-cnn").model == "student"
    with pytest.raises(UsageError, match=r"no run 'student'.*student-alone"):
        find(tiny_params(), "student")


def test_a_run_survives_a_journey_as_json() -> None:
    for run in all_runs(tiny_params()):
        assert Run.model_validate_json(run.model_dump_json()) == run


def test_a_fingerprint_changes_with_parameters_data_and_teachers_and_with_nothing_else(
    tmp_path: Path,
) -> None:
    index = tiny_shards(tmp_path / "shards")
    tiny_model(tmp_path / "teacher-cnn", index, run="teacher-cnn")
    run = find(tiny_params(), "student-cnn")
    first = run_fingerprint(run, index.version, tmp_path)
    assert first == run_fingerprint(find(tiny_params(), "student-cnn"), index.version, tmp_path)
    other_run = find(tiny_params(training={"lr": 0.02}), "student-cnn")
    other_order = find(tiny_params(data={"shuffle_shards": 2}), "student-cnn")
    others = [
        run_fingerprint(other_run, index.version, tmp_path),
        run_fingerprint(other_order, index.version, tmp_path),
        run_fingerprint(run, "another version", tmp_path),
    ]
    tiny_model(tmp_path / "teacher-cnn", index, run="teacher-cnn", seed=1)
    others.append(run_fingerprint(run, index.version, tmp_path))
    assert len({first, *others}) == 5


def test_dvc_and_the_code_version_look_at_the_same_code() -> None:
    stages = yaml.safe_load((Path(__file__).parents[1] / "dvc.yaml").read_text())["stages"]
    named = ("pipeline train", "pipeline targets")
    asking = [stage for stage in stages.values() if any(name in stage["cmd"] for name in named)]
    assert len(asking) == 6
    for stage in asking:
        listed = {dep for dep in stage["deps"] if dep.startswith("pipeline/")}
        assert listed == {f"pipeline/{name}" for name in SOURCES}


def test_the_version_of_the_code_changes_with_a_file_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Path(fingerprint.__file__).parents[1]
    for name in SOURCES:
        copy = tmp_path / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (package / name).is_dir() else shutil.copy)(package / name, copy)
    before = code_version()
    monkeypatch.setattr(fingerprint, "_PACKAGE", tmp_path)
    assert code_version() == before
    with (tmp_path / "train/loop.py").open("a") as file:
        file.write("# changed\n")
    assert code_version() != before
