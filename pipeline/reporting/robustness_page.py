"""How accuracy falls as images get worse: a file for programs, and a page for people.

Coordinates are rounded, so that the same numbers give the same bytes on every machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from pipeline.data.worsen import CHANGES, Change
from pipeline.files import write_whole
from pipeline.reporting.figures import Tick, nice
from pipeline.reporting.templating import fill
from pipeline.robustness import Falls, Measured, Robustness

NUMBERS_FILE: Final = "robustness.json"
PAGE_FILE: Final = "index.html"

LOST: Final = 5
"""Percent points whose loss a sentence tells of."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 312, 20, 190
_MARGIN, _APART = 14, 4.0
_DASHES: Final = ("none", "5 4", "1 4")


@dataclass(frozen=True)
class Point:
    """One accuracy, with its interval's ends."""

    title: str
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """One run; ``dashes`` tell it from others of its role."""

    run: str
    role: str
    dashes: str
    points: tuple[Point, ...]

    @property
    def path(self) -> str:
        """Its points as SVG wants them."""
        return " ".join(f"{point.x},{point.y}" for point in self.points)


@dataclass(frozen=True)
class Chart:
    """Accuracy over the strengths of one change, which stand at even distances."""

    name: str
    measure: str
    sentence: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]


def write(folder: Path, found: Robustness) -> None:
    """Writes both files of a measurement."""
    write_whole(folder / NUMBERS_FILE, found.model_dump_json(indent=2) + "\n")
    write_whole(folder / PAGE_FILE, page_of(found))


def page_of(found: Robustness) -> str:
    """The whole page, with every style and picture inside."""
    charts = _charts(found)
    said = {change.name: change.said for change in CHANGES}
    return fill(
        "robustness.html.j2",
        found=found,
        generated=found.source == "generated",
        charts=charts,
        legend=charts[0].lines,
        rows=[
            (name, "" if strength is None else said[name].format(strength), steps)
            for name, strength, steps in found.rows()
        ],
    )


def lost(run: str, change: Change, steps: Sequence[Measured], words: int) -> str:
    """The sentence that says at what strength a run has lost five points.

    Args:
        run: its name.
        change: what was done to the words.
        steps: what was measured, from unchanged words on.
        words: how many it was asked about.
    """
    first, last = steps[0], steps[-1]
    as_they_are = f"and {first.accuracy:.2f} % as they are."
    for before, step in pairwise(steps):
        # In words, for a difference of percentages may miss five by a rounding.
        if 100 * (first.correct - step.correct) >= LOST * words:
            not_yet = "" if before is first else f", not yet at {before.strength:g}"
            return (
                f"{run} has lost five points at {_said(change, step)}{not_yet}: it reads "
                f"{step.accuracy:.2f} % of the words, {as_they_are}"
            )
    return (
        f"{run} loses fewer than five points: at {_said(change, last)} it reads "
        f"{last.accuracy:.2f} % of the words, {as_they_are}"
    )


def _said(change: Change, step: Measured) -> str:
    return change.said.format(step.strength)


def _charts(found: Robustness) -> tuple[Chart, ...]:
    """A chart for every change, on one axis of accuracy so that they can be compared."""
    every = [step for _, _, steps in found.rows() for step in steps]
    low, high = min(step.low for step in every), max(step.high for step in every)
    axis = nice(low, high, 6, most=100.0)
    # The page is about the student; where none was asked, about the last of the chain.
    students = [run for run in found.runs if run.role == "student"]
    told = (students or found.runs[-1:])[0]
    return tuple(_chart(change, found, told, axis) for change in CHANGES)


def _chart(change: Change, found: Robustness, told: Falls, axis: tuple[float, ...]) -> Chart:
    labels = ("none", *(f"{strength:g}" for strength in change.strengths))
    return Chart(
        name=change.name,
        measure=change.measure,
        sentence=lost(told.run, change, told.changes[change.name], found.words),
        x_ticks=tuple(
            Tick(_across(place, len(labels)), label) for place, label in enumerate(labels)
        ),
        y_ticks=tuple(Tick(_up(value, axis), f"{value:g}") for value in axis),
        lines=_lines(found.runs, change, axis),
    )


def _lines(runs: Sequence[Falls], change: Change, axis: tuple[float, ...]) -> tuple[Line, ...]:
    lines, seen = [], Counter[str]()
    for number, run in enumerate(runs):
        # Side by side, or their intervals would cover each other.
        aside = (number - (len(runs) - 1) / 2) * _APART
        steps = run.changes[change.name]
        points = tuple(
            Point(
                title=f"{run.run}: {step.accuracy:.2f} % ({step.low:.2f} to {step.high:.2f})",
                x=round(_across(place, len(steps)) + aside, 1),
                y=_up(step.accuracy, axis),
                low=_up(step.low, axis),
                high=_up(step.high, axis),
            )
            for place, step in enumerate(steps)
        )
        lines.append(Line(run.run, run.role, _DASHES[seen[run.role] % len(_DASHES)], points))
        seen[run.role] += 1
    return tuple(lines)


def _across(place: int, count: int) -> float:
    return round(_LEFT + _MARGIN + place / (count - 1) * (_RIGHT - _LEFT - 2 * _MARGIN), 1)


def _up(accuracy: float, axis: tuple[float, ...]) -> float:
    share = (accuracy - axis[0]) / (axis[-1] - axis[0])
    return round(_BOTTOM - share * (_BOTTOM - _TOP), 1)
