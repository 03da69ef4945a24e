"""Students trained again with other seeds: real trainings of tiny models, in processes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from commands import run, write_project
from tiny import tiny_images, tiny_model, tiny_params, tiny_shards

from pipeline.changes import Change
from pipeline.compute import Compute
from pipeline.errors import DataError, UsageError
from pipeline.evaluation import JudgedData
from pipeline.lock import hold
from pipeline.replicate import replicate
from pipeline.replicated import OfRun, Replicated, Right, judged
from pipeline.reporting.results_page import write_results
from pipeline.runs import Role

DATA = JudgedData(source="generated", split="test", version="0" * 64)


def words(folder: Path) -> Path:
    """The tiny test images, as a folder of labelled ones."""
    for image in tiny_images():
        if image.split == "test":
            path = folder / image.script / f"{image.key}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image.read())
    return folder


def again(
    root: Path,
    *names: str,
    seeds: tuple[int, ...] = (1, 2),
    targets: str = "live",
    **wanted: Any,
) -> Replicated:
    return replicate(
        tiny_params(view={"cycle": 1}, distillation={"targets": targets}),
        names,
        seeds,
        Compute(workers=0, storage=str(root / "storage")),
        title="Tiny",
        shards=root / "shards",
        models=root / "models",
        **wanted,
    )


def right(
    run: str,
    seed: int,
    answers: list[bool],
    role: Role = "student",
    teachers: tuple[str, ...] = (),
    **about: Any,
) -> Right:
    content: dict[str, Any] = {
        "run": run,
        "role": role,
        "model": "cnn 8-16",
        "teachers": teachers,
        "settings": {},
        "code_version": "0" * 64,
        "seed": seed,
        "parameters": 100,
        "validation_accuracy": 50.0,
        "data": DATA,
        "right": tuple(answers),
    }
    return Right(**(content | about))


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, a teacher and an assistant."""
    root = tmp_path_factory.mktemp("chain")
    index = tiny_shards(root / "shards")
    tiny_model(root / "models" / "teacher-cnn", index, run="teacher-cnn", steps=20)
    assistant, teachers = "assistant-cnn", ("teacher-cnn",)
    tiny_model(root / "models" / assistant, index, run=assistant, teachers=teachers, steps=5)
    return root


@pytest.fixture(scope="module")
def found(chain: Path) -> Replicated:
    return again(chain, others=[words(chain / "real")])


def of(found: Replicated, run: str, place: int = 0) -> OfRun:
    return next(one for one in found.judged[place].runs if one.run == run)


def test_all_students_are_trained_with_every_seed_beside_the_models_above_them(
    found: Replicated,
) -> None:
    test, real = found.judged
    assert [(one.run, one.seeds) for one in real.runs] == [
        ("teacher-cnn", (0,)),
        ("assistant-cnn", (0,)),
        ("student-cnn", (1, 2)),
        ("student-cnn-assisted", (1, 2)),
        ("student-alone", (1, 2)),
    ]
    assert (test.data.split, test.images, real.data.source) == ("test", 24, "folder real")
    pairs = [
        ("student-cnn", "student-alone"),
        ("student-cnn-assisted", "student-alone"),
        ("student-cnn-assisted", "student-cnn"),
    ]
    pairs.append(("student-cnn", "teacher-cnn"))
    in_8_bits = [
        (f"{run} in 8 bits", run)
        for run in ("student-cnn", "student-cnn-assisted", "student-alone")
    ]
    assert [(one.first, one.second) for one in real.differences] == pairs
    assert [(one.first, one.second) for one in test.differences] == pairs + in_8_bits


def test_the_same_images_from_shards_and_from_a_folder_are_answered_alike(
    found: Replicated,
) -> None:
    test, real = found.judged
    right = {one.name: one.correct for one in test.runs}
    assert {one.name: one.correct for one in real.runs}.items() <= right.items()


