"""docs/results.md: what trainings with several seeds came to, written from their JSON alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from pipeline.errors import DataError
from pipeline.files import write_whole
from pipeline.replication import (
    ALONE,
    ASSISTED,
    IN_8_BITS,
    Difference,
    Judged,
    OfRun,
    Replication,
)
from pipeline.reporting.templating import fill, p_value, short, signed
from pipeline.statistics import SIGNIFICANT

RESULTS: Final = Path("results")
PAGE: Final = Path("docs/results.md")
BENCHMARKS: Final = Path("benchmarks/results")
_LATENCIES: Final = ("latency_ms_onnx", "latency_ms_int8")
_CHAIN: Final = ("teacher-{}", "assistant-{}", ALONE, "student-{}", "student-{}-assisted")


@dataclass(frozen=True)
class Row:
    """A teacher's row of the matrix: the five ways to a model, None where one was not trained."""

    teacher: str
    cells: tuple[OfRun | None, ...]


@dataclass(frozen=True)
class Sized:
    """A student, and the same in 8 bits where it was judged so.

    Attributes:
        milliseconds: of an image in ONNX Runtime, where they were measured; those in 8 bits next.
    """

    run: OfRun
    smaller: OfRun | None
    milliseconds: tuple[float | None, ...]


@dataclass(frozen=True)
class Section:
    """One set of images that a study's models were judged on."""

    judged: Judged
    rows: tuple[Row, ...]
    students: tuple[Sized, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """One file of results."""

    file: str
    replication: Replication
    sections: tuple[Section, ...]


def write_results(results: Path = RESULTS, page: Path = PAGE, benchmarks: Path = BENCHMARKS) -> int:
    """Writes the page from every file of results, and from the latencies of the benchmarks.

    Returns:
        How many files there are.

    Raises:
        DataError: there are none, or one is no replication.
    """
    paths = sorted(results.glob("*.json"))
    if not paths:
        raise DataError(
            f"{results} holds no results: make some by python -m pipeline replicate --out "
            f"{results}/NAME.json"
        )
    latencies = _latencies(benchmarks)
    studies = [_study(path, latencies) for path in paths]
    write_whole(page, fill("results.md.j2", studies=studies))
    return len(studies)


def _latencies(folder: Path) -> dict[str, dict[str, float]]:
    """What the benchmarks measured of networks, by their description; the last file wins."""
    found: dict[str, dict[str, float]] = {}
    for path in sorted(folder.glob("*.json")):
        sizes = json.loads(path.read_text()).get("sizes", {})
        found |= {row["network"]: row for row in sizes.values()}
    return found


def _study(path: Path, latencies: Mapping[str, Mapping[str, float]]) -> Study:
    try:
        replication = Replication.model_validate_json(path.read_text())
    except ValidationError as error:
        raise DataError(
            f"{path} is not what python -m pipeline replicate writes: {error}; make it again"
        ) from error
    sections = tuple(_section(judged, latencies) for judged in replication.judged)
    return Study(path.name, replication, sections)


def _section(judged: Judged, latencies: Mapping[str, Mapping[str, float]]) -> Section:
    runs = {run.run: run for run in judged.runs}
    teachers = [run.run.removeprefix("teacher-") for run in judged.runs if run.role == "teacher"]
    rows = tuple(
        Row(teacher, tuple(runs.get(name.format(teacher)) for name in _CHAIN))
        for teacher in teachers
    )
    students = [
        run for name, run in runs.items() if run.role == "student" and not name.endswith(IN_8_BITS)
    ]
    sized = [
        Sized(
            run,
            runs.get(run.run + IN_8_BITS),
            tuple(latencies.get(run.model, {}).get(key) for key in _LATENCIES),
        )
        for run in sorted(students, key=lambda run: run.parameters)
    ]
    answers = _answers(runs, judged.differences)
    return Section(judged, rows, tuple(sized), answers)


def _answers(runs: dict[str, OfRun], differences: Sequence[Difference]) -> tuple[str, ...]:
    """What may be said, in sentences: each difference with its interval, and then of the chain."""
    between = {(one.first, one.second): one for one in differences}
    taught = [runs[one.first] for one in differences if one.second == ALONE]
    answers = []
    if taught:
        best = max(taught, key=lambda run: run.accuracy)
        answers.append(f"**Distilled or alone?** {_told(between[best.run, ALONE])}")
        worse = [between[run.run, ALONE] for run in taught if run is not best]
        answers += [_told(one) for one in worse]
    direct = [
        run
        for run in runs.values()
        if run.role == "student"
        and run.run != ALONE
        and not run.run.endswith((ASSISTED, IN_8_BITS))
    ]
    if len(direct) > 1:
        first = max(direct, key=lambda run: run.accuracy)
        told = [one for one in differences if first.run in (one.first, one.second)]
        told = [one for one in told if {one.first, one.second} <= {run.run for run in direct}]
        answers.append(
            f"**Which teacher teaches best?** On average {first.run} reads most of the students "
            f"taught directly. {' '.join(map(_told, told))}"
        )
    assisted = [one for one in differences if one.first == one.second + ASSISTED]
    if assisted:
        answers.append(f"**Does the assistant pay?** {' '.join(map(_told, assisted))}")
    teachers = [run for run in runs.values() if run.role == "teacher"]
    if teachers and direct:
        top = max(teachers, key=lambda run: run.accuracy)
        student = max(direct, key=lambda run: run.accuracy)
        answers.append(
            f"**Does the student keep up?** {student.run} reads "
            f"{signed(student.accuracy - top.accuracy)} points beside {top.run}, with one "
            f"{top.parameters / student.parameters:.1f}th of its parameters "
            f"({short(student.parameters)} of {short(top.parameters)})."
        )
    smaller = [one for one in differences if one.first == one.second + IN_8_BITS]
    if smaller:
        answers.append(f"**What do 8 bits cost?** {' '.join(map(_told, smaller))}")
    return tuple(answers)


def _told(one: Difference) -> str:
    numbers = (
        f"{signed(one.difference)} points, {signed(one.low)} to {signed(one.high)}, "
        f"{p_value(one.p)}"
    )
    if one.p >= SIGNIFICANT:
        return f"{one.first} cannot be told from {one.second} ({numbers})."
    more = "more" if one.difference > 0 else "less"
    return f"{one.first} reads {more} than {one.second} ({numbers})."
