"""docs/results.md: what trainings with several seeds came to, written from their JSON alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Final

from pydantic import ValidationError

from pipeline.errors import DataError
from pipeline.files import write_whole
from pipeline.replicated import Difference, Judged, OfRun, Question, Replicated
from pipeline.reporting import figures
from pipeline.reporting.templating import fill, short

RESULTS: Final = Path("results")
PAGE: Final = Path("docs/results.md")
BENCHMARKS: Final = Path("benchmarks/results")
_LATENCIES: Final = ("latency_ms_onnx", "latency_ms_int8")
_ASKED: Final[Mapping[Question, str]] = {
    "alone": "Distilled or alone?",
    "teachers": "Which teacher teaches best?",
    "settings": "What does another setting bring?",
    "assistant": "Does the assistant pay?",
    "keeps_up": "Does a student keep up with its teacher?",
    "bits": "What do 8 bits cost?",
}
_SIZES: Final = 3
"""A front of fewer is none."""


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
class Answer:
    """A question with the comparisons that answer it, and a sentence beside them."""

    question: str
    said: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True)
class Section:
    """One set of images that a study's models were judged on.

    Attributes:
        front: accuracy against milliseconds, where students of several sizes have both.
    """

    judged: Judged
    rows: tuple[Row, ...]
    students: tuple[Sized, ...]
    front: figures.Scatter | None
    answers: tuple[Answer, ...]

    @property
    def timed(self) -> bool:
        """Whether the milliseconds of any student are known."""
        return any(ms is not None for one in self.students for ms in one.milliseconds)


@dataclass(frozen=True)
class Study:
    """One file of results."""

    file: str
    found: Replicated
    sections: tuple[Section, ...]

    @property
    def picture(self) -> str:
        """The name of its picture, if it has one."""
        return f"results-{Path(self.file).stem}.svg"


@dataclass(frozen=True)
class Latencies:
    """What the benchmarks measured on one machine, by a network's description and parameters."""

    machine: str
    of: Mapping[tuple[str, int], Mapping[str, float]]


def write_results(results: Path = RESULTS, page: Path = PAGE, benchmarks: Path = BENCHMARKS) -> int:
    """Writes the page from every file of results, and from the latencies of the benchmarks.

    Beside it, a picture for every file that has students of several sizes.

    Returns:
        How many files of results there are.

    Raises:
        DataError: there are none, or one is not what ``replicate`` writes.
    """
    paths = sorted(results.glob("*.json"))
    if not paths:
        raise DataError(
            f"{results} holds no results: make some by python -m pipeline replicate --out "
            f"{results}/NAME.json"
        )
    latencies = _latencies(benchmarks)
    studies = [_study(path, latencies) for path in paths]
    for study in studies:
        if front := study.sections[0].front:
            write_whole(page.parent / study.picture, fill("front.svg.j2", plot=front))
    write_whole(page, fill("results.md.j2", studies=studies, machine=latencies.machine))
    return len(studies)


def _latencies(folder: Path) -> Latencies:
    """Those of the first file with some: times of several machines are no column."""
    measured = (json.loads(path.read_text()) for path in sorted(folder.glob("*.json")))
    content = next((one for one in measured if "sizes" in one), None)
    if content is None:
        return Latencies("", {})
    rows = {(row["network"], row["parameters"]): row for row in content["sizes"].values()}
    return Latencies(content["machine"]["processor"], rows)


def _study(path: Path, latencies: Latencies) -> Study:
    try:
        found = Replicated.model_validate_json(path.read_text())
    except ValidationError as error:
        raise DataError(
            f"{path} is not what python -m pipeline replicate writes: {error}; make it again"
        ) from error
    return Study(path.name, found, tuple(_section(one, latencies) for one in found.judged))


def _section(judged: Judged, latencies: Latencies) -> Section:
    runs = {run.name: run for run in judged.runs}
    names = [run.run.removeprefix("teacher-") for run in judged.runs if run.role == "teacher"]
    chain = ("teacher-{}", "assistant-{}", "student-alone", "student-{}", "student-{}-assisted")
    rows = tuple(Row(name, tuple(runs.get(one.format(name)) for one in chain)) for name in names)
    students = [run for run in judged.runs if run.role == "student" and not run.in_8_bits]
    sized = tuple(
        Sized(
            run,
            runs.get(f"{run.run} in 8 bits"),
            tuple(latencies.of.get((run.model, run.parameters), {}).get(key) for key in _LATENCIES),
        )
        for run in sorted(students, key=lambda run: run.parameters)
    )
    return Section(judged, rows, sized, _front(sized), _answers(runs, judged.differences))


def _front(students: Iterable[Sized]) -> figures.Scatter | None:
    points = [
        figures.Point(
            name=f"{short(run.parameters)}{', 8 bits' if run.in_8_bits else ''}",
            role=run.role,
            accuracy=run.accuracy,
            low=run.low,
            high=run.high,
            cost=milliseconds,
        )
        for one in students
        for run, milliseconds in zip((one.run, one.smaller), one.milliseconds, strict=True)
        if run is not None and milliseconds is not None
    ]
    if len({point.name for point in points}) < _SIZES * len(_LATENCIES):
        return None
    return figures.scatter(points, "ms for one image on one CPU thread in ONNX Runtime", "ms")


def _answers(runs: Mapping[str, OfRun], differences: Sequence[Difference]) -> tuple[Answer, ...]:
    """What was asked, in order, each with the comparisons that answer it."""

    def said(question: Question, asked: Sequence[Difference]) -> str:
        if question == "teachers":
            names = dict.fromkeys(name for one in asked for name in (one.first, one.second))
            best = max(names, key=lambda name: mean(runs[name].validation_accuracy))
            return f"{best} has the best mean accuracy on validation."
        if question == "keeps_up":
            return " ".join(
                f"{one.first} has 1/{runs[one.second].parameters / runs[one.first].parameters:.1f} "
                f"of the parameters of {one.second} ({short(runs[one.first].parameters)} of "
                f"{short(runs[one.second].parameters)})."
                for one in asked
            )
        return ""

    by_question = {
        question: tuple(one for one in differences if one.question == question)
        for question in _ASKED
    }
    return tuple(
        Answer(_ASKED[question], said(question, asked), asked)
        for question, asked in by_question.items()
        if asked
    )
