"""What is made of the answers of several seeds, and the page about it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from pipeline.errors import DataError
from pipeline.evaluation import JudgedData
from pipeline.replicated import Replicated, Right, judged
from pipeline.reporting.results_page import write_results
from pipeline.runs import Role

DATA = JudgedData(source="generated", split="test", version="0" * 64)


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
        ("t-lr-2", ("teacher-t",), other, "t"),
        ("alone-lr-2", (), {"training": {"lr": 2}, "distillation": None}, "alone"),
    ]
    trained = [
        right(name, seed, [True, seed > 1], teachers=teachers, settings=settings, changed_from=base)
        for name, teachers, settings, base in students
        for seed in (1, 2)
    ]
    found = [(one.question, one.first, one.second) for one in judged(above + trained).differences]
    assert [one for one in found if one[0] != "keeps_up"] == [
        *(
            ("alone", taught, alone)
            for taught in ("t", "u", "t-assisted", "t-assisted-dkd")
            for alone in ("alone", "alone-lr-2")
        ),
        ("alone", "t-lr-2", "alone-lr-2"),
        ("assistant", "t-assisted", "t"),
        ("teachers", "t", "u"),
        ("settings", "t-loss-dkd", "t"),
        ("settings", "t-lr-2", "t"),
        ("settings", "alone-lr-2", "alone"),
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


def test_a_page_of_nothing_or_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no results: make some by"):
        write_results(tmp_path, tmp_path / "page.md")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(DataError, match=r"other\.json is not what"):
        write_results(tmp_path, tmp_path / "page.md")


def test_milliseconds_are_those_of_the_network_that_was_timed(tmp_path: Path) -> None:
    for name, parameters in (("timed", 100), ("other", 90)):
        students = [
            right(name, seed, [True, seed > 1], model="cnn 1", parameters=parameters)
            for seed in (1, 2)
        ]
        study = Replicated(
            title=name,
            source="generated",
            version="0" * 64,
            training_images=48,
            seeds=(1, 2),
            judged=(judged(students),),
        )
        (tmp_path / f"{name}.json").write_text(study.model_dump_json())
    row = {"network": "cnn 1", "parameters": 100, "latency_ms_onnx": 0.25, "latency_ms_int8": 0.125}
    (tmp_path / "bench").mkdir()
    # A machine on which no network was timed comes first.
    for name, measured in (("a", {}), ("b", {"sizes": {"student": row}})):
        content = {"machine": {"processor": name}, **measured}
        (tmp_path / f"bench/{name}.json").write_text(json.dumps(content))
    write_results(tmp_path, tmp_path / "results.md", tmp_path / "bench")
    page = (tmp_path / "results.md").read_text()
    assert re.search(r"\| timed \| cnn 1 \| 100 \| .* \| 0\.250 \| 0\.125 \|", page)
    assert re.search(r"\| other \| cnn 1 \| 90 \| [^|]* \|\n", page)
    assert page.count("one thread of b in ONNX Runtime") == 1


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
            "parameters": 100 * size,
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
