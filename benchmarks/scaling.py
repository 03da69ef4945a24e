"""Two workers of one core each beside one, and beside two trainings apart from each other."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from benchmarks.part import some_shards
from benchmarks.spread import spread
from pipeline.compute import Compute
from pipeline.distill.target_index import TARGETS
from pipeline.params import Params
from pipeline.runs import find
from pipeline.train.job import Job
from pipeline.train.local import train_here
from pipeline.train.ray_job import train_on_ray
from pipeline.train.run import MODELS

SHARDS_TAKEN = 3
"""Shards of the training split that are shown: the teacher takes seconds for each."""
EPOCHS = 2
"""The first is not counted: its processes have just started."""
PAIRS = 3
"""At most so many: one takes minutes."""


def scaling_efficiency(params: Params, folder: Path, pairs: int) -> dict[str, dict[str, float]]:
    """Images a second of two workers over twice those of one, for the first teacher.

    Each worker has one thread and prepares its images itself. All are timed in turn.

    Returns:
        ``ratio``: two workers over twice one. ``ceiling``: two trainings of half of the batch each
        that exchange nothing, at the same time, over twice one of the whole batch: what the
        machine, and the smaller batch, leave to be had. ``exchange``: the first over the second.
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
    batch = training.batch_size // 2
    halved = training.model_copy(update={"batch_size": batch})
    half = whole.model_copy(update={"run": run.model_copy(update={"training": halved})})
    ratios: list[float] = []
    ceilings: list[float] = []
    for pair in range(min(pairs, PAIRS)):
        rates: dict[int, float] = {}
        for workers in (1, 2) if pair % 2 == 0 else (2, 1):
            compute = Compute(storage=str(folder / "scaling"), workers=workers)
            trained = train_on_ray(whole, f"pair-{pair}-{workers}", compute)
            rates[workers] = trained.history[-1].images_per_second
        ratios.append(rates[2] / (2 * rates[1]))
        alone = sum(_at_once([whole], folder / f"alone-{pair}"))
        ceilings.append(sum(_at_once([half, half], folder / f"apart-{pair}")) / (2 * alone))
    exchanges = [ratio / ceiling for ratio, ceiling in zip(ratios, ceilings, strict=True)]
    return {"ratio": spread(ratios), "ceiling": spread(ceilings), "exchange": spread(exchanges)}


def _at_once(jobs: list[Job], folder: Path) -> list[float]:
    """Images a second of the last epoch of each, in a process of its own."""
    with ProcessPoolExecutor(len(jobs), multiprocessing.get_context("spawn")) as processes:
        folders = [folder / str(number) for number in range(len(jobs))]
        return list(processes.map(_rate, jobs, folders))


def _rate(job: Job, folder: Path) -> float:
    return train_here(job, folder).history[-1].images_per_second
