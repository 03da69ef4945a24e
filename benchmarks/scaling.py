"""Two workers of one core each beside one."""

from __future__ import annotations

from pathlib import Path

from benchmarks.part import some_shards
from benchmarks.spread import spread
from pipeline.compute import Compute
from pipeline.distill.target_index import TARGETS
from pipeline.params import Params
from pipeline.runs import find
from pipeline.train.job import Job
from pipeline.train.ray_job import train_on_ray
from pipeline.train.run import MODELS

SHARDS_TAKEN = 3
"""Shards of the training split that are shown: the teacher takes seconds for each."""
EPOCHS = 2
"""The first is not counted: its processes have just started."""
PAIRS = 3
"""At most so many: one takes over a minute."""


def scaling_efficiency(params: Params, folder: Path, pairs: int) -> dict[str, float]:
    """Images a second of two workers over twice those of one, for the first teacher.

    Each worker has one thread and prepares its images itself. Both are timed in turn.
    """
    some_shards(folder / "shards", SHARDS_TAKEN)
    run = find(params, f"teacher-{params.teachers[0]}")
    job = Job(
        run=run.model_copy(update={"training": run.training.model_copy(update={"epochs": EPOCHS})}),
        shards=(folder / "shards").resolve(),
        models=MODELS.resolve(),
        targets=TARGETS.resolve(),
        checkpoint_steps=0,
        loaders=0,
        threads=1,
    )
    found = []
    for pair in range(min(pairs, PAIRS)):
        rates: dict[int, float] = {}
        for workers in (1, 2) if pair % 2 == 0 else (2, 1):
            compute = Compute(storage=str(folder / "scaling"), workers=workers)
            trained = train_on_ray(job, f"pair-{pair}-{workers}", compute)
            rates[workers] = trained.history[-1].images_per_second
        found.append(rates[2] / (2 * rates[1]))
    return spread(found)
