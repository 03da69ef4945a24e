"""What came of teaching a student, whoever taught it, and our own way of doing so."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.data.shards import read_index
from pipeline.inference import answer, asker, load_as_they_are
from pipeline.models.build import ScriptClassifier, build
from pipeline.scripts import Split
from pipeline.train.device import default_device
from pipeline.train.job import Job
from pipeline.train.local import train_here

JUDGED: Final[tuple[Split, ...]] = ("validation", "test")


@dataclass(frozen=True)
class Taught:
    """A student that was taught.

    Attributes:
        rates: images a second of each epoch, with looking at the validation images.
        seconds: of all epochs, with looking at the validation images and keeping the best weights.
        right: for each of :data:`JUDGED`, whether each of its images is read right.
    """

    rates: list[float]
    seconds: float
    right: dict[Split, list[bool]]


def by_us(job: Job, folder: Path) -> Taught:
    """Trains a student by this project's loop, with its checkpoints in ``folder``."""
    trained = train_here(job, folder)
    index = read_index(job.shards)
    model = build(job.run.network, len(index.scripts), job.run.view, pretrained=False)
    model.load_state_dict(trained.weights)
    # A loop that asks for the next epoch's views before validation has them when its steps begin.
    rates = [row.images / row.seconds for row in trained.history]
    return Taught(rates, trained.seconds, judge(model, job))


def judge(model: ScriptClassifier, job: Job) -> dict[Split, list[bool]]:
    """Which images of the job's shards a student reads right, in full precision."""
    index, right = read_index(job.shards), {}
    for split in JUDGED:
        batches = load_as_they_are(job.shards, index, split, job.run.view)
        answers = answer(asker(model.eval(), default_device()), batches)
        right[split] = answers.right.tolist()
    return right
