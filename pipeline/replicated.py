"""What is kept of students trained with several seeds: accuracies, differences, intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from pipeline.evaluation import JudgedData
from pipeline.runs import Role
from pipeline.statistics import SIGNIFICANT, holm, over_seeds, wilson

Question = Literal["alone", "assistant", "teachers", "settings", "keeps_up", "bits"]
"""Why two runs are compared: a taught student with the student alone, also with one that has a
setting of its own, an assisted one with the one taught directly, students of two teachers, a
changed student with the one that has all other settings, a student with its own teacher, one in 8
bits with itself."""
_TOGETHER: Final[tuple[tuple[Question, ...], ...]] = (
    ("alone", "assistant", "teachers", "settings"),
    ("keeps_up",),
    ("bits",),
)
"""Whose p-values are corrected for each other."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Trained(_Record):
    """A run, and what made its models.

    Attributes:
        run: the run's name.
        role: ``teacher``, ``assistant`` or ``student``.
        model: what the network is.
        teachers: the runs it learnt from.
        in_8_bits: whether its models were asked in 8 bits, as they are exported.
        changed_from: the student that it differs from in one setting; null where it is as in
            params.yaml.
        parameters: weights that training changes.
        settings: of its training, views and distillation; the seed is none of them.
        code_version: a SHA-256 over the code that decided its weights.
    """

    run: str
    role: Role
    model: str
    teachers: tuple[str, ...]
    in_8_bits: bool = False
    changed_from: str | None = None
    parameters: int
    settings: dict[str, Any]
    code_version: str

    @property
    def name(self) -> str:
        """What tells it from others."""
        return f"{self.run} in 8 bits" if self.in_8_bits else self.run


class Right(_Trained):
    """One trained model on one set of images.

    Attributes:
        seed: of its training.
        validation_accuracy: that it was chosen by, in percent.
        data: which images.
        right: of every image, in an order that is the same for all models.
    """

    seed: int
    validation_accuracy: float
    data: JudgedData
    right: tuple[bool, ...]


class OfRun(_Trained):
    """One run over its seeds; accuracies in percent.

    Attributes:
        seeds: of its trainings, in the order of the tuples below.
        validation_accuracy: one for each seed, as is ``correct``.
        correct: images read right.
        accuracy: the mean over the seeds, with its 95 % interval from ``low`` to ``high``: for
            other seeds and images (:func:`pipeline.statistics.over_seeds`), or, of one seed or
            where no answer varies, for other images alone (Wilson).
    """

    seeds: tuple[int, ...]
    validation_accuracy: tuple[float, ...]
    correct: tuple[int, ...]
    accuracy: float
    low: float
    high: float


class Difference(_Record):
    """Two runs on the same images, students with the same seeds: first minus second, in points.

    Attributes:
        question: why they are compared.
        low: of the paired 95 % interval, as is ``high``; not corrected for several comparisons.
        p: two-sided, that there is none; corrected by Holm's steps for the questions ``alone``,
            ``assistant``, ``teachers`` and ``settings`` together, for each other question by
            itself.
    """

    question: Question
    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float

    @property
    def significant(self) -> bool:
        """Whether the corrected p refuses, at 5 %, that there is none."""
        return self.p < SIGNIFICANT


class Judged(_Record):
    """All runs on one set of images."""

    data: JudgedData
    images: int
    runs: tuple[OfRun, ...]
    differences: tuple[Difference, ...]


class Replicated(_Record):
    """All of it.

    Attributes:
        title: what people call it.
        source: of the shards that all models were trained on: ``generated`` or ``cvsi``.
        version: of these shards, a SHA-256.
        training_images: in them.
        seeds: of the students.
        judged: the test split first, then every other set of images.
    """

    title: str
    source: str
    version: str
    training_images: int
    seeds: tuple[int, ...]
    judged: tuple[Judged, ...]


