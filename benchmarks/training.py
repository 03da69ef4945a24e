"""The Ray Train job beside the same loop called directly."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.spread import spread
from pipeline.compute import Compute
from pipeline.data.shards import read_index
from pipeline.distill.target_index import TARGETS
from pipeline.params import Params
from pipeline.runs import find
from pipeline.train.checkpoint import Checkpoint
from pipeline.train.history import EpochRow
from pipeline.train.job import Job
from pipeline.train.local import train_here
from pipeline.train.ray_job import train_on_ray
from pipeline.train.run import MODELS, SHARDS

EPOCHS = 2


@dataclass(frozen=True)
class _Timed:
    seconds: float
    startup: float
    history: list[EpochRow]


def _time(job: Job, way: str, folder: Path, compute: Compute) -> _Timed:
    began = time.perf_counter()
    if way == "ray":
        trained = train_on_ray(job, folder.name, compute)
        seconds = trained.seconds
    else:
        trained = train_here(job, folder)
        seconds = Checkpoint.load(folder).numbers["seconds"]
    return _Timed(seconds, time.perf_counter() - began - seconds, trained.history)


def ray_ratio(params: Params, folder: Path, pairs: int) -> dict[str, Any]:
    """Times a student's first epochs in a Ray Train job of one worker, and in this process.

    Both are timed up to their last checkpoint, in turn first and last. Every epoch makes new views.
    """
    compute = Compute(storage=str(folder / "ray"), workers=1)
    run = find(params, "student-alone")
    training = run.training.model_copy(update={"epochs": EPOCHS})
    view = run.view.model_copy(update={"cycle": 0})
    job = Job(
        run=run.model_copy(update={"training": training, "view": view}),
        shards=SHARDS.resolve(),
        models=MODELS.resolve(),
        targets=TARGETS.resolve(),
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
        runs: dict[str, _Timed] = {}
        for way in ("direct", "ray") if pair % 2 == 0 else ("ray", "direct"):
            runs[way] = _time(job, way, folder / f"pair-{pair}", compute)
        ratios.append(runs["ray"].seconds / runs["direct"].seconds)
        startups.append(runs["ray"].startup)
        rates.append(images / runs["ray"].seconds)
        rows += runs["direct"].history + runs["ray"].history
    return {
        "ratio": spread(ratios),
        "startup_seconds": spread(startups),
        "waiting": spread([row.waiting for row in rows]),
        "images_per_second": spread(rates),
    }