def test_what_was_trained_is_not_trained_again_and_a_seed_gives_the_same_model(
    chain: Path, found: Replicated, caplog: pytest.LogCaptureFixture
) -> None:
    weights = sorted((chain / "storage/replicate").glob("student-*/student-*/model.safetensors"))
    before = {path: path.stat().st_mtime_ns for path in weights}
    assert len(before) == 6
    more = again(chain, "student-alone", seeds=(1, 2, 3))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert of(more, "student-alone").correct[:2] == of(found, "student-alone").correct
    elsewhere = chain / "elsewhere"
    elsewhere.mkdir()
    for name in ("shards", "models"):
        (elsewhere / name).symlink_to(chain / name)
    fresh = again(elsewhere, "student-alone")
    assert of(fresh, "student-alone") == of(found, "student-alone")


def test_stored_targets_that_were_damaged_are_made_again(chain: Path) -> None:
    before = again(chain, "student-cnn", targets="stored")
    kept = chain / "storage/replicate"
    indexes = sorted(kept.glob("targets-*/teacher-cnn/index.json"))
    assert len(indexes) == 2
    content = indexes[0].read_bytes()
    indexes[0].write_text("{")
    for model in kept.glob("student-cnn-*/student-cnn"):
        shutil.rmtree(model)
    assert of(again(chain, "student-cnn", targets="stored"), "student-cnn") == of(
        before, "student-cnn"
    )
    assert indexes[0].read_bytes() == content


def test_a_changed_student_is_compared_with_the_one_that_has_all_other_settings(
    chain: Path,
) -> None:
    changes = [
        Change("distillation.loss", "dist"),
        Change("width", 0.5),
        Change("teacher", {"teacher-cnn": 1, "assistant-cnn": 3}),
    ]
    test = again(chain, "student-cnn", "student-alone", changes=changes).judged[0]
    dist, narrow, both = (
        of_name
        for of_name in (one.name for one in test.runs if one.changed_from)
        if "8 bits" not in of_name
    )
    runs = {one.name: one for one in test.runs}
    assert runs[dist].settings["distillation"]["loss"] == "dist"
    assert runs[narrow].model == "cnn 4-8"
    assert runs[both].teachers == ("teacher-cnn", "assistant-cnn")
    asked = [(one.question, one.first, one.second) for one in test.differences]
    assert [one for one in asked if one[0] == "settings"] == [
        ("settings", changed, "student-cnn") for changed in (dist, narrow, both)
    ]
    assert [one for one in asked if one[0] in {"alone", "keeps_up"}] == [
        ("alone", "student-cnn", "student-alone"),
        ("keeps_up", "student-cnn", "teacher-cnn"),
    ]
    bits = [first for question, first, _ in asked if question == "bits"]
    assert f"{narrow} in 8 bits" in bits


