"""Two workers of one core each beside one, and beside two trainings apart from each other."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median

from benchmarks.part import some_shards
from benchmarks.spread import spread
from pipeline.compute import Compute
from pipeline.distill.target_index import TARGETS
from pipeline.params import Params
from pipeline.runs import find
from pipeline.train.history import Trained
from pipeline.train.job import Job
from pipeline.train.local import train_here
from pipeline.train.ray_job import train_on_ray
from pipeline.train.run import MODELS

SHARDS_TAKEN = 3
"""Shards of the training split that are shown: the teacher takes seconds for each."""
EPOCHS = 4
"""The first is not counted: its processes have just started."""
PAIRS = 3
"""At most so many: one takes minutes."""


def scaling_efficiency(params: Params, folder: Path, pairs: int) -> dict[str, dict[str, float]]:
    """Images a second of two workers over twice those of one, for the first teacher.

    Each worker has one thread and prepares its images itself. All are timed in turn.

    Returns:
        ``ratio``: two workers that share the batch of one, over twice one; it is the same training.
        ``weak``: the same with as many images a worker as the one has, so twice the batch.
        ``ceiling``: two trainings of half of the batch each that exchange nothing, at the same
            time, over twice one of the whole batch: what the machine, and the smaller batch, leave
            to be had.
        ``exchange``: the first over the third.
    """
    some_shards(folder / "shards", SHARDS_TAKEN)
    run = find(params, f"teacher-{params.teachers[0]}")
    training = run.training.model_copy(update={"epochs": EPOCHS})
    whole = Job(
        run=run.model_copy(update={"training": training}),
        shards=(folder / "shards").resolve(),
        models=MODELS.resolve(),
        targets=TARGETS.resolve(),
        checkpoint_steps=0,
        loaders=0,
        threads=1,
    )
    half, double = _with_batch(whole, 0.5), _with_batch(whole, 2)
    ways = {"one": (whole, 1), "two": (whole, 2), "weak": (double, 2)}
    parts: dict[str, list[float]] = {"ratio": [], "weak": [], "ceiling": [], "exchange": []}
    for pair in range(min(pairs, PAIRS)):
        rates: dict[str, float] = {}
        for way in ways if pair % 2 == 0 else reversed(ways):
            job, workers = ways[way]
            compute = Compute(storage=str(folder / "scaling"), workers=workers)
            rates[way] = _rate_of(train_on_ray(job, f"pair-{pair}-{way}", compute))
        alone = sum(_at_once([whole], folder / f"alone-{pair}"))
        ceiling = sum(_at_once([half, half], folder / f"apart-{pair}")) / (2 * alone)
        ratio = rates["two"] / (2 * rates["one"])
        parts["ratio"].append(ratio)
        parts["weak"].append(rates["weak"] / (2 * rates["one"]))
        parts["ceiling"].append(ceiling)
        parts["exchange"].append(ratio / ceiling)
    return {part: spread(values) for part, values in parts.items()}


def _with_batch(job: Job, factor: float) -> Job:
    batch = int(job.run.training.batch_size * factor)
    training = job.run.training.model_copy(update={"batch_size": batch})
    return job.model_copy(update={"run": job.run.model_copy(update={"training": training})})


def _at_once(jobs: list[Job], folder: Path) -> list[float]:
    """Images a second of each, in a process of its own."""
    with ProcessPoolExecutor(len(jobs), multiprocessing.get_context("spawn")) as processes:
        folders = [folder / str(number) for number in range(len(jobs))]
        return list(processes.map(_rate, jobs, folders))


def _rate(job: Job, folder: Path) -> float:
    return _rate_of(train_here(job, folder))


def _rate_of(trained: Trained) -> float:
    return median(row.images_per_second for row in trained.history[1:])
