"""The Ray Train job beside the same loop called directly."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from benchmarks.spread import spread
from pipeline.compute import Compute
from pipeline.data.shards import read_index
from pipeline.params import Params
from pipeline.runs import find
from pipeline.train.history import EpochRow
from pipeline.train.job import Job
from pipeline.train.local import train_here
from pipeline.train.ray_job import train_on_ray
from pipeline.train.run import MODELS, SHARDS

EPOCHS = 2


def ray_ratio(params: Params, folder: Path, pairs: int) -> dict[str, Any]:
    """Times a student's first epochs in a Ray Train job of one worker, and in this process."""
    compute = Compute(storage=str(folder), workers=1)
    run = find(params, "student-alone")
    training = run.training.model_copy(update={"epochs": EPOCHS})
    job = Job(
        run=run.model_copy(update={"training": training}),
        shards=SHARDS.resolve(),
        models=MODELS.resolve(),
        checkpoint_steps=0,
        loaders=compute.loader_processes,
        threads=compute.worker_threads,
    )
    images = read_index(SHARDS).images("train") * EPOCHS
    ratios: list[float] = []
    startups: list[float] = []
    rows: list[EpochRow] = []
    rates: list[float] = []
    for pair in range(pairs):
        direct = train_here(job, folder / f"direct-{pair}")
        began = time.perf_counter()
        onray = train_on_ray(job, f"ray-{pair}", compute)
        startups.append(time.perf_counter() - began - onray.seconds)
        ratios.append(onray.seconds / direct.seconds)
        rates.append(images / onray.seconds)
        rows += direct.history + onray.history
    return {
        "ratio": spread(ratios),
        "startup_seconds": spread(startups),
        "waiting": spread([row.waiting for row in rows]),
        "images_per_second": spread(rates),
    }
