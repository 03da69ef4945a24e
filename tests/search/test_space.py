"""From settings to runs, and what students take of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from searching import ASSISTANT, GOOD, OTHER, params, project, settings
from tiny import tiny_params
from training import same_weights

from pipeline.compute import Compute
from pipeline.errors import DataError, UsageError
from pipeline.models.folder import load_model, read_info
from pipeline.params import Params, View
from pipeline.runs import all_runs, find
from pipeline.search.best import with_best
from pipeline.search.search import Searching
from pipeline.search.settings import Value
from pipeline.search.space import space_of
from pipeline.search.student import train_student
from pipeline.train.run import train_run
from pipeline.train.targets import make_targets

FOUND: dict[str, Value] = {
    "teacher": ASSISTANT,
    "width": 1.5,
    "augmentation": 0.5,
    "distillation.loss": "dist",
    "training.lr": 0.02,
}


def used(folder: Path, **content: Any) -> Params:
    (folder / "search").mkdir(parents=True, exist_ok=True)
    (folder / "search/best.yaml").write_text(yaml.safe_dump(content))
    return params(used="best")


def test_a_setting_becomes_a_run() -> None:
    values = {**FOUND, "teacher": f"{GOOD}:3+{OTHER}:1"}
    space = space_of(
        params(
            space={
                "teacher": {"choice": [{GOOD: 3, OTHER: 1}]},
                "width": {"choice": [1.5]},
                "augmentation": {"choice": [0.5]},
            }
        )
    )
    run = space.run(values, "trial-7", 3)
    assert (run.name, run.seed, run.role) == ("trial-7", 3, "student")
    assert run.teachers == {GOOD: 0.75, OTHER: 0.25}
    assert getattr(run.network, "channels", None) == (12, 24)
    assert run.view.augment.noise == 0.25
    assert run.distillation is not None and run.distillation.loss == "dist"
    assert run.training.lr == 0.02
    assert space.run({}, "x", 0).model_copy(update={"name": "student-cnn"}) == find(
        params(), "student-cnn"
    )


def test_the_default_is_known_in_a_space_that_holds_it_whole() -> None:
    space = space_of(params())
    own = space.of_default()
    assert own == {"teacher": GOOD, "distillation.weight": 0.9, "training.lr": 0.01}
    assert space.is_default(own)
    assert not space.is_default({**own, "training.lr": 0.02})
    assert not space.is_default({**own, "teacher": ASSISTANT})


def test_one_process_is_at_a_search_at_a_time(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")
    compute = Compute(storage=str(tmp_path / "kept"))
    places = {name: folder / name for name in ("models", "targets")}
    first = Searching(params(), compute, shards=folder / "data/shards", **places)
    with pytest.raises(UsageError, match="another process is at this search"):
        Searching(params(), compute, shards=folder / "data/shards", **places)
    other = Searching(params(grace=2), compute, shards=folder / "data/shards", **places)
    del first, other
    assert Searching(params(), compute, shards=folder / "data/shards", **places).trials == []


def test_chances_grow_to_one_at_most() -> None:
    space = space_of(params(space={"augmentation": {"choice": [3]}}))
    assert space.view(3).augment.noise == 1.0
    assert space.view(1) == params().view


def test_the_teachers_to_be_asked_are_every_one_of_the_space() -> None:
    space = space_of(params(space={"augmentation": {"choice": [0.5, 1]}}))
    assert [*space.asked()] == [(0.5, GOOD), (1.0, GOOD)], "the default's own"
    mixes = {"choice": [ASSISTANT, {GOOD: 1, OTHER: 2}]}
    space = space_of(params(space={"teacher": mixes}))
    assert [*space.asked()] == [(1.0, ASSISTANT), (1.0, GOOD), (1.0, OTHER)]


def test_students_take_what_was_found_and_nobody_else_does(tmp_path: Path) -> None:
    row = {"model": "student", "teachers": {GOOD: 1}, "distillation": {}}
    chosen = used(tmp_path, settings=FOUND).model_copy(
        update={"runs": tiny_params(runs={"own": row}).runs}
    )
    before = {run.name: run for run in all_runs(chosen)}
    taken = with_best(chosen, "student-cnn", tmp_path / "search")
    after = {run.name: run for run in all_runs(taken)}
    students = {"student-cnn", "student-cnn-assisted", "student-other", "student-other-assisted"}
    assert {name for name in before if before[name] != after[name]} == {*students, "student-alone"}
    for name in students:
        run = after[name]
        assert run.teachers == before[name].teachers, "its name says whose student it is"
        assert run.distillation is not None and run.distillation.loss == "dist"
        assert run.training.lr == 0.02
    assert after["student-alone"].training.lr == 0.02
    assert after["student-alone"].distillation is None
    for name in ("teacher-cnn", "assistant-cnn", "own"):
        assert with_best(chosen, name, tmp_path / "none") is chosen


def test_where_nothing_was_searched_there_is_nothing_to_take(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no setting: set search\.trials to what it was"):
        with_best(used(tmp_path, settings={}), "student-cnn", tmp_path / "search")


def test_parameters_that_took_it_travel_without_the_file(tmp_path: Path) -> None:
    taken = with_best(used(tmp_path, settings=FOUND), "student-cnn", tmp_path / "search")
    sent = Params.model_validate_json(taken.model_dump_json())
    assert with_best(sent, "student-cnn", tmp_path / "none") == taken
    assert find(sent, "student-cnn") == find(taken, "student-cnn")


def test_with_none_used_nothing_is_read(tmp_path: Path) -> None:
    assert with_best(params(), "student-cnn", tmp_path) == params()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is missing: run python -m"), ("a: [1", "is not what"), ("x: 1", "is not what")],
)
def test_a_best_setting_that_is_not_there_is_one_clear_error(
    tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "best.yaml").write_text(content)
    with pytest.raises(DataError, match=rf"best\.yaml {message}"):
        with_best(params(used="best"), "student-cnn", tmp_path)


def test_a_student_with_other_views_asks_its_teacher_about_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with the weights it would have if these views stood in params.yaml."""
    folder = project(tmp_path / "project")
    monkeypatch.chdir(folder)
    shards, models = folder / "data/shards", folder / "models"
    compute = Compute(workers=0, threads=1, loaders=0)
    taken = with_best(
        used(folder, settings={"augmentation": 0.5, "training.lr": 0.02}), "student-cnn"
    )
    train_student(taken, "student-cnn", compute, shards=shards, models=models)
    found, _ = load_model(folder / "models/student-cnn")
    assert not [*folder.glob(".checkpoints/*")], "nothing is left of it"

    content = settings()
    content["view"] = View(**{**content["view"], "augment": {"noise": 0.25}}).model_dump()
    content["training"]["lr"] = 0.02
    written = tiny_params(**content)
    make_targets(written, GOOD, compute, shards=shards, models=models, targets=folder / "own")
    train_run(written, "student-cnn", compute, shards=shards, models=models, targets=folder / "own")
    assert same_weights(
        found.state_dict(), load_model(folder / "models/student-cnn")[0].state_dict()
    )
    assert read_info(folder / "models/student-cnn").parameters["training"]["lr"] == 0.02
