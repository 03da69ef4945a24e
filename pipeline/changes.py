"""A student once more with one setting changed: what an ablation is made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import yaml
from pydantic import ValidationError

from pipeline.errors import UsageError
from pipeline.params import Params, parse
from pipeline.runs import Run, all_runs, find, shares, vary
from pipeline.search.settings import (
    AUGMENTATION,
    KEYS,
    TEACHER,
    WIDTH,
    Dimension,
    Value,
    label,
    problems_of,
    weights_of,
)

CHANGEABLE: Final = (*(key for key in KEYS if key != AUGMENTATION), "training.epochs")
"""What one student may have otherwise, by the names of a search; views are those of all runs."""
_OF_TAUGHT: Final = (TEACHER, "distillation.")
"""How the names of those begin that a student without teachers does without."""

_WIDTHS: Final = (0.01, 100.0)


@dataclass(frozen=True)
class Change:
    """One setting and its other value.

    Attributes:
        key: one of :data:`CHANGEABLE`.
        value: of ``teacher`` the name of a run, or a mix of several with weights.
    """

    key: str
    value: Value | dict[str, float]

    def __str__(self) -> str:
        return f"--change {self.key}={label(self.value)}"


@dataclass(frozen=True)
class Changed:
    """A student with a setting changed, and the name of the one that has all others."""

    run: Run
    base: str


def parse_change(text: str) -> Change:
    """Reads ``KEY=VALUE``, the value in YAML.

    Raises:
        UsageError: it is none, or the key or the value cannot be changed so.
    """
    key, equals, said = text.partition("=")
    if not equals:
        raise UsageError(f"--change {text}: give KEY=VALUE, e.g. training.ema=0")
    if key not in CHANGEABLE:
        raise UsageError(
            f"--change {text}: that cannot be changed for one student; choose one of "
            f"{', '.join(CHANGEABLE)}"
        )
    try:
        choice = Dimension.model_validate({"choice": [yaml.safe_load(said)]}).choice
    except (yaml.YAMLError, ValidationError):
        raise UsageError(
            f"--change {text}: {said!r} is no value; give a number, a word, or for teacher a mix "
            "like '{teacher-ocr: 1, teacher-wide: 1}'"
        ) from None
    assert choice is not None
    change = Change(key, choice[0])
    if key == WIDTH:
        low, high = _WIDTHS
        number = isinstance(change.value, int | float) and not isinstance(change.value, bool)
        if not (number and low <= float(str(change.value)) <= high):
            raise UsageError(f"{change}: give a number from {low:g} to {high:g}")
    return change


def with_changes(
    params: Params, students: Sequence[Run], changes: Sequence[Change]
) -> tuple[Params, list[Changed]]:
    """Adds every student once more for every change; one of teaching is for those with teachers.

    Returns:
        Parameters that have the changed ones among their further runs, and these.

    Raises:
        UsageError: a change is refused, makes a student that is there already, or is about
            teachers and finds no student that has one.
    """
    there = {_essence(run): run.name for run in students}
    changed: list[Changed] = []
    for change in changes:
        changeable = [
            run
            for run in students
            if run.distillation is not None or not change.key.startswith(_OF_TAUGHT)
        ]
        if not changeable:
            names = ", ".join(run.name for run in students)
            raise UsageError(f"{change}: {names}: taught by nobody; name a student with a teacher")
        for run in changeable:
            varied = _vary(params, run, change)
            if same := there.get(_essence(varied)):
                raise UsageError(
                    f"{change}: {run.name} so is what {same} is already; leave it out, or name the "
                    "students that it is for"
                )
            there[_essence(varied)] = varied.name
            params = _with_run(params, varied, change)
            changed.append(Changed(find(params, varied.name), run.name))
    return params, changed


def _vary(params: Params, run: Run, change: Change) -> Run:
    own = "" if change.key == TEACHER else f"{change.key.rpartition('.')[2]}-"
    slug = re.sub("[^a-z0-9_]+", "-", f"{own}{label(change.value)}".lower()).strip("-")
    name = f"{run.name}-{slug}"
    if change.key == TEACHER:
        weights = weights_of(change.value)
        teaching = {one.name for one in all_runs(params) if one.role != "student"}
        if problems := problems_of(weights, teaching):
            raise UsageError(f"{change}: {'; '.join(problems)}")
        return run.model_copy(update={"name": name, "teachers": shares(weights)})
    try:
        varied = vary(run, {change.key: change.value})
    except ValidationError as error:
        said = "; ".join(one["msg"] for one in error.errors())
        raise UsageError(f"{change}: {said}") from None
    except ValueError as error:
        raise UsageError(f"{change}: {error}") from None
    return varied.model_copy(update={"name": name})


def _with_run(params: Params, run: Run, change: Change) -> Params:
    content = params.model_dump()
    if run.name in content["runs"] or run.name in content["models"]:
        raise UsageError(f"{change}: params.yaml has a {run.name} already; rename that")
    content["models"][run.name] = {
        "network": run.network.model_dump(),
        "training": run.training.model_dump(),
    }
    content["runs"][run.name] = {
        "model": run.name,
        "teachers": run.teachers,
        "distillation": run.distillation,
    }
    return parse(content, str(change))


def _essence(run: Run) -> str:
    """All that decides a run's weights, but for what it is called."""
    return run.model_copy(update={"name": "", "model": ""}).model_dump_json()
