"""From the space in params.yaml to runs: every value of it was tried on a run before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.errors import UsageError
from pipeline.params import Params, Section, View
from pipeline.runs import Run, all_runs, find, shares, stronger, vary
from pipeline.search.settings import (
    AUGMENTATION,
    FACTORS,
    TEACHER,
    Dimension,
    Value,
    label,
    problems_of,
    weights_of,
)

Values = Mapping[str, Value]
"""A setting: a value for every name, teachers by their label."""


class Space(Section):
    """What is searched. It travels as JSON.

    Attributes:
        default: the run of params.yaml whose settings are varied: the first teacher's student.
        dimensions: by the settings' names, in alphabetical order.
        teachers: what each label of ``teacher`` stands for: run names with weights.
    """

    default: Run
    dimensions: dict[str, Dimension]
    teachers: dict[str, dict[str, float]]

    def run(self, values: Values, name: str, seed: int) -> Run:
        """The run of a setting.

        Raises:
            ValueError: a value is refused.
        """
        run = self.default.model_copy(update={"name": name, "seed": seed})
        if TEACHER in values:
            teachers = shares(self.teachers[str(values[TEACHER])])
            run = run.model_copy(update={"teachers": teachers})
        return vary(run, {key: value for key, value in values.items() if key != TEACHER})

    def of_default(self) -> dict[str, Value]:
        """The default's own setting, as far as the space holds it."""
        run = self.default.model_dump()
        own: dict[str, Any] = {
            f"{section}.{name}": value
            for section in ("distillation", "training")
            for name, value in run[section].items()
        }
        own |= dict.fromkeys(FACTORS, 1)
        for said, weights in self.teachers.items():
            if shares(weights) == self.default.teachers:
                own.setdefault(TEACHER, said)
        return {
            key: own[key]
            for key, dimension in self.dimensions.items()
            if key in own and dimension.holds(own[key])
        }

    def is_default(self, values: Values) -> bool:
        """Whether a setting is the default's own."""
        return self.run(values, self.default.name, self.default.seed) == self.default

    def view(self, factor: float) -> View:
        """What students are shown with an augmentation that is so many times as strong."""
        view = self.default.view
        return view.model_copy(update={"augment": stronger(view.augment, factor)})

    def asked(self) -> Iterator[tuple[float, str]]:
        """Every pair of augmentation and teacher that a trial may want."""
        names = {name for weights in self.teachers.values() for name in weights}
        for name in sorted(names or set(self.default.teachers)):
            for factor in self.dimensions[AUGMENTATION].labels if self._augments else (1.0,):
                yield float(factor), name

    @property
    def _augments(self) -> bool:
        return AUGMENTATION in self.dimensions


def space_of(params: Params) -> Space:
    """The space of params.yaml.

    Raises:
        UsageError: a value would be refused in params.yaml, or a teacher is no run or is a student;
            a line each.
    """
    plain = params.search.model_copy(update={"settings": {}})
    params = params.model_copy(update={"search": plain})
    default = find(params, f"student-{params.teachers[0]}")
    teaching = {run.name for run in all_runs(params) if run.role != "student"}
    dimensions = dict(sorted(params.search.space.items()))
    teachers: dict[str, dict[str, float]] = {}
    problems: list[str] = []
    for one in dimensions[TEACHER].choice or () if TEACHER in dimensions else ():
        weights = weights_of(one)
        teachers[str(label(one))] = weights
        problems += [f"teacher: {said}" for said in problems_of(weights, teaching)]
    space = Space(default=default, dimensions=dimensions, teachers=teachers)
    for key, dimension in dimensions.items():
        for end in dimension.probes if key != TEACHER else ():
            try:
                space.run({key: label(end)}, "trial", params.seed)
            except (ValueError, TypeError) as error:
                said = " ".join(str(error).split())
                problems.append(f"{key}: {end!r} is refused: {said}")
    if params.seed in params.search.seeds:
        problems.append(
            f"seeds: {params.seed} is the seed of every trial, by which the best one was chosen; "
            "name others"
        )
    if problems:
        count = f"{len(problems)} error" + ("s" if len(problems) > 1 else "")
        raise UsageError("\n".join([f"{count} in search:", *(f"  {one}" for one in problems)]))
    return space
