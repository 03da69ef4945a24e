"""How accuracy falls as images get worse: models asked about the same words, step by step."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from pipeline.data.loader import Batch
from pipeline.data.shards import Index, read_index, read_shard
from pipeline.data.view import Grey, decode, fit
from pipeline.data.worsen import CHANGES
from pipeline.errors import DataError, UsageError
from pipeline.inference import BATCH, Ask, answer, asker, check_data, view_of
from pipeline.models.folder import load_model
from pipeline.params import Params, View
from pipeline.progress import Progress
from pipeline.runs import Role, find
from pipeline.statistics import wilson
from pipeline.train.device import default_device

log = logging.getLogger(__name__)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measured(_Record):
    """A model's answers on all words at one strength of one change.

    Attributes:
        strength: in the unit of the change; null where the words are as they are.
        correct: words read right.
        accuracy: in percent, with its Wilson 95 % interval from ``low`` to ``high``.
    """

    strength: float | None
    correct: int
    accuracy: float
    low: float
    high: float


class Falls(_Record):
    """One run: for every change what was measured, from unchanged words to the worst."""

    run: str
    role: Role
    changes: dict[str, tuple[Measured, ...]]


class Robustness(_Record):
    """What is kept of a measurement.

    Attributes:
        source: ``generated`` or ``cvsi``.
        version: the data's version, a SHA-256.
        words: how many words of the test split every run was asked about.
    """

    source: str
    version: str
    words: int
    runs: tuple[Falls, ...]

    def rows(self) -> list[tuple[str, float | None, tuple[Measured, ...]]]:
        """A change, a strength, and what was measured of every run; unchanged words once."""
        names = tuple(self.runs[0].changes)
        unchanged = tuple(found.changes[names[0]][0] for found in self.runs)
        worse = [
            (name, steps[0].strength, steps)
            for name in names
            for steps in zip(*(found.changes[name][1:] for found in self.runs), strict=True)
        ]
        return [("none", None, unchanged), *worse]

    def table(self) -> list[list[str]]:
        """Accuracies in percent: a row for every strength, a column for every run."""
        return [
            ["change", "strength", *(found.run for found in self.runs)],
            *(
                [
                    name,
                    "" if strength is None else f"{strength:g}",
                    *(f"{step.accuracy:.2f}" for step in steps),
                ]
                for name, strength, steps in self.rows()
            ),
        ]


@dataclass(frozen=True)
class _Word:
    key: str
    label: int
    grey: Grey


def default_runs(params: Params) -> list[str]:
    """The chain of the first teacher, and the student that had none."""
    first = params.teachers[0]
    return [*(f"{role}-{first}" for role in ("teacher", "assistant", "student")), "student-alone"]


def measure(
    params: Params, names: Sequence[str], words: int, *, models: Path, shards: Path
) -> Robustness:
    """Asks runs about words of the test split, as they are and made worse.

    Args:
        params: holds the runs.
        names: the runs; one that is named twice is asked once.
        words: so many, evenly spread over the split; all where it holds fewer.
        models: holds the model folders.
        shards: holds the shards and their index.

    Raises:
        UsageError: params.yaml asks for no such run, or no words are wanted.
        DataError: a model or a shard is missing or damaged, or a model was trained on other data
            than the shards hold.
    """
    if words < 1:
        raise UsageError(f"{words} words tell nothing: ask for one at least")
    runs = [find(params, name) for name in dict.fromkeys(names)]
    index = read_index(shards)
    loaded = [load_model(models / run.name) for run in runs]
    # Before the first is asked: a refusal after a minute would cost the minute.
    for run, (_, info) in zip(runs, loaded, strict=True):
        check_data(info, index, models / run.name, shards)
    chosen = _spread(shards, index, words)
    return Robustness(
        source=index.source,
        version=index.version,
        words=len(chosen),
        runs=tuple(
            Falls(
                run=run.name,
                role=run.role,
                changes=_falls(run.name, asker(model, default_device()), view_of(info), chosen),
            )
            for run, (model, info) in zip(runs, loaded, strict=True)
        ),
    )


def _spread(shards: Path, index: Index, words: int) -> list[_Word]:
    """So many words of the test split, evenly spread over it."""
    total = index.images("test")
    if not total:
        raise DataError(f"{shards} has no test images; run python -m pipeline shards")
    count = min(words, total)
    places = {number * total // count for number in range(count)}
    samples = (
        (shard, sample) for shard in index.of("test") for sample in read_shard(shards, shard)
    )
    return [
        _Word(
            key=sample.key,
            label=index.scripts.index(sample.script),
            grey=decode(sample.jpeg, f"{sample.key} in {shards / shard.name}"),
        )
        for place, (shard, sample) in enumerate(samples)
        if place in places
    ]


def _falls(
    run: str, ask: Ask, view: View, words: Sequence[_Word]
) -> dict[str, tuple[Measured, ...]]:
    progress, done = Progress(f"robustness {run}", "images"), 0
    total = len(words) * (1 + sum(len(change.strengths) for change in CHANGES))

    def at(strength: float | None, greys: Iterable[Grey]) -> Measured:
        nonlocal done
        before = done
        batches = _batches(words, greys, view)
        answers = answer(ask, batches, lambda more: progress(before + more, total))
        done += len(words)
        correct = int(answers.right.sum())
        interval = wilson(correct, len(words))
        return Measured(
            strength=strength,
            correct=correct,
            accuracy=interval.value,
            low=interval.low,
            high=interval.high,
        )

    # Asked once, though every change begins with it.
    unchanged = at(None, (word.grey for word in words))
    log.info("%s: %.2f %% of %d words as they are", run, unchanged.accuracy, len(words))
    return {
        change.name: (
            unchanged,
            *(
                at(strength, (change.apply(word.grey, strength, word.key) for word in words))
                for strength in change.strengths
            ),
        )
        for change in CHANGES
    }


def _batches(words: Sequence[_Word], greys: Iterable[Grey], view: View) -> Iterator[Batch]:
    views = (fit(grey, view) for grey in greys)
    for start in range(0, len(words), BATCH):
        part = words[start : start + BATCH]
        yield Batch(
            torch.from_numpy(np.stack(list(islice(views, len(part))))[:, None]),
            torch.tensor([word.label for word in part]),
            [word.key for word in part],
            {},
        )