def judged(found: Sequence[Right]) -> Judged:
    """Sums up what several runs, some of them with several seeds, made of one set of images.

    Raises:
        ValueError: they are not of the same images, or a seed of a run comes twice.
    """
    first = found[0]
    by_name: dict[str, list[Right]] = {}
    for one in found:
        if (one.data, len(one.right)) != (first.data, len(first.right)):
            raise ValueError(f"{one.name} and {first.name} were judged on different images")
        trained = by_name.setdefault(one.name, [])
        if one.seed in (other.seed for other in trained):
            raise ValueError(f"{one.name} comes twice with the seed {one.seed}")
        trained.append(one)
    return Judged(
        data=first.data,
        images=len(first.right),
        runs=tuple(_of_run(trained) for trained in by_name.values()),
        differences=_differences(by_name),
    )


def _of_run(trained: Sequence[Right]) -> OfRun:
    one, images = trained[0], len(trained[0].right)
    correct = tuple(sum(model.right) for model in trained)
    interval = wilson(correct[0], images)
    if any(model.right != one.right for model in trained):
        interval = over_seeds([model.right for model in trained]).interval
    return OfRun(
        **one.model_dump(include=set(_Trained.model_fields)),
        seeds=tuple(model.seed for model in trained),
        validation_accuracy=tuple(model.validation_accuracy for model in trained),
        correct=correct,
        accuracy=interval.value,
        low=max(0.0, interval.low),
        high=min(100.0, interval.high),
    )


def _differences(by_name: Mapping[str, Sequence[Right]]) -> tuple[Difference, ...]:
    def table(name: str) -> npt.NDArray[np.int64]:
        ordered = sorted(by_name[name], key=lambda model: model.seed)
        return np.array([model.right for model in ordered], np.int64)

    pairs = _pairs([trained[0] for trained in by_name.values()])
    found: list[Difference] = []
    for questions in _TOGETHER:
        asked = [pair for pair in pairs if pair[0] in questions]
        # A teacher has one seed, and stands beside every seed of its student.
        means = [over_seeds(table(first) - table(second)) for _, first, second in asked]
        p_values = holm([mean.p for mean in means])
        found += [
            Difference(
                question=question,
                first=first,
                second=second,
                difference=mean.interval.value,
                low=mean.interval.low,
                high=mean.interval.high,
                p=p,
            )
            for (question, first, second), mean, p in zip(asked, means, p_values, strict=True)
        ]
    return tuple(found)


def _pairs(runs: Sequence[Right]) -> list[tuple[Question, str, str]]:
    """Which runs are compared: students that differ in one thing, or with what they came of."""
    by_run = {run.run: run for run in runs if not run.in_8_bits}
    students = [run for run in by_run.values() if run.role == "student"]
    plain = [run for run in students if run.changed_from is None]
    distilled = [run for run in students if run.teachers]
    alone = [run for run in students if not run.teachers]

    def roles(run: Right) -> set[str]:
        return {by_run[name].role if name in by_run else "" for name in run.teachers}

    def alike(one: Right, other: Right, *, taught: bool = True) -> bool:
        apart = set() if taught else {"distillation", "targets"}
        first, second = (
            {key: value for key, value in run.settings.items() if key not in apart}
            for run in (one, other)
        )
        return one.model == other.model and first == second

    def fair(run: Right, one: Right) -> bool:
        """Whether they differ in teaching, or besides in a setting of the lone one's own."""
        if (run.changed_from is None) == (one.changed_from is None):
            return alike(run, one, taught=False)
        base = by_run.get(one.changed_from or "")
        return base is not None and run.model == one.model and alike(run, base, taught=False)

    direct = [run for run in plain if roles(run) == {"teacher"}]
    assisted = [run for run in plain if roles(run) == {"assistant"} and len(run.teachers) == 1]
    pairs: list[tuple[Question, str, str]] = [
        ("alone", run.run, one.run) for run in distilled for one in alone if fair(run, one)
    ]
    pairs += [
        ("assistant", run.run, one.run)
        for run in assisted
        for one in direct
        if alike(run, one) and by_run[run.teachers[0]].teachers == one.teachers
    ]
    pairs += [
        ("teachers", run.run, other.run)
        for run, other in combinations(direct, 2)
        if run.teachers != other.teachers and alike(run, other)
    ]
    pairs += [
        ("settings", run.run, run.changed_from) for run in students if run.changed_from is not None
    ]
    pairs += [("keeps_up", run.run, name) for run in direct for name in run.teachers]
    pairs += [("bits", run.name, run.run) for run in runs if run.in_8_bits and run.run in by_run]
    return pairs
