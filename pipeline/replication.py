"""What is kept of students trained with several seeds: accuracies, differences, intervals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from pipeline.evaluation import JudgedData
from pipeline.runs import Role
from pipeline.statistics import holm, over_seeds, wilson

ALONE: Final = "student-alone"
ASSISTED: Final = "-assisted"
IN_8_BITS: Final = "-int8"
"""Ends the name of a run whose models were judged in 8 bits."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Right(_Record):
    """One trained model on one set of images.

    Attributes:
        run: the run's name.
        role: ``teacher``, ``assistant`` or ``student``.
        model: what the network is.
        teachers: the runs it learnt from.
        seed: of its training.
        parameters: weights that training changes.
        validation_accuracy: that it was chosen by, in percent.
        data: which images.
        right: of every image, in an order that is the same for all models.
    """

    run: str
    role: Role
    model: str
    teachers: tuple[str, ...]
    seed: int
    parameters: int
    validation_accuracy: float
    data: JudgedData
    right: tuple[bool, ...]


class OfRun(_Record):
    """One run over its seeds; accuracies in percent.

    Attributes:
        seeds: of its trainings, in the order of the tuples below.
        validation_accuracy: one for each seed, as is ``correct``.
        correct: images read right.
        accuracy: the mean over the seeds, with its 95 % interval from ``low`` to ``high``: for
            other seeds and images (:func:`pipeline.statistics.over_seeds`), or, of one seed, for
            other images alone (Wilson).
    """

    run: str
    role: Role
    model: str
    teachers: tuple[str, ...]
    parameters: int
    seeds: tuple[int, ...]
    validation_accuracy: tuple[float, ...]
    correct: tuple[int, ...]
    accuracy: float
    low: float
    high: float


class Difference(_Record):
    """Two students with the same seeds, on the same images: first minus second, in points.

    Attributes:
        low: of the paired 95 % interval, as is ``high``; not corrected for several comparisons.
        p: two-sided, that there is none; corrected by Holm's steps for all differences of the set,
            those of 8 bits for themselves.
    """

    first: str
    second: str
    difference: float
    low: float
    high: float
    p: float


class Judged(_Record):
    """All runs on one set of images."""

    data: JudgedData
    images: int
    runs: tuple[OfRun, ...]
    differences: tuple[Difference, ...]


class Replication(_Record):
    """What is kept of it.

    Attributes:
        title: what people call it.
        code_version: a SHA-256 over the code that decides a model's weights.
        data_version: of the shards that all models were trained on.
        training_images: in them.
        epochs: of the students.
        seeds: of the students.
        judged: the test split first, then every other set of images.
    """

    title: str
    code_version: str
    data_version: str
    training_images: int
    epochs: int
    seeds: tuple[int, ...]
    judged: tuple[Judged, ...]


def judged(found: Sequence[Right]) -> Judged:
    """Sums up what several runs, some of them with several seeds, made of one set of images.

    Raises:
        ValueError: they are not of the same images.
    """
    first = found[0]
    by_run: dict[str, list[Right]] = {}
    for one in found:
        if (one.data, len(one.right)) != (first.data, len(first.right)):
            raise ValueError(f"{one.run} and {first.run} were judged on different images")
        by_run.setdefault(one.run, []).append(one)
    return Judged(
        data=first.data,
        images=len(first.right),
        runs=tuple(_of_run(trained) for trained in by_run.values()),
        differences=_differences(by_run),
    )


def _of_run(trained: Sequence[Right]) -> OfRun:
    one, images = trained[0], len(trained[0].right)
    correct = tuple(sum(model.right) for model in trained)
    interval = (
        over_seeds([model.right for model in trained]).interval
        if len(trained) > 1
        else wilson(correct[0], images)
    )
    return OfRun(
        run=one.run,
        role=one.role,
        model=one.model,
        teachers=one.teachers,
        parameters=one.parameters,
        seeds=tuple(model.seed for model in trained),
        validation_accuracy=tuple(model.validation_accuracy for model in trained),
        correct=correct,
        accuracy=interval.value,
        low=interval.low,
        high=interval.high,
    )


def _differences(by_run: dict[str, list[Right]]) -> tuple[Difference, ...]:
    students = [run for run, trained in by_run.items() if trained[0].role == "student"]
    whole = [run for run in students if not run.endswith(IN_8_BITS)]
    direct = [run for run in whole if run != ALONE and not run.endswith(ASSISTED)]
    pairs = [(run, ALONE) for run in whole if run != ALONE and ALONE in whole]
    pairs += [(run + ASSISTED, run) for run in direct if run + ASSISTED in whole]
    pairs += [*combinations(direct, 2)]
    smaller = [(run + IN_8_BITS, run) for run in whole if run + IN_8_BITS in students]

    def table(run: str) -> npt.NDArray[np.int64]:
        ordered = sorted(by_run[run], key=lambda model: model.seed)
        return np.array([model.right for model in ordered], np.int64)

    def told(pairs: Sequence[tuple[str, str]]) -> list[Difference]:
        means = [over_seeds(table(first) - table(second)) for first, second in pairs]
        # Where not one answer differs nothing speaks for a difference.
        p_values = holm([1.0 if mean.p is None else mean.p for mean in means])
        return [
            Difference(
                first=first,
                second=second,
                difference=mean.interval.value,
                low=mean.interval.low,
                high=mean.interval.high,
                p=p,
            )
            for (first, second), mean, p in zip(pairs, means, p_values, strict=True)
        ]

    return (*told(pairs), *told(smaller))
