"""From the space in params.yaml to runs: every value of it was tried on a run before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from pipeline.errors import UsageError
from pipeline.params import Params
from pipeline.runs import Run, all_runs, find, shares, vary
from pipeline.search.settings import TEACHER, Dimension, Value, label

Values = Mapping[str, Value]
"""A setting: a value for every name, teachers by their label."""


@dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
        default: the run of params.yaml whose settings are varied: the first teacher's student.
        dimensions: by the settings' names, in alphabetical order.
        teachers: what each label of ``teacher`` stands for: run names with weights.
    """

    default: Run
    dimensions: dict[str, Dimension]
    teachers: dict[str, dict[str, float]]

    @property
    def taught_by(self) -> tuple[str, ...]:
        """All runs that teach in some trial, or teach the default."""
        found = {name for weights in self.teachers.values() for name in weights}
        return tuple(sorted(found | set(self.default.teachers)))

    def run(self, values: Values, name: str, seed: int) -> Run:
        """The run of a setting.

        Raises:
            ValueError: a value is refused.
        """
        run = self.default.model_copy(update={"name": name, "seed": seed})
        if TEACHER in values:
            teachers = shares(self.teachers[str(values[TEACHER])])
            run = run.model_copy(update={"teachers": teachers})
        return vary(run, values)


def space_of(params: Params) -> Space:
    """The space of params.yaml.

    Raises:
        UsageError: a value would be refused in params.yaml, or a teacher is no run, or learns from
            a student itself; a line each.
    """
    default = find(params, f"student-{params.teachers[0]}")
    teaching = {run.name for run in all_runs(params) if run.role != "student"}
    dimensions = dict(sorted(params.search.space.items()))
    teachers: dict[str, dict[str, float]] = {}
    problems: list[str] = []
    for one in dimensions[TEACHER].choice or () if TEACHER in dimensions else ():
        weights = one if isinstance(one, dict) else {str(one): 1.0}
        teachers[str(label(one))] = weights
        if unknown := sorted(set(weights) - teaching):
            problems.append(
                f"search.space.teacher: {', '.join(unknown)} teaches nobody; "
                f"there are {', '.join(sorted(teaching))}"
            )
        if not weights or min(weights.values()) <= 0:
            problems.append(f"search.space.teacher: {label(one)!r}: weights are above zero")
    space = Space(default, dimensions, teachers)
    for key, dimension in dimensions.items():
        for end in dimension.ends if key != TEACHER else ():
            try:
                space.run({key: label(end)}, "trial", params.seed)
            except ValidationError as error:
                first = error.errors()[0]
                problems.append(f"search.space.{key}: {end!r} is refused: {first['msg']}")
            except (ValueError, TypeError) as error:
                problems.append(f"search.space.{key}: {end!r} is refused: {error}")
    problems += _together(dimensions)
    if problems:
        count = f"{len(problems)} error" + ("s" if len(problems) > 1 else "")
        raise UsageError("\n".join([f"{count} in search.space:", *(f"  {one}" for one in problems)]))
    return space


def _together(dimensions: Mapping[str, Dimension]) -> list[str]:
    """What is refused of two settings together, though each is good alone."""
    losses = dimensions.get("distillation.loss")
    mixup = dimensions.get("training.mixup")
    ends = [end for end in mixup.ends if not isinstance(end, dict)] if mixup else []
    if losses and "dkd" in (losses.choice or ()) and any(ends):
        return ["search.space.distillation.loss: dkd needs training.mixup 0 in every trial"]
    return []
