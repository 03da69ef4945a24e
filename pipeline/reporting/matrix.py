"""The paper's matrix: for every teacher the five ways to a model, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.evaluation import Evaluation
from pipeline.params import Params
from pipeline.reporting.evidence import Evidence
from pipeline.reporting.templating import p_value
from pipeline.statistics import Comparison


@dataclass(frozen=True)
class Cell:
    """One run of the matrix, with its comparison to the student alone if it is a student."""

    evaluation: Evaluation
    comparison: Comparison | None = None


@dataclass(frozen=True)
class MatrixRow:
    """What came of one teacher."""

    teacher: str
    alone: Cell
    assistant: Cell
    direct: Cell
    assisted: Cell


@dataclass(frozen=True)
class Verdict:
    """Two runs compared, with what may be said of them."""

    first: str
    second: str
    comparison: Comparison
    sentence: str


def matrix(params: Params, evidence: Evidence) -> tuple[MatrixRow, ...]:
    """A row for every teacher."""

    def cell(run: str, *, compared: bool = False) -> Cell:
        comparison = evidence.compare(run, "student-alone") if compared else None
        return Cell(evidence.runs[run].evaluation, comparison)

    return tuple(
        MatrixRow(
            teacher=teacher,
            alone=cell(f"teacher-{teacher}"),
            assistant=cell(f"assistant-{teacher}"),
            direct=cell(f"student-{teacher}", compared=True),
            assisted=cell(f"student-{teacher}-assisted", compared=True),
        )
        for teacher in params.teachers
    )


def verdicts(params: Params, evidence: Evidence) -> tuple[Verdict, ...]:
    """Every taught student against the student alone, and every assisted one against direct.

    A further run of another network than the student's has nothing to stand against.
    """
    pairs: list[tuple[str, str]] = []
    for teacher in params.teachers:
        direct, assisted = f"student-{teacher}", f"student-{teacher}-assisted"
        pairs += [
            (direct, "student-alone"),
            (assisted, "student-alone"),
            (assisted, direct),
        ]
    network = evidence.runs["student-alone"].run.network
    further = [(name, evidence.runs[name].run) for name in params.runs]
    pairs += [
        (name, "student-alone")
        for name, run in further
        if run.role == "student" and run.network == network
    ]
    return tuple(_verdict(evidence, first, second) for first, second in pairs)


def sentence(first: str, second: str, comparison: Comparison) -> str:
    """What may be said of two runs, in a sentence."""
    disagreed = comparison.only_first + comparison.only_second
    if disagreed == 0:
        return "No difference: both read the same words right."
    p = p_value(comparison.p)
    if not comparison.significant:
        return (
            f"Not significantly different ({p}): the words they disagree on, {disagreed}, "
            "could have fallen so by chance."
        )
    difference = comparison.difference.value
    better = first if difference > 0 else second
    return f"{better} is more accurate, by {abs(difference):.2f} points ({p})."


def _verdict(evidence: Evidence, first: str, second: str) -> Verdict:
    comparison = evidence.compare(first, second)
    return Verdict(first, second, comparison, sentence(first, second, comparison))
