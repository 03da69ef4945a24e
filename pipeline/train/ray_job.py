"""The Ray Train job around the loop: workers, checkpoints in its storage, restarts."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.exceptions import RayTaskError
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.train.v2._internal.execution.context import logger as report_log
from ray.train.v2.api.config import LoggingConfig

from pipeline.compute import Compute
from pipeline.errors import (
    DistillError,
    StorageError,
    TrainingError,
    TransientError,
    UsageError,
)
from pipeline.train import ray_cluster
from pipeline.train.checkpoint import Checkpoint
from pipeline.train.device import Worker
from pipeline.train.history import EpochRow, Trained
from pipeline.train.job import Job
from pipeline.train.storage import for_ray

log = logging.getLogger(__name__)

PAUSE = 5.0
"""Seconds before a job whose storage was away is started again."""


class ReportKeeper:
    """Hands checkpoints to Ray Train, which puts them into its storage. Rank 0 brings them."""

    def __init__(self, rank: int) -> None:
        self._rank = rank

    def keep(self, checkpoint: Checkpoint, metrics: Mapping[str, float]) -> None:
        """See :class:`pipeline.train.loop.Keeper`; a barrier for all workers."""
        if self._rank:
            ray.train.report(dict(metrics))
            return
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(Path(folder))
            ray.train.report(dict(metrics), checkpoint=ray.train.Checkpoint(folder))


class NoVainRetries(UserCallback):  # type: ignore[misc]
    """Ends a job at once where a worker raised an error of our own: no retry can heal it.

    What Ray restarts is what died: a worker, a node.
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raises our own error in the controller, which then gives up."""
        for error in worker_exceptions.values():
            if own := _own(error):
                raise own


def train_on_ray(job: Job, name: str, compute: Compute) -> Trained:
    """Trains a run as a Ray Train job, or goes on with the job of that name.

    Args:
        job: what to train.
        name: of the job; one that is finished is not trained again.
        compute: workers, storage, restarts.

    Raises:
        UsageError: there are fewer processors than workers.
        DistillError: what a worker raised; it is not retried.
        TransientError: workers died more often than ``compute.failures`` allows.
        StorageError: its storage was away for longer than ``compute.patience``.
        TrainingError: a worker raised anything else.
    """
    ray_cluster.connect()
    there = ray.cluster_resources()
    gpu = there.get("GPU", 0) > 0
    kind = "GPU" if gpu else "CPU"
    if compute.workers > there.get(kind, 0):
        raise UsageError(
            f"DISTILL_WORKERS={compute.workers}, but Ray has {there.get(kind, 0):g} {kind}s: each "
            "worker needs one of its own"
        )
    share = {} if gpu else {"CPU": compute.worker_threads}
    scaling = ScalingConfig(
        num_workers=compute.workers, use_gpu=gpu, resources_per_worker=share or None
    )
    last = _fit_patiently(job, name, compute, scaling)
    history = [EpochRow(**row) for row in last.numbers["history"]]
    numbers = last.numbers
    return Trained(last.part("best"), history, numbers["best_epoch"], numbers["seconds"])


def _fit_patiently(job: Job, name: str, compute: Compute, scaling: ScalingConfig) -> Checkpoint:
    """The job's last checkpoint; a storage that is away is waited for.

    Where Ray's controller cannot write down what it has, the job ends, and goes on by being started
    again.
    """
    away_since: float | None = None
    while True:
        try:
            return _fit(job, name, compute, scaling)
        except StorageError as error:
            away_since = away_since or time.monotonic()
            if time.monotonic() - away_since > compute.patience:
                raise
            log.warning("%s; it is started again", error)
            time.sleep(min(PAUSE, compute.patience))


def _fit(job: Job, name: str, compute: Compute, scaling: ScalingConfig) -> Checkpoint:
    trainer = TorchTrainer(
        _work,
        train_loop_config={"job": job.model_dump_json()},
        scaling_config=scaling,
        run_config=RunConfig(
            name=name,
            storage_path=for_ray(compute.absolute_storage),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=compute.failures),
            logging_config=LoggingConfig(log_level="WARNING"),
            callbacks=[NoVainRetries()],
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise _own(error) or _kind(error)(f"the Ray job {name} failed: {error}") from error
    except OSError as error:
        # Ray looks into its storage before it starts anything.
        if not _is_of_storage(error):
            raise
        raise StorageError(f"{compute.storage} is out of reach: {error}") from error
    if result.checkpoint is None:
        raise TrainingError(f"the job {name} ended without a checkpoint; remove its storage, retry")
    with result.checkpoint.as_directory() as folder:
        return Checkpoint.load(Path(folder))


def _work(config: dict[str, str]) -> None:
    """One worker of the job."""
    # Ray's controller imports this module too; only a worker needs these seconds.
    from pipeline.train.setup import make_trainer  # noqa: PLC0415

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    report_log.setLevel(logging.WARNING)
    logging.getLogger("botocore").setLevel(logging.WARNING)
    job = Job.model_validate_json(config["job"])
    context = ray.train.get_context()
    rank, world_size = context.get_world_rank(), context.get_world_size()
    device = get_device()
    assert isinstance(device, torch.device)
    worker = Worker(rank, world_size, device, job.loaders)
    if rank:
        logging.getLogger("pipeline").setLevel(logging.WARNING)
    log.info("%s: worker %d of %d, on %s", job.run.name, rank + 1, world_size, device)
    trainer = make_trainer(job, worker, ReportKeeper(rank))
    kept = ray.train.get_checkpoint()
    if kept is None:
        trainer.run()
        return
    with kept.as_directory() as folder:
        checkpoint = Checkpoint.load(Path(folder))
    trainer.run(checkpoint)


def _kind(error: ray.train.TrainingFailedError) -> type[DistillError]:
    """What a failed job is: lost, where no code raised anything, but workers or nodes died."""
    failures = [
        *getattr(error, "worker_failures", {}).values(),
        getattr(error, "controller_failure", None),
    ]
    if any(map(_is_of_storage, failures)):
        return StorageError
    raised = any(isinstance(one, UserExceptionWithTraceback | RayTaskError) for one in failures)
    return TrainingError if raised else TransientError


def _is_of_storage(failure: Any) -> bool:
    """Whether S3 failed under a checkpoint: pyarrow raises that with no number of this system."""
    error = getattr(failure, "_base_exc", failure)
    return isinstance(error, OSError) and error.errno is None


def _own(error: BaseException | None) -> DistillError | None:
    """Our own error behind Ray's, if there is one."""
    if error is None or isinstance(error, DistillError):
        return error
    behind = [
        *getattr(error, "worker_failures", {}).values(),
        *(getattr(error, name, None) for name in ("controller_failure", "cause", "__cause__")),
    ]
    return next((found for found in map(_own, behind) if found), None)