@pytest.mark.parametrize(
    ("names", "seeds", "message"),
    [
        ((), (1,), "seeds 1: give two different ones at least"),
        ((), (1, 1), "seeds 1, 1: give two different ones"),
        ((), (1, -1), "seeds 1, -1: give two different ones"),
        (("teacher-cnn",), (1, 2), "teacher-cnn: only students are trained again"),
        (("student-x",), (1, 2), "no run 'student-x' in params.yaml"),
    ],
)
def test_wrong_use_is_refused(
    chain: Path, names: tuple[str, ...], seeds: tuple[int, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        again(chain, *names, seeds=seeds)


def test_what_a_search_found_is_not_passed_over_in_silence(chain: Path) -> None:
    params = tiny_params(view={"cycle": 1}, search={"used": "best"})
    with pytest.raises(UsageError, match=r"search\.used is best"):
        replicate(
            params, (), (1, 2), Compute(), title="", shards=chain / "s", models=chain / "models"
        )


def test_another_process_at_it_is_refused(chain: Path, found: Replicated) -> None:
    with (
        hold(chain / "storage/replicate/lock", "it"),
        pytest.raises(UsageError, match="another process is at such trainings"),
    ):
        again(chain)


def test_a_folder_that_cannot_be_read_is_told_of_before_anything_is_trained(
    chain: Path, tmp_path: Path
) -> None:
    for name in ("shards", "models"):
        (tmp_path / name).symlink_to(chain / name)
    with pytest.raises(DataError, match="no-such-folder"):
        again(tmp_path, others=[tmp_path / "no-such-folder"])
    assert not list((tmp_path / "storage").rglob("*.safetensors"))


def test_a_difference_in_every_word_and_seed_is_no_luck_and_none_is_none() -> None:
    half, most = [True] * 20 + [False] * 20, [True] * 39 + [False]
    teacher = right("teacher-t", 0, most, "teacher", model="ocr")
    both = judged(
        [
            teacher,
            *(right("student-alone", seed, half) for seed in (1, 2)),
            *(right("student-t", seed, most, teachers=("teacher-t",)) for seed in (2, 1)),
            *(right("student-u", seed, half, teachers=("teacher-u",)) for seed in (1, 2)),
        ]
    )
    assert both.images == 40
    found = {(one.first, one.second): one for one in both.differences}
    assert found["student-t", "student-alone"].difference == pytest.approx(47.5)
    assert found["student-t", "student-alone"].low > 0
    assert found["student-t", "student-alone"].p < 0.05
    none = found["student-u", "student-alone"]
    assert (none.low, none.high, none.p) == (0, 0, 1)
    assert found["student-t", "teacher-t"].question == "keeps_up"


def test_only_students_of_one_network_are_compared_with_each_other() -> None:
    chain = [
        right("teacher-t", 0, [True, True], "teacher", model="ocr"),
        right("assistant-t", 0, [True, False], "assistant", ("teacher-t",), model="crnn"),
    ]
    students = [
        ("student-alone", (), "cnn 8"),
        ("student-t", ("teacher-t",), "cnn 8"),
        ("student-t-assisted", ("assistant-t",), "cnn 8"),
        ("student-t-x2", ("teacher-t",), "cnn 16"),
        ("student-t-assisted-x2", ("assistant-t",), "cnn 16"),
    ]
    trained = [
        right(name, seed, [True, seed > 1], teachers=teachers, model=model)
        for name, teachers, model in students
        for seed in (1, 2)
    ]
    assert [
        (one.question, one.first, one.second) for one in judged(chain + trained).differences
    ] == [
        ("alone", "student-t", "student-alone"),
        ("alone", "student-t-assisted", "student-alone"),
        ("assistant", "student-t-assisted", "student-t"),
        ("assistant", "student-t-assisted-x2", "student-t-x2"),
        ("keeps_up", "student-t", "teacher-t"),
        ("keeps_up", "student-t-x2", "teacher-t"),
    ]


def test_students_are_compared_where_they_differ_in_one_thing() -> None:
    plain: dict[str, Any] = {"training": {"lr": 1}, "distillation": {"loss": "hinton"}}
    other = {**plain, "training": {"lr": 2}}
    dkd = {**plain, "distillation": {"loss": "dkd"}}
    above = [
        right("teacher-t", 0, [True, True], "teacher", model="ocr"),
        right("teacher-u", 0, [True, True], "teacher", model="ocr"),
        right("assistant-t", 0, [True, False], "assistant", ("teacher-t",), model="crnn"),
    ]
    students: list[tuple[str, tuple[str, ...], dict[str, Any], str | None]] = [
        ("alone", (), {"training": {"lr": 1}, "distillation": None}, None),
        ("t", ("teacher-t",), plain, None),
        ("u", ("teacher-u",), plain, None),
        ("u-fast", ("teacher-u",), other, None),
        ("t-assisted", ("assistant-t",), plain, None),
        ("t-assisted-dkd", ("assistant-t",), dkd, None),
        ("t-loss-dkd", ("teacher-t",), dkd, "t"),
    ]
    trained = [
        right(name, seed, [True, seed > 1], teachers=teachers, settings=settings, changed_from=base)
        for name, teachers, settings, base in students
        for seed in (1, 2)
    ]
    found = [(one.question, one.first, one.second) for one in judged(above + trained).differences]
    assert [one for one in found if one[0] != "keeps_up"] == [
        ("alone", "t", "alone"),
        ("alone", "u", "alone"),
        ("alone", "t-assisted", "alone"),
        ("alone", "t-assisted-dkd", "alone"),
        ("assistant", "t-assisted", "t"),
        ("teachers", "t", "u"),
        ("settings", "t-loss-dkd", "t"),
    ]


def test_an_accuracy_never_leaves_its_bounds_and_one_that_never_varies_has_an_interval() -> None:
    first, second = [True] * 23 + [False], [True] * 24
    found = judged([right("a", 1, first), right("a", 2, second), right("b", 1, second)])
    varies, alone = found.runs
    assert 0 <= varies.low < varies.accuracy < varies.high <= 100
    assert alone.low == pytest.approx(86.2, abs=0.1)
    assert alone.high == 100
    same = judged([right("b", 1, second), right("b", 2, second)]).runs[0]
    assert (same.low, same.high) == (alone.low, alone.high)


def test_a_seed_that_comes_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="a comes twice with the seed 1"):
        judged([right("a", 1, [True, False]), right("a", 1, [True, False])])


def test_models_of_other_images_are_not_compared() -> None:
    with pytest.raises(ValueError, match="judged on different images"):
        judged([right("student-alone", 1, [True, False]), right("student-alone", 2, [True])])


def test_the_page_says_what_the_numbers_say_and_only_them(
    found: Replicated, tmp_path: Path
) -> None:
    (tmp_path / "tiny.json").write_text(found.model_dump_json())
    assert write_results(tmp_path, tmp_path / "results.md") == 1
    page = (tmp_path / "results.md").read_text()
    assert "**generated words, not CVSI-2015**" in page
    one = of(found, "student-cnn")
    assert f"{one.accuracy:.2f} ({one.low:.2f}–{one.high:.2f})" in page
    assert "**Does the assistant pay?** student-cnn-assisted " in page
    assert "\n\n\n" not in page


def test_a_page_of_nothing_or_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no results: make some by"):
        write_results(tmp_path, tmp_path / "page.md")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match=r"other\.json is not what"):
        write_results(tmp_path, tmp_path / "page.md")


