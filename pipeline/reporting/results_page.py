"""docs/results.md: what trainings with several seeds came to, written from their JSON alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from pipeline.errors import DataError
from pipeline.files import write_whole
from pipeline.replication import ALONE, Difference, Judged, OfRun, Replication
from pipeline.reporting.templating import fill, p_value, short, signed
from pipeline.statistics import SIGNIFICANT

RESULTS: Final = Path("results")
PAGE: Final = Path("docs/results.md")
_CHAIN: Final = ("teacher-{}", "assistant-{}", ALONE, "student-{}", "student-{}-assisted")


@dataclass(frozen=True)
class Row:
    """A teacher's row of the matrix: the five ways to a model, None where one was not trained."""

    teacher: str
    cells: tuple[OfRun | None, ...]


@dataclass(frozen=True)
class Section:
    """One set of images that a study's models were judged on."""

    judged: Judged
    rows: tuple[Row, ...]
    others: tuple[OfRun, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Study:
    """One file of results."""

    file: str
    replication: Replication
    sections: tuple[Section, ...]


def write_results(results: Path = RESULTS, page: Path = PAGE) -> int:
    """Writes the page from every file of results.

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
    studies = [_study(path) for path in paths]
    write_whole(page, fill("results.md.j2", studies=studies))
    return len(studies)


def _study(path: Path) -> Study:
    try:
        replication = Replication.model_validate_json(path.read_text())
    except ValidationError as error:
        raise DataError(
            f"{path} is not what python -m pipeline replicate writes: {error}; make it again"
        ) from error
    return Study(path.name, replication, tuple(map(_section, replication.judged)))


def _section(judged: Judged) -> Section:
    runs = {run.run: run for run in judged.runs}
    teachers = [run.run.removeprefix("teacher-") for run in judged.runs if run.role == "teacher"]
    rows = tuple(
        Row(teacher, tuple(runs.get(name.format(teacher)) for name in _CHAIN))
        for teacher in teachers
    )
    shown = {run.run for row in rows for run in row.cells if run is not None}
    others = tuple(run for name, run in runs.items() if name not in shown)
    answers = _answers(runs, judged.differences)
    return Section(judged, rows, others, answers)


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
        if run.role == "student" and run.run != ALONE and not run.run.endswith("-assisted")
    ]
    if len(direct) > 1:
        first = max(direct, key=lambda run: run.accuracy)
        told = [one for one in differences if first.run in (one.first, one.second)]
        told = [one for one in told if {one.first, one.second} <= {run.run for run in direct}]
        answers.append(
            f"**Which teacher teaches best?** On average {first.run} reads most of the students "
            f"taught directly. {' '.join(map(_told, told))}"
        )
    assisted = [one for one in differences if one.first == f"{one.second}-assisted"]
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
