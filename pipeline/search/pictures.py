"""The geometry of the search's pictures; a template draws them as SVG.

Coordinates are rounded, so that the same numbers give the same bytes on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import optuna

from pipeline.reporting.figures import BOTTOM, LEFT, RIGHT, TOP, Tick, nice
from pipeline.reporting.templating import short
from pipeline.search.asking import studied
from pipeline.search.best import front
from pipeline.search.journal import ACCURACY, LATENCY, Tried
from pipeline.search.settings import Dimension, Search, Value

WIDE: Final = 960
_SIDE: Final = 60
_UPPER, _LOWER = 24, 250
_FEW: Final = 10


@dataclass(frozen=True)
class Axis:
    """One setting of the parallel coordinates."""

    name: str
    x: float
    ticks: tuple[Tick, ...]


@dataclass(frozen=True)
class Line:
    """One trial: its points, and how good it is among all, in percent."""

    title: str
    points: str
    share: int


@dataclass(frozen=True)
class Parallel:
    """A line for every trial through its settings to its accuracy."""

    axes: tuple[Axis, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Bar:
    """How much a setting decides, of all that settings do, in percent."""

    name: str
    share: float


@dataclass(frozen=True)
class Dot:
    """A trial in a plot."""

    title: str
    x: float
    y: float


@dataclass(frozen=True)
class Plot:
    """A line, and points about it."""

    x_label: str
    line: str
    dots: tuple[Dot, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def parallel(space: Mapping[str, Dimension], trials: Sequence[Tried]) -> Parallel:
    """Parallel coordinates of the trials that came to an accuracy."""
    order = sorted(trials, key=lambda trial: trial.accuracy)
    scale = nice(order[0].accuracy, order[-1].accuracy, 6, most=100.0)
    step = (WIDE - 2 * _SIDE) / len(space)
    places = [round(_SIDE + step * number, 1) for number in range(len(space) + 1)]
    axes = [
        Axis(key, x, tuple(Tick(_height(_share(one, end)), label) for end, label in _ends(one)))
        for (key, one), x in zip(space.items(), places, strict=False)
    ]
    of_scale = [(value - scale[0]) / (scale[-1] - scale[0]) for value in scale]
    ticks = [
        Tick(_height(share), f"{value:g}") for share, value in zip(of_scale, scale, strict=True)
    ]
    lines = []
    for rank, trial in enumerate(order):
        shares = [_share(one, trial.best.values[key]) for key, one in space.items()]
        shares.append((trial.accuracy - scale[0]) / (scale[-1] - scale[0]))
        points = zip(places, map(_height, shares), strict=True)
        lines.append(
            Line(
                title=f"trial {trial.number}: {trial.accuracy:.2f} %",
                points=" ".join(f"{x},{y}" for x, y in points),
                share=round(100 * (rank + 1) / len(order)),
            )
        )
    return Parallel((*axes, Axis("accuracy, %", places[-1], tuple(ticks))), tuple(lines))


def importance(search: Search, trials: Sequence[Tried]) -> tuple[Bar, ...]:
    """How much of the differences between trials each setting explains, by PED-ANOVA.

    Empty where there are too few trials to tell.
    """
    if len(trials) < _FEW:
        return ()
    only_accuracy = search.model_copy(update={"objectives": ("accuracy",)})
    study = studied(only_accuracy, search.space, trials)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    total = sum(found.values())
    if not math.isfinite(total) or total <= 0:
        return ()
    return tuple(Bar(name, round(100 * value / total, 1)) for name, value in found.items())


def best_so_far(trials: Sequence[Tried]) -> Plot:
    """The best validation accuracy against the images seen by all trials, failed ones included."""
    epochs = sorted(
        ((epoch, trial) for trial in trials for epoch in trial.epochs.values()),
        key=lambda pair: pair[0].at,
    )
    points: list[tuple[float, float, str]] = []
    steps: list[tuple[float, float]] = []
    seen, best = 0.0, 0.0
    for epoch, trial in epochs:
        seen += epoch.metrics["images"]
        title = f"trial {trial.number}, epoch {epoch.epoch}: {epoch.metrics[ACCURACY]:.2f} %"
        points.append((seen, epoch.metrics[ACCURACY], title))
        if trial.judged and epoch.metrics[ACCURACY] > best:
            last = [(seen, best)] if steps else []
            best = epoch.metrics[ACCURACY]
            steps += [*last, (seen, best)]
    steps.append((seen, best))
    return _plot(points, steps, (0.0, seen), "images seen by all trials")


def pareto(trials: Sequence[Tried]) -> Plot:
    """Accuracy against latency, with a line through the trials that none beats in both."""
    points = [
        (one.best.metrics[LATENCY], one.accuracy, f"trial {one.number}: {one.accuracy:.2f} %")
        for one in trials
    ]
    steps: list[tuple[float, float]] = []
    for one in front(trials):
        x, y = one.best.metrics[LATENCY], one.accuracy
        steps += [(x, steps[-1][1]), (x, y)] if steps else [(x, y)]
    ends = (min(x for x, _, _ in points), max(x for x, _, _ in points))
    return _plot(points, steps, ends, "ms for one image on one CPU thread")


def _plot(
    points: Sequence[tuple[float, float, str]],
    line: Sequence[tuple[float, float]],
    ends: tuple[float, float],
    x_label: str,
) -> Plot:
    across = nice(*ends, 6)
    up = nice(min(y for _, y, _ in points), max(y for _, y, _ in points), 6, most=100.0)

    def x_of(value: float) -> float:
        return round(LEFT + (value - across[0]) / (across[-1] - across[0]) * (RIGHT - LEFT), 1)

    def y_of(value: float) -> float:
        return round(BOTTOM - (value - up[0]) / (up[-1] - up[0]) * (BOTTOM - TOP), 1)

    return Plot(
        x_label=x_label,
        line=" ".join(f"{x_of(x)},{y_of(y)}" for x, y in line),
        dots=tuple(Dot(title, x_of(x), y_of(y)) for x, y, title in points),
        x_ticks=tuple(Tick(x_of(value), short(value)) for value in across),
        y_ticks=tuple(Tick(y_of(value), f"{value:g}") for value in up),
    )


def _height(share: float) -> float:
    return round(_LOWER - share * (_LOWER - _UPPER), 1)


def _share(dimension: Dimension, value: Value) -> float:
    """How far along its axis a value lies, from 0 to 1."""
    if dimension.choice is not None:
        return (dimension.labels.index(value) + 0.5) / len(dimension.labels)
    assert dimension.bounds is not None
    low, high, at = (float(one) for one in (*dimension.bounds, value))
    if dimension.log is not None:
        low, high, at = (math.log(one) for one in (low, high, at))
    return (at - low) / (high - low)


def _ends(dimension: Dimension) -> list[tuple[Value, str]]:
    values = dimension.labels or dimension.bounds or ()
    return [(value, f"{value:g}" if isinstance(value, float) else str(value)) for value in values]