def test_on_the_command_line_seeds_are_numbers_and_changes_have_values(tmp_path: Path) -> None:
    project = write_project(tmp_path)
    out = ("--out", "results/alone.json")
    done = run(project, "replicate", "student-alone", "--seeds", "1,x", *out)
    assert (done.returncode, "error: --seeds 1,x: give numbers" in done.stderr) == (2, True)
    done = run(project, "replicate", "student-alone", "--change", "width", *out)
    assert (done.returncode, "error: --change width: give KEY=VALUE" in done.stderr) == (2, True)
    done = run(project, "replicate", "student-alone", "--seeds", "1,2", "--title", "Alone", *out)
    assert done.returncode == 0, done.stderr
    assert run(project, "results").returncode == 0
    assert "## Alone" in (project / "docs/results.md").read_text()


def test_sizes_stand_beside_the_default_with_what_they_take_and_are_drawn(tmp_path: Path) -> None:
    trained = [
        right(f"student-{size}", seed, [True, seed > 1], model=f"cnn {size}", parameters=100 * size)
        for size in (1, 2, 3)
        for seed in (1, 2)
    ]
    smaller = [one.model_copy(update={"in_8_bits": True}) for one in trained]
    study = Replicated(
        title="Sizes",
        source="generated",
        version="0" * 64,
        training_images=48,
        seeds=(1, 2),
        judged=(judged(trained + smaller),),
    )
    (tmp_path / "sizes.json").write_text(study.model_dump_json())
    few = judged(trained[:4] + smaller[:4])
    (tmp_path / "two.json").write_text(
        study.model_copy(update={"judged": (few,)}).model_dump_json()
    )
    (tmp_path / "bench").mkdir()
    sizes = {
        f"student-{size}": {
            "network": f"cnn {size}",
            "latency_ms_onnx": size / 4,
            "latency_ms_int8": size / 8,
        }
        for size in (1, 2, 3)
    }
    (tmp_path / "bench/x86.json").write_text(
        json.dumps({"machine": {"processor": "X"}, "sizes": sizes})
    )
    write_results(tmp_path, tmp_path / "docs" / "results.md", tmp_path / "bench")
    page = (tmp_path / "docs" / "results.md").read_text()
    assert "| student-1 | cnn 1 | 100 | 75.00 (" in page
    assert "| 0.250 | 0.125 |" in page
    assert page.count("](results-sizes.svg)") == 1
    assert [path.name for path in (tmp_path / "docs").glob("*.svg")] == ["results-sizes.svg"]
    # Written by the lines above, and nobody else.
    drawn = ElementTree.parse(tmp_path / "docs" / "results-sizes.svg").getroot()  # noqa: S314
    names = [one.text for one in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"100", "100, 8 bits", "300", "300, 8 bits"} <= set(names)
