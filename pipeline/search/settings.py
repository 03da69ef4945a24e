"""The section ``search`` of params.yaml: a space, a budget, and how both are used."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

TEACHER: Final = "teacher"
WIDTH: Final = "width"
AUGMENTATION: Final = "augmentation"
FACTORS: Final = (WIDTH, AUGMENTATION)
DISTILLATION: Final = ("loss", "temperature", "weight", "standardize", "alpha", "beta")
TRAINING: Final = (
    *("lr", "weight_decay", "warmup", "label_smoothing", "ema", "clip_norm"),
    *("optimizer", "momentum", "batch_size"),
)
OF_A_RUN: Final = (
    *FACTORS,
    *(f"distillation.{name}" for name in DISTILLATION),
    *(f"training.{name}" for name in TRAINING),
)
"""What any student may vary."""
KEYS: Final = (TEACHER, *OF_A_RUN)
"""What a search may vary."""
FIXED_IN_PBT: Final = (WIDTH, "training.batch_size", "training.optimizer")
"""What a training cannot change on its way: shapes, steps, and what the optimizer remembers."""

Value = bool | int | float | str
Bounds = tuple[float, float]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Dimension(_Section):
    """One setting's values: exactly one of the four.

    Attributes:
        choice: these; for ``teacher`` the names of runs, or mixes ``{run: weight, ...}``.
        uniform: from the first to the second, evenly.
        log: the same, evenly in the logarithm.
        integer: whole numbers, both ends included.
    """

    choice: tuple[Value | dict[str, float], ...] | None = None
    uniform: Bounds | None = None
    log: Bounds | None = None
    integer: tuple[int, int] | None = None

    @field_validator("choice", mode="before")
    @classmethod
    def _numbers(cls, choice: Any) -> Any:
        # YAML takes 1e-3 for a text, since it has no point.
        return [*map(_number, choice)] if isinstance(choice, list | tuple) else choice

    @field_validator("choice")
    @classmethod
    def _some_choice(cls, choice: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        if choice is not None and not choice:
            raise ValueError("an empty choice; give at least one value")
        if choice is not None and len({label(one) for one in choice}) < len(choice):
            raise ValueError("one value is there twice")
        return choice

    @field_validator("uniform", "log", "integer")
    @classmethod
    def _some_range(cls, bounds: Bounds | None) -> Bounds | None:
        if bounds is not None and not bounds[0] < bounds[1]:
            raise ValueError("an empty range; the first number must be below the second")
        return bounds

    @model_validator(mode="after")
    def _one_kind(self) -> Dimension:
        kinds = (self.choice, self.uniform, self.log, self.integer)
        if len([kind for kind in kinds if kind is not None]) != 1:
            raise ValueError("give one of choice, uniform, log, integer")
        if self.log is not None and self.log[0] <= 0:
            raise ValueError("a logarithmic range begins above zero")
        return self

    @property
    def bounds(self) -> Bounds | None:
        """The ends of a range; None where there is a choice."""
        return self.uniform or self.log or self.integer

    @property
    def labels(self) -> tuple[Value, ...]:
        """The values of a choice as they are written down."""
        return tuple(label(one) for one in self.choice or ())

    def holds(self, value: Value) -> bool:
        """Whether it is one of the values."""
        if self.bounds is None:
            return value in self.labels
        return self.bounds[0] <= float(value) <= self.bounds[1]

    @property
    def probes(self) -> tuple[Value | dict[str, float], ...]:
        """Every value of a choice, or both ends of a range and a number between them."""
        if self.choice is not None:
            return self.choice
        assert self.bounds is not None
        low, high = self.bounds
        return (low, high) if self.integer else (low, low + (high - low) / math.e, high)


def _number(value: Any) -> Any:
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def label(value: Value | dict[str, float]) -> Value:
    """A value as it is written down: a mix of teachers as ``run:weight+run:weight``."""
    if isinstance(value, dict):
        return "+".join(f"{name}:{weight:g}" for name, weight in value.items())
    return value


def weights_of(teacher: Value | dict[str, float]) -> dict[str, float]:
    """A value of ``teacher`` as run names with weights: a name alone has all of it."""
    return teacher if isinstance(teacher, dict) else {str(teacher): 1.0}


def problems_of(weights: dict[str, float], teaching: Collection[str]) -> list[str]:
    """What is wrong with a mix of teachers.

    Args:
        weights: of each, by run name.
        teaching: the names of the runs that may teach.
    """
    problems = []
    if unknown := sorted(set(weights) - set(teaching)):
        there = ", ".join(sorted(teaching))
        problems.append(f"{', '.join(unknown)} teaches nobody; there are {there}")
    if not weights or min(weights.values()) <= 0:
        problems.append(f"{label(weights)!r}: weights are above zero")
    return problems


class Search(_Section):
    """How the student's settings are searched, and which of them students take.

    Attributes:
        used: ``best`` lets students take what search/best.yaml says, ``none`` what stands above.
        trials: how many settings are tried; 0 searches nothing.
        hours: no trial goes on for longer than this after the search began; null sets no limit.
        algorithm: ``tpe`` learns from the trials before, ``random`` does not.
        scheduler: ``asha`` ends trials that lag behind, ``pbt`` lets them go on with the weights
            and changed settings of better ones, ``none`` trains each to its end.
        objectives: what is sought: accuracy on validation, and with it a short latency.
        seed: of the algorithm. Each trial trains with the ``seed`` of params.yaml.
        seeds: the best setting and the default are trained again with each of them.
        keep: checkpoints in search/zoo at most, the most accurate ones.
        grace: epochs that ``asha`` gives each trial, or ``pbt`` between two changes.
        reduction: of so many trials ``asha`` lets one go on, each time.
        epoch_seconds: a trial that takes longer for an epoch is ended.
        settings: what the matrix's students take in place of what stands above; ``train`` puts here
            what it reads in search/best.yaml.
        space: settings by their names, see :data:`KEYS`.
    """

    used: Literal["none", "best"] = "none"
    trials: Annotated[int, Field(ge=0)] = 0
    hours: Annotated[float, Field(gt=0)] | None = None
    algorithm: Literal["tpe", "random"] = "tpe"
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    objectives: tuple[Literal["accuracy", "latency"], ...] = ("accuracy",)
    seed: Seed = 0
    seeds: Annotated[tuple[Seed, ...], Field(min_length=2)] = (1, 2, 3)
    keep: Annotated[int, Field(ge=0)] = 20
    grace: Annotated[int, Field(ge=1)] = 2
    reduction: Annotated[float, Field(gt=1)] = 3
    epoch_seconds: Annotated[float, Field(gt=0)] = 900
    settings: dict[str, Value] = {}
    space: dict[str, Dimension] = {}

    @field_validator("space")
    @classmethod
    def _known_keys(cls, space: dict[str, Dimension]) -> dict[str, Dimension]:
        if unknown := sorted(set(space) - set(KEYS)):
            raise ValueError(f"unknown key {', '.join(unknown)}; there are {', '.join(KEYS)}")
        for key in (TEACHER, AUGMENTATION):
            if key in space and space[key].choice is None:
                # For each of its values teachers are asked once, before anything is tried.
                raise ValueError(f"{key} is a choice, not a range")
        for key, dimension in space.items():
            if key != TEACHER and any(isinstance(one, dict) for one in dimension.choice or ()):
                raise ValueError(f"{key}: only teacher has mixes")
        return space

    @field_validator("settings")
    @classmethod
    def _known_settings(cls, settings: dict[str, Value]) -> dict[str, Value]:
        if unknown := sorted(set(settings) - set(OF_A_RUN)):
            raise ValueError(f"unknown key {', '.join(unknown)}; there are {', '.join(OF_A_RUN)}")
        return settings

    @field_validator("objectives")
    @classmethod
    def _accuracy_first(cls, objectives: tuple[str, ...]) -> tuple[str, ...]:
        if objectives not in {("accuracy",), ("accuracy", "latency")}:
            raise ValueError("[accuracy], or [accuracy, latency]")
        return objectives

    @field_validator("seeds")
    @classmethod
    def _no_seed_twice(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) < len(seeds):
            raise ValueError("one seed is there twice")
        return seeds

    @model_validator(mode="after")
    def _goes_together(self) -> Search:
        if self.trials and not self.space:
            raise ValueError("space: it is empty; name the settings to vary, or set trials to 0")
        if self.scheduler == "pbt":
            if self.algorithm != "random" or len(self.objectives) > 1:
                raise ValueError(
                    "scheduler: pbt changes settings itself, by accuracy alone: set algorithm to "
                    "random and objectives to [accuracy]"
                )
            if self.trials and not set(self.space) - set(FIXED_IN_PBT):
                raise ValueError(
                    f"scheduler: pbt cannot change {', '.join(FIXED_IN_PBT)} on the way; name "
                    "other settings in space too"
                )
        return self
