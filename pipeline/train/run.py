"""Trains one run of params.yaml and puts its model folder in place."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from pipeline.compute import Compute
from pipeline.data.revision import locate
from pipeline.data.shards import read_index
from pipeline.data.streamed import Streaming
from pipeline.distill.target_index import TARGETS, origin_of, read_target_index
from pipeline.errors import DataError
from pipeline.files import remove_folder, whole_folder, write_whole
from pipeline.models.folder import NORMALISATION, WEIGHTS_FILE, InputSize, ModelInfo, save_model
from pipeline.params import Params, Timm
from pipeline.runs import Run, find
from pipeline.train.fingerprint import code_version, run_fingerprint
from pipeline.train.history import Trained, as_csv
from pipeline.train.job import Job
from pipeline.train.storage import remove_job

log = logging.getLogger(__name__)

HISTORY_FILE = "history.csv"
MODELS = Path("models")
SHARDS = Path("data/shards")


def train_run(
    params: Params,
    name: str,
    compute: Compute,
    *,
    shards: Path = SHARDS,
    models: Path = MODELS,
    targets: Path = TARGETS,
    deliver: Callable[[ModelInfo], None] | None = None,
) -> ModelInfo:
    """Trains a run, in this process or as a Ray Train job, and writes ``models/<name>/``.

    What was interrupted goes on from its last checkpoint.

    Args:
        params: of the run.
        name: of the run.
        compute: where to train.
        shards: the folder of shards.
        models: the folder of model folders.
        targets: the folder of stored targets.
        deliver: called with the finished model folder in its place, before its checkpoints are
            removed: where it raises, they stay.

    Raises:
        UsageError: there is no such run.
        DataError: the shards, a teacher or its stored targets are missing or damaged, or do not fit
            each other.
        TrainingError: training cannot go on.
    """
    run = find(params, name)
    check_teachers(run, models)
    streaming = streaming_of(params.data.rev, compute, shards) if compute.stream else None
    index = streaming.revision.index if streaming else read_index(shards)
    for teacher in run.teachers if run.targets == "stored" else ():
        # Every worker looks again, but Ray takes seconds to start one.
        weights = models / teacher / WEIGHTS_FILE
        wanted = origin_of(teacher, weights, index.version, run.view, run.seed)
        read_target_index(targets / teacher, wanted, index.of("train"))
    job = Job(
        run=with_absolute_weights(run),
        shards=shards.resolve(),
        models=models.resolve(),
        targets=targets.resolve(),
        checkpoint_steps=compute.checkpoint_steps,
        loaders=compute.loader_processes,
        threads=compute.worker_threads,
        streaming=streaming,
    )
    job_name = f"{name}-{run_fingerprint(run, index.version, models)}"
    log.info("%s: %s", name, _plan(run, index.images("train")))
    # Either way takes seconds to import, and only one of them is needed.
    if compute.workers == 0:
        from pipeline.train.local import train_here  # noqa: PLC0415

        folder = Path(compute.absolute_storage) / f"{job_name}-here"
        trained = train_here(job, folder)
    else:
        from pipeline.train.ray_job import train_on_ray  # noqa: PLC0415

        trained = train_on_ray(job, job_name, compute)
    info = model_info(run, trained, index.source, index.version, index.scripts)
    written = write_model(models / name, info, trained)
    if deliver is not None:
        deliver(written)
    if compute.workers == 0:
        remove_folder(folder)
    else:
        try:
            remove_job(compute.absolute_storage, job_name)
        except OSError as error:
            log.warning(
                "%s is in its place; its checkpoints could not be removed from %s: %s",
                *(name, compute.storage, error),
            )
    return written


def check_teachers(run: Run, models: Path) -> None:
    """Makes sure that the models which a run learns from are there.

    Raises:
        DataError: one is not.
    """
    for teacher in run.teachers:
        if not (models / teacher / WEIGHTS_FILE).exists():
            raise DataError(
                f"{run.name} learns from {teacher}, which is not trained: run python -m pipeline "
                f"train {teacher}"
            )


def with_absolute_weights(run: Run) -> Run:
    """The run for workers, which change directory."""
    network = run.network
    if not isinstance(network, Timm) or network.weights is None:
        return run
    absolute = network.model_copy(update={"weights": network.weights.resolve()})
    return run.model_copy(update={"network": absolute})


def streaming_of(rev: str | None, compute: Compute, shards: Path) -> Streaming:
    """How shards are streamed, where ``compute.stream`` names a remote.

    Raises:
        DistillError: see :func:`pipeline.data.revision.locate`.
    """
    assert compute.stream
    return Streaming(
        revision=locate(shards, rev, compute.stream, compute.patience),
        cache=compute.cache,
        cache_bytes=round(compute.cache_gib * 2**30),
        patience=compute.patience,
    )


def write_model(folder: Path, info: ModelInfo, trained: Trained) -> ModelInfo:
    """Writes a model folder, whole or not at all.

    Returns:
        What its model.json says.
    """
    with whole_folder(folder) as part:
        written = save_model(part, info, trained.weights)
        write_whole(part / HISTORY_FILE, as_csv(trained.history))
    return written


def _plan(run: Run, images: int) -> str:
    taught = f", taught by {' and '.join(run.teachers)}" if run.teachers else ""
    return f"{run.training.epochs} epochs of {images:,} images{taught}"


def model_info(
    run: Run, trained: Trained, source: str, version: str, scripts: tuple[str, ...]
) -> ModelInfo:
    """What a trained model says of itself."""
    best = trained.history[trained.best_epoch - 1]
    return ModelInfo(
        run=run.name,
        role=run.role,
        network=run.network,
        scripts=scripts,
        input=InputSize(channels=1, height=run.view.height, width=run.view.width),
        normalisation=NORMALISATION,
        teachers=run.teachers,
        data_source=source,
        data_version=version,
        parameters=run.model_dump(
            mode="json",
            include={"training", "distillation", "targets", "view", "shuffle_shards", "seed"},
        ),
        code_version=code_version(),
        metrics={
            "validation_accuracy": best.validation_accuracy,
            "validation_loss": best.validation_loss,
            "best_epoch": trained.best_epoch,
            "epochs": len(trained.history),
        },
    )
