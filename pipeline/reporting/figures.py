"""The geometry of the page's figures; a template draws it as SVG.

Coordinates are rounded, so that the same numbers give the same bytes on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pipeline.evaluation import Calibration
from pipeline.reporting.evidence import Epoch, RunEvidence
from pipeline.reporting.templating import short

WIDTH: Final = 480
LEFT, RIGHT, TOP, BOTTOM = 46, 468, 14, 336
SMALL_WIDTH: Final = 240
SMALL_LEFT, SMALL_RIGHT, SMALL_TOP, SMALL_BOTTOM = 34, 232, 8, 98

LETTER: Final = 6.1
LINE: Final = 14.0


@dataclass(frozen=True)
class Tick:
    """A value marked on an axis: where, and as what."""

    at: float
    label: str


@dataclass(frozen=True)
class Point:
    """A model to be drawn: its accuracy in percent, its interval, and what it costs."""

    name: str
    role: str
    accuracy: float
    low: float
    high: float
    cost: float


@dataclass(frozen=True)
class Mark:
    """One model in a scatter plot: its point, its interval's ends and its label."""

    run: str
    role: str
    title: str
    x: float
    y: float
    low: float
    high: float
    label_x: float
    label_y: float
    anchor: str


@dataclass(frozen=True)
class Scatter:
    """Accuracy against a cost, the cost on a logarithmic axis."""

    x_label: str
    description: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]


@dataclass(frozen=True)
class Panel:
    """One line over the epochs; ``best`` is the point of the kept epoch."""

    points: str
    best: tuple[float, float]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Curves:
    """The training of one run."""

    run: str
    role: str
    epochs: int
    best_epoch: int
    best_accuracy: float
    accuracy: Panel
    loss: Panel


@dataclass(frozen=True)
class Reliability:
    """How often one run is right where it is so sure, with its logits as they are and scaled."""

    run: str
    role: str
    calibration: Calibration
    plain: str
    scaled: str
    ideal: str
    ticks: tuple[tuple[Tick, ...], tuple[Tick, ...]]


def scatter(points: Sequence[Point], x_label: str, unit: str) -> Scatter:
    """Accuracy against cost, the cost in ``unit``."""
    costs = [point.cost for point in points]
    low, high = _decades(min(costs), max(costs))
    floor, ceiling = min(point.low for point in points), max(point.high for point in points)
    y_values = nice(floor, ceiling, 6, most=100.0)

    def x_of(value: float) -> float:
        share = (math.log10(value) - low) / (high - low)
        return LEFT + share * (RIGHT - LEFT)

    def y_of(value: float) -> float:
        share = (value - y_values[0]) / (y_values[-1] - y_values[0])
        return BOTTOM - share * (BOTTOM - TOP)

    places = [(x_of(point.cost), y_of(point.accuracy)) for point in points]
    labels = _place_labels([point.name for point in points], places)
    marks = [
        Mark(
            run=point.name,
            role=point.role,
            title=f"{point.name}: {point.accuracy:.2f} % at {point.cost:,.4g} {unit}".strip(),
            x=round(x, 1),
            y=round(y, 1),
            low=round(y_of(point.low), 1),
            high=round(y_of(point.high), 1),
            label_x=round(label_x, 1),
            label_y=round(label_y, 1),
            anchor=anchor,
        )
        for point, (x, y), (label_x, label_y, anchor) in zip(points, places, labels, strict=True)
    ]
    return Scatter(
        x_label=x_label,
        description="; ".join(mark.title for mark in marks),
        x_ticks=tuple(Tick(round(x_of(value), 1), short(value)) for value in _log_ticks(low, high)),
        y_ticks=tuple(Tick(round(y_of(value), 1), f"{value:g}") for value in y_values),
        marks=tuple(marks),
    )


def curves(runs: Sequence[RunEvidence]) -> tuple[Curves, ...]:
    """The learning curves of all runs, on common axes so that they can be compared."""
    epochs = [epoch for run in runs for epoch in run.history]
    accuracies = [epoch.validation_accuracy for epoch in epochs]
    losses = [epoch.validation_loss for epoch in epochs]
    accuracy_axis = nice(min(accuracies), max(accuracies), 4, most=100.0)
    loss_axis = nice(0.0, max(losses), 4)
    return tuple(
        Curves(
            run=run.name,
            role=run.run.role,
            epochs=len(run.history),
            best_epoch=run.model.metrics.best_epoch,
            best_accuracy=run.model.metrics.validation_accuracy,
            accuracy=_panel(run, lambda epoch: epoch.validation_accuracy, accuracy_axis),
            loss=_panel(run, lambda epoch: epoch.validation_loss, loss_axis),
        )
        for run in runs
    )


