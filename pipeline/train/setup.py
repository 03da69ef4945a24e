"""From a run to the trainer of one worker: models, method, loaders."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from pipeline.data.loader import Loader, Stored, ViewDataset
from pipeline.data.plan import Planner
from pipeline.data.shards import Index, ShardFolder, ShardSource, read_index
from pipeline.data.streamed import StreamedShards
from pipeline.distill.methods import SoftTargets
from pipeline.distill.store import StoredTargets
from pipeline.distill.target_index import origin_of, read_target_index
from pipeline.errors import DataError
from pipeline.models.build import ScriptClassifier, build
from pipeline.models.folder import WEIGHTS_FILE, load_model
from pipeline.train.device import Worker
from pipeline.train.job import Job
from pipeline.train.loop import Keeper, Trainer

VALIDATION_BATCH = 256


def make_trainer(job: Job, worker: Worker, keeper: Keeper) -> Trainer:
    """Builds everything a worker trains with.

    Raises:
        DataError: the shards, a teacher or its stored targets are missing or damaged, or do not fit
            each other.
        UsageError: there are more workers than images in a batch.
    """
    run = job.run
    torch.set_num_threads(job.threads)
    source, index = shards_of(job)
    live = run.targets == "live"
    teachers = {name: load_teacher(job, name, index) for name in run.teachers if live}
    stored = {name: _stored(job, name, index) for name in run.teachers if not live}
    torch.manual_seed(run.seed)
    model = build(run.network, len(index.scripts), run.view)
    return Trainer(
        name=run.name,
        model=model,
        classes=len(index.scripts),
        method=SoftTargets(run.teachers, run.distillation),
        teachers=teachers,
        training=run.training,
        seed=run.seed,
        train=make_loader(job, source, index, "train", worker, augmented=True, stored=stored),
        validation=make_loader(job, source, index, "validation", worker, augmented=False),
        worker=worker,
        keeper=keeper,
        checkpoint_steps=job.checkpoint_steps,
    )


def shards_of(job: Job) -> tuple[ShardSource, Index]:
    """Where the job's shards are read from, and what they hold."""
    if job.streaming is None:
        return ShardFolder(job.shards), read_index(job.shards)
    return StreamedShards(job.streaming), job.streaming.revision.index


def load_teacher(job: Job, name: str, index: Index) -> ScriptClassifier:
    """A model that is asked about images of these shards.

    Raises:
        DataError: it is missing or damaged, or tells other scripts apart.
    """
    teacher, info = load_model(job.models / name)
    if info.scripts != index.scripts:
        raise DataError(
            f"teacher {name} tells {', '.join(info.scripts)} apart, but the shards hold "
            f"{', '.join(index.scripts)}; train it again on these shards"
        )
    return teacher


def _stored(job: Job, name: str, index: Index) -> StoredTargets:
    """What a teacher said of the views that the job's run is shown."""
    run, shards = job.run, index.of("train")
    weights = job.models / name / WEIGHTS_FILE
    wanted = origin_of(name, weights, index.version, run.view, run.seed)
    folder = job.targets / name
    return StoredTargets(folder, read_target_index(folder, wanted, shards), run.shuffle_shards)


def make_loader(
    job: Job,
    source: ShardSource,
    index: Index,
    split: str,
    worker: Worker,
    *,
    augmented: bool,
    stored: Mapping[str, Stored] | None = None,
) -> Loader:
    """The loader of one split for one worker."""
    run = job.run
    shards = index.of(split)
    if not shards:
        raise DataError(f"{job.shards} has no {split} images; run python -m pipeline shards")
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
        stored=stored,
    )
