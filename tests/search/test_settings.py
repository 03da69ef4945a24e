"""The section ``search``: what cannot be searched is refused before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import run
from searching import ASSISTANT, GOOD, SPACE, change, params, settings

from pipeline import params as project_params
from pipeline.errors import UsageError
from pipeline.params import Params
from pipeline.search.space import space_of

TOP = Path(__file__).parents[2]


def refused(**search: Any) -> str:
    with pytest.raises(UsageError) as caught:
        params(**search)
    return str(caught.value)


@pytest.mark.parametrize(
    ("search", "line"),
    [
        ({"trails": 3}, "search.trails: unknown key"),
        ({"trials": -1}, "search.trials: "),
        ({"hours": 0}, "search.hours: "),
        ({"algorithm": "grid"}, "search.algorithm: "),
        ({"objectives": ["latency"]}, "search.objectives: [accuracy], or [accuracy, latency]"),
        ({"seeds": [1]}, "search.seeds: "),
        ({"seeds": [1, 1]}, "search.seeds: one seed is there twice"),
        ({"space": {}}, "search: space: it is empty"),
        ({"space": {"training.ir": {"log": [1, 2]}}}, "search.space: unknown key training.ir"),
        ({"space": {"training.mixup": {"uniform": [0, 1]}}}, "search.space: unknown key"),
        ({"space": {"training.lr": {"log": [1, 1]}}}, "search.space.training.lr.log: an empty ra"),
        ({"space": {"training.lr": {"uniform": [2, 1]}}}, "search.space.training.lr.uniform: an "),
        ({"space": {"training.batch_size": {"integer": [9, 9]}}}, "search.space.training.batch_si"),
        ({"space": {"training.lr": {"log": [0, 1]}}}, "search.space.training.lr: a logarithmic"),
        ({"space": {"training.lr": {"choice": []}}}, "search.space.training.lr.choice: an empty"),
        ({"space": {"training.lr": {"choice": [1, 1]}}}, "search.space.training.lr.choice: one v"),
        ({"space": {"training.lr": {}}}, "search.space.training.lr: give one of choice, uniform"),
        ({"space": {"training.lr": {"log": [1, 2], "uniform": [1, 2]}}}, "search.space.training."),
        ({"space": {"training.lr": {"normal": [1, 2]}}}, "search.space.training.lr.normal: unkno"),
        ({"space": {"augmentation": {"uniform": [0, 1]}}}, "search.space: augmentation is a cho"),
        ({"space": {"training.lr": {"choice": [{GOOD: 1}]}}}, "search.space: training.lr: only t"),
        ({"scheduler": "pbt"}, "search: scheduler: pbt changes settings itself"),
        (
            {"scheduler": "pbt", "algorithm": "random", "space": {"width": {"choice": [1, 2]}}},
            "search: scheduler: pbt cannot change width",
        ),
        ({"settings": {"teacher": GOOD}}, "search.settings: unknown key teacher"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value)[:40],
)
def test_what_is_no_search_is_refused_in_one_line(search: dict[str, Any], line: str) -> None:
    head, *lines = refused(**search).splitlines()
    assert head == "1 error in tiny params:"
    assert len(lines) == 1
    assert lines[0].startswith(f"  {line}")


@pytest.mark.parametrize(
    ("dimension", "line"),
    [
        ({"teacher": {"choice": ["teacher-x"]}}, "teacher: teacher-x teaches nobody; there are as"),
        ({"teacher": {"choice": ["student-cnn"]}}, "teacher: student-cnn teaches nobody"),
        ({"teacher": {"choice": [{GOOD: 1, ASSISTANT: 0}]}}, "weights are above zero"),
        ({"training.lr": {"uniform": [0, 1]}}, "training.lr: 0.0 is refused: 1 validation error"),
        ({"training.warmup": {"uniform": [0, 2]}}, "training.warmup: 2.0 is refused"),
        ({"distillation.loss": {"choice": ["dkd", "crd"]}}, "distillation.loss: 'crd' is refused"),
        ({"training.batch_size": {"uniform": [16, 64]}}, "training.batch_size: 33.6"),
        ({"distillation.standardize": {"uniform": [0, 1]}}, "distillation.standardize: 0.36"),
        ({"augmentation": {"choice": [1, "much"]}}, "augmentation: 'much' is refused"),
        ({"augmentation": {"choice": [-1]}}, "augmentation: -1 is refused"),
    ],
    ids=str,
)
def test_a_value_that_params_yaml_would_refuse_is_refused(
    dimension: dict[str, Any], line: str
) -> None:
    with pytest.raises(UsageError) as caught:
        space_of(params(space=dimension))
    head, *lines = str(caught.value).splitlines()
    assert head == "1 error in search:"
    assert len(lines) == 1
    assert line in lines[0]


def test_every_error_of_a_space_is_said_at_once() -> None:
    space = {"teacher": {"choice": ["x"]}, "training.ema": {"choice": [0.9, 1]}}
    with pytest.raises(UsageError, match=r"2 errors in search:"):
        space_of(params(space=space))


def test_the_seed_that_trials_are_chosen_by_is_refused_for_the_comparison() -> None:
    with pytest.raises(UsageError, match="seeds: 0 is the seed of every trial"):
        space_of(params(seeds=[1, 0]))


def test_a_width_is_refused_for_a_network_without_channels() -> None:
    content = settings(space={"width": {"choice": [0.5]}})
    content["models"]["student"]["network"] = {"architecture": "timm", "name": "resnet10t"}
    from tiny import tiny_params  # noqa: PLC0415

    with pytest.raises(UsageError, match="a network timm has no channels"):
        space_of(tiny_params(**content))


def test_a_refused_search_ends_as_wrong_use_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"search": {"trails": 1}}))
    done = run(tmp_path, "search")
    assert done.returncode == 2
    assert "search.trails: unknown key" in done.stderr
    change(tmp_path, space={"teacher": {"choice": ["teacher-x"]}})
    done = run(tmp_path, "search")
    assert done.returncode == 2
    assert "teacher-x teaches nobody" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_a_search_with_live_targets_is_refused(tmp_path: Path) -> None:
    from tiny import tiny_params  # noqa: PLC0415

    content = settings()
    content["distillation"] = {"assistant": {}, "student": {}, "targets": "live"}
    (tmp_path / "params.yaml").write_text(tiny_params(**content).model_dump_json())
    done = run(tmp_path, "search")
    assert done.returncode == 2
    assert "a search learns from stored targets" in done.stderr


def test_parameters_with_a_search_survive_a_journey_as_json() -> None:
    chosen = params(space={**SPACE, "training.batch_size": {"integer": [4, 16]}})
    assert Params.model_validate_json(chosen.model_dump_json()) == chosen


def test_settings_that_a_search_is_to_find_are_refused_in_params_yaml(tmp_path: Path) -> None:
    content = params().model_dump(mode="json")
    content["search"]["settings"] = {"training.lr": 0.1}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    done = run(tmp_path, "train", "student-cnn")
    assert done.returncode == 2
    assert "search.settings: taken from search/best.yaml alone" in done.stderr


def test_a_number_that_yaml_takes_for_a_text_is_a_number() -> None:
    space = yaml.safe_load("{training.lr: {choice: [1e-3, 0.01]}, teacher: {choice: [1e-3x]}}")
    dimensions = params(space=space).search.space
    assert dimensions["training.lr"].choice == (0.001, 0.01)
    assert dimensions["teacher"].choice == ("1e-3x",)


def test_the_projects_own_space_is_good_and_searches_nothing() -> None:
    own = project_params.load(TOP / "params.yaml")
    assert own.search.trials == 0
    assert own.search.used == "none"
    space = space_of(own)
    assert {name for _, name in space.asked()} == {"teacher-ocr", "assistant-ocr", "teacher-resnet"}
    assert {factor for factor, _ in space.asked()} == {0.5, 1.0, 1.5}
