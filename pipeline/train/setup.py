"""From a run to the trainer of one worker: models, method, loaders."""

from __future__ import annotations

import math

import torch

from pipeline.data.loader import MEMORY, Loader, ViewDataset
from pipeline.data.plan import Planner
from pipeline.data.shards import Index, ShardFolder, ShardSource, read_index
from pipeline.data.streamed import StreamedShards
from pipeline.distill.methods import SoftTargets
from pipeline.errors import DataError
from pipeline.models.build import build
from pipeline.models.folder import load_model
from pipeline.runs import Run
from pipeline.train.device import Worker
from pipeline.train.job import Job
from pipeline.train.loop import Keeper, Trainer

VALIDATION_BATCH = 256


def make_trainer(job: Job, worker: Worker, keeper: Keeper) -> Trainer:
    """Builds everything a worker trains with.

    Raises:
        DataError: the shards or a teacher are missing or damaged, or a teacher tells other scripts.
        UsageError: there are more workers than images in a batch.
    """
    run = job.run
    torch.set_num_threads(job.threads)
    source, index = _source(job)
    teachers = {}
    for name in run.teachers:
        teachers[name], info = load_model(job.models / name)
        if info.scripts != index.scripts:
            raise DataError(
                f"teacher {name} tells {', '.join(info.scripts)} apart, but the shards hold "
                f"{', '.join(index.scripts)}; train it again on these shards"
            )
    torch.manual_seed(run.seed)
    model = build(run.network, len(index.scripts), run.view)
    return Trainer(
        name=run.name,
        model=model,
        classes=len(index.scripts),
        method=SoftTargets(run.teachers, run.distillation, _memory(run, worker, index)),
        teachers=teachers,
        training=run.training,
        seed=run.seed,
        train=make_loader(job, source, index, "train", worker, augmented=True),
        validation=make_loader(job, source, index, "validation", worker, augmented=False),
        worker=worker,
        keeper=keeper,
        checkpoint_steps=job.checkpoint_steps,
    )


def _source(job: Job) -> tuple[ShardSource, Index]:
    """Where the job's shards are read from, and what they hold."""
    if job.streaming is None:
        return ShardFolder(job.shards), read_index(job.shards)
    return StreamedShards(job.streaming), job.streaming.revision.index


def _memory(run: Run, worker: Worker, index: Index) -> tuple[int, int, int] | None:
    """The size of what is remembered of teachers, if it is asked for, complete and small enough."""
    size = (run.view.cycle, index.images("train"), len(index.scripts))
    # A mixture is no view, and a rank of several is shown other images every epoch.
    if worker.world_size > 1 or run.training.mixup or not 0 < math.prod(size) * 4 <= MEMORY:
        return None
    return size


def make_loader(
    job: Job, source: ShardSource, index: Index, split: str, worker: Worker, *, augmented: bool
) -> Loader:
    """The loader of one split for one worker."""
    run = job.run
    shards = index.of(split)
    if not shards:
        raise DataError(f"{job.shards} has no {split} images; rebuild the shards")
    seed = run.seed if augmented else None
    window = run.shuffle_shards
    dataset = ViewDataset(source, index, split, run.view, seed, window)
    planner = Planner(
        samples=tuple(shard.samples for shard in shards),
        batch_size=run.training.batch_size if augmented else VALIDATION_BATCH,
        seed=run.seed,
        window=window,
    )
    return Loader(
        dataset,
        planner,
        rank=worker.rank,
        world_size=worker.world_size,
        # Views of the validation split are cheap: no process of their own for them.
        workers=worker.loaders if augmented else 0,
        pin_memory=worker.device.type == "cuda",
    )
