"""params.yaml: what is wrong in it is said all at once, a line each, with the key's path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import params
from pipeline.errors import UsageError
from pipeline.params import Params

DEFAULT = Path(__file__).parents[1] / "params.yaml"


def default() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(DEFAULT.read_text())
    return content


def changed(**changes: Any) -> dict[str, Any]:
    """The default, with values put at paths such as ``training__lr``."""
    content = default()
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = content
        for key in parents:
            place = place[key]
        place[last] = value
    return content


def refusal(content: Any) -> list[str]:
    with pytest.raises(UsageError) as caught:
        params.parse(content, "params.yaml")
    return str(caught.value).splitlines()


def test_the_default_parameters_are_good() -> None:
    loaded = params.load(DEFAULT)
    assert loaded == params.parse(default(), "x")
    assert len(loaded.data.classes) == 10


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"sead": 1}, "sead: unknown key"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0 (got -1)"),
        ({"view__hight": 9}, "view.hight: unknown key"),
        ({"view__augment__turn": 9}, "view.augment.turn: unknown key"),
        ({"training__lr": 0}, "training.lr: Input should be greater than 0 (got 0)"),
        ({"training__lr": "fast"}, "training.lr: Input should be a valid number"),
        ({"training__warmup": 1.5}, "training.warmup: "),
        ({"training__optimizer": "adam"}, "training.optimizer: Input should be 'adamw' or 'sgd'"),
        ({"data__source": "web"}, "data.source: Input should be 'generated' or 'cvsi'"),
        ({"data__task": "5"}, "data.task: unknown task '5'; one of"),
        ({"data__scripts": ["English", "Hindi"]}, "data: give either task or scripts"),
        ({"data__task": None}, "data: give either task or scripts"),
        ({"data__allow": ["all"]}, "data.allow.0: "),
        ({"data__held_out": 1}, "data.held_out: "),
        ({"teachers": []}, "teachers: "),
        ({"teachers": ["ocr", "ocr"]}, "teachers: one model is named twice"),
        ({"teachers": ["nowhere"]}, "models: no entry for nowhere; add one"),
        ({"models__student__network__channels": [8, 0]}, "models.student.network.channels.1: "),
        ({"models__student__network__depth": 0.5}, "models.student.network.depth: unknown key"),
        ({"models__student__network__architecture": "lstm"}, "models.student.network: "),
        ({"models__student__training": {"lr": -1}}, "models.student.training.lr: "),
        ({"models__student__training": {"ir": 1}}, "models.student.training.ir: unknown key"),
        ({"distillation__student__loss": "crd"}, "distillation.student.loss: "),
        ({"distillation__student__weight": 2}, "distillation.student.weight: "),
        (
            {"runs": {"r": {"model": "student", "teachers": {}, "distillation": {}}}},
            "runs.r: teachers and distillation go together: give both or neither",
        ),
        (
            {"runs": {"r": {"model": "big", "teachers": {"x": 1}, "distillation": {}}}},
            "models: no entry for big; add one",
        ),
        (
            {"runs": {"r": {"model": "student", "teachers": {"x": 0}, "distillation": {}}}},
            "runs.r.teachers.x: Input should be greater than 0 (got 0)",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_value_is_refused_in_one_line_with_its_path(
    changes: dict[str, Any], line: str
) -> None:
    head, *lines = refusal(changed(**changes))
    assert head == "1 error in params.yaml:"
    assert len(lines) == 1
    assert lines[0].startswith(f"  {line}")


def test_unknown_scripts_are_named_beside_the_known_ones() -> None:
    (_, line) = refusal(changed(data__task=None, data__scripts=["Hindi", "Gujarati"]))
    assert "data.scripts: unknown scripts ['Gujarati']; of Arabic" in line
    (_, line) = refusal(changed(data__task=None, data__scripts=["Hindi", "Hindi"]))
    assert "at least two different scripts" in line


def test_every_error_is_said_at_once() -> None:
    head, *lines = refusal(changed(sead=1, training__lr=0, view__height=1, data__task="9"))
    assert head == "4 errors in params.yaml:"
    assert {line.split(":")[0].strip() for line in lines} == {
        "sead",
        "training.lr",
        "view.height",
        "data.task",
    }


def test_every_row_that_does_not_fit_the_others_is_said_at_once() -> None:
    content = changed(
        teachers=["ocr", "nowhere"],
        models__student__training={"lr": 0, "ir": 1},
        models__assistant__training={"epochs": 0},
    )
    head, *lines = refusal(content)
    assert head == "4 errors in params.yaml:"
    assert {line.split(": ")[0].strip() for line in lines} == {
        "models",
        "models.student.training.lr",
        "models.student.training.ir",
        "models.assistant.training.epochs",
    }


@pytest.mark.parametrize("where", ["training", "models__student__training"])
def test_dkd_is_refused_with_mixup(where: str) -> None:
    content = changed(
        distillation__student__loss="dkd",
        distillation__targets="live",
        **{where: {"epochs": 1, "mixup": 0.2}},
    )
    (_, line) = refusal(content)
    assert line == "  distillation.student.loss: dkd needs training.mixup 0 for the model student"


def test_dkd_is_refused_with_mixup_in_a_further_run_too() -> None:
    row = {"model": "assistant", "teachers": {"x": 1}, "distillation": {"loss": "dkd"}}
    content = changed(
        runs={"r": row}, distillation__targets="live", models__assistant__training={"mixup": 0.2}
    )
    (_, line) = refusal(content)
    assert line == "  runs.r.distillation.loss: dkd needs training.mixup 0 for the model assistant"


def test_mixup_of_a_model_that_does_not_learn_by_dkd_is_let_through() -> None:
    content = changed(distillation__student__loss="dkd", models__ocr__training={"mixup": 0.2})
    assert params.parse(content, "x").training_of("ocr").mixup == 0.2


@pytest.mark.parametrize("model", ["assistant", "student"])
def test_stored_targets_are_refused_with_mixup_of_a_model_that_has_teachers(model: str) -> None:
    mixing = {f"models__{model}__training": {"mixup": 0.2}}
    (_, line) = refusal(changed(distillation__targets="stored", **mixing))
    assert line.startswith(
        f"  distillation.targets: stored needs training.mixup 0 for the model {model}: what a "
        "teacher says of a mixture"
    )
    assert params.parse(changed(distillation__targets="live", **mixing), "x")


def test_stored_targets_of_views_that_never_come_back_are_refused() -> None:
    (_, line) = refusal(changed(distillation__targets="stored", view__cycle=0))
    assert line.startswith("  distillation.targets: stored needs a view.cycle of 1 or more")
    assert params.parse(changed(distillation__targets="live", view__cycle=0), "x")


def test_a_models_own_training_takes_the_place_of_the_common_one() -> None:
    content = changed(training={"epochs": 7, "lr": 0.5}, models__student__training={"lr": 0.1})
    loaded = params.parse(content, "x")
    student, assistant = loaded.training_of("student"), loaded.training_of("assistant")
    assert (student.epochs, student.lr) == (7, 0.1)
    assert assistant.epochs == default()["models"]["assistant"]["training"].get("epochs", 7)


@pytest.mark.parametrize(
    ("task", "classes"),
    [
        ("1-Tamil", ("English", "Hindi", "Tamil")),
        (3, ("English", "Hindi", "Kannada", "Tamil", "Telegu")),
    ],
)
def test_a_task_stands_for_its_scripts_in_alphabetical_order(
    task: object, classes: tuple[str, ...]
) -> None:
    assert params.parse(changed(data__task=task), "x").data.classes == classes


def test_scripts_are_put_in_alphabetical_order() -> None:
    content = changed(data__task=None, data__scripts=["Tamil", "Bengali"])
    assert params.parse(content, "x").data.classes == ("Bengali", "Tamil")


@pytest.mark.parametrize("content", [None, [], "text", 7])
def test_what_is_no_mapping_is_refused(content: object) -> None:
    assert refusal(content)[0] == "1 error in params.yaml:"


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"params\.yaml is missing: run this from"):
        params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize("content", [b"a: [1", b"\xff\xfe\x00", b"a: !!python/object:os.system 1"])
def test_a_file_that_is_no_plain_yaml_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=r"params\.yaml (is not YAML|cannot be read)"):
        params.load(tmp_path / "params.yaml")


def test_a_folder_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        params.load(tmp_path)


def test_parameters_survive_a_journey_as_json() -> None:
    loaded = params.load(DEFAULT)
    assert Params.model_validate_json(loaded.model_dump_json()) == loaded