def reliability(runs: Sequence[RunEvidence]) -> tuple[Reliability, ...]:
    """Accuracy against confidence, of every run that was judged on a test split."""

    def x_of(percent: float) -> float:
        return SMALL_LEFT + percent / 100 * (SMALL_RIGHT - SMALL_LEFT)

    def y_of(percent: float) -> float:
        return SMALL_BOTTOM - percent / 100 * (SMALL_BOTTOM - SMALL_TOP)

    def points(places: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in places)

    ticks = (
        tuple(Tick(round(x_of(value), 1), f"{value:g}") for value in (0, 50, 100)),
        tuple(Tick(round(y_of(value), 1), f"{value:g}") for value in (0, 50, 100)),
    )
    return tuple(
        Reliability(
            run=run.name,
            role=run.run.role,
            calibration=found,
            plain=points((one.confidence, one.accuracy) for one in found.bins),
            scaled=points((one.confidence, one.accuracy) for one in found.bins_scaled),
            ideal=points([(0, 0), (100, 100)]),
            ticks=ticks,
        )
        for run in runs
        if (found := run.evaluation.calibration) is not None
    )


def nice(low: float, high: float, most_ticks: int, most: float = math.inf) -> tuple[float, ...]:
    """Round values, evenly spaced, that hold ``low`` and ``high`` between them."""
    span = max(high - low, 1e-9 + abs(high) * 1e-3)
    raw = span / (most_ticks - 1)
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(magnitude * part for part in (1, 2, 5, 10) if magnitude * part >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    if last == first:
        first -= 1
    values = tuple(round(count * step, 10) for count in range(first, last + 1))
    kept = tuple(value for value in values if value <= most)
    return kept if len(kept) > 1 else values


def _decades(low: float, high: float) -> tuple[float, float]:
    margin = max(0.08 * (math.log10(high) - math.log10(low)), 0.15)
    return math.log10(low) - margin, math.log10(high) + margin


def _log_ticks(low: float, high: float) -> list[float]:
    for parts in ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10))):
        values = [
            part * 10.0**power
            for power in range(math.floor(low), math.ceil(high) + 1)
            for part in parts
            if low <= math.log10(part * 10.0**power) <= high
        ]
        if len(values) >= 3:
            break
    return values


def _place_labels(
    names: Sequence[str], points: Sequence[tuple[float, float]]
) -> list[tuple[float, float, str]]:
    """A place for every label beside its point, where it covers no point and no other label."""
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in points]
    placed: list[tuple[float, float, str]] = []
    for name, (x, y) in zip(names, points, strict=True):
        best: tuple[int, float, str, tuple[float, float, float, float]] | None = None
        length = len(name) * LETTER
        for step in range(60):
            shift = (step + 1) // 2 * (1 if step % 2 else -1) * LINE / 2
            for anchor in ("start", "end"):
                left = x + 10 if anchor == "start" else x - 10 - length
                box = (left, y + shift - LINE / 2, left + length, y + shift + LINE / 2)
                outside = box[0] < LEFT or box[2] > WIDTH or box[1] < 0 or box[3] > BOTTOM
                hits = sum(_overlap(box, other) for other in taken) + 100 * outside
                if best is None or hits < best[0]:
                    best = (hits, y + shift, anchor, box)
        assert best is not None
        _, label_y, anchor, box = best
        taken.append(box)
        placed.append((x + 10 if anchor == "start" else x - 10, label_y, anchor))
    return placed


def _overlap(
    one: tuple[float, float, float, float], other: tuple[float, float, float, float]
) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _panel(run: RunEvidence, value: Callable[[Epoch], float], axis: tuple[float, ...]) -> Panel:
    epochs = [epoch.epoch for epoch in run.history]
    span = max(epochs[-1] - epochs[0], 1)

    def x_of(epoch: int) -> float:
        return SMALL_LEFT + (epoch - epochs[0]) / span * (SMALL_RIGHT - SMALL_LEFT)

    def y_of(number: float) -> float:
        share = (number - axis[0]) / (axis[-1] - axis[0])
        return SMALL_BOTTOM - share * (SMALL_BOTTOM - SMALL_TOP)

    points = [(x_of(epoch.epoch), y_of(value(epoch))) for epoch in run.history]
    best = epochs.index(run.model.metrics.best_epoch)
    return Panel(
        points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points),
        best=(round(points[best][0], 1), round(points[best][1], 1)),
        x_ticks=tuple(
            Tick(round(x_of(epoch), 1), str(epoch)) for epoch in sorted({epochs[0], epochs[-1]})
        ),
        y_ticks=tuple(Tick(round(y_of(number), 1), f"{number:g}") for number in axis),
    )
