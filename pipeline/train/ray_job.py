"""The Ray Train job around the loop: workers, checkpoints in its storage, restarts."""

from __future__ import annotations

import logging
import math
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray.train
import torch
from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig, UserCallback
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2._internal.execution.context import logger as report_log
from ray.train.v2.api.config import LoggingConfig

from pipeline.compute import Compute
from pipeline.errors import StorageError, TrainingError
from pipeline.train import ray_cluster
from pipeline.train.checkpoint import Checkpoint
from pipeline.train.device import Worker
from pipeline.train.failures import Outage, error_of_job, is_of_storage, own_error
from pipeline.train.history import EpochRow, Trained
from pipeline.train.job import Job
from pipeline.train.placement import place
from pipeline.train.ray_snapshot import mend_snapshot
from pipeline.train.storage import for_ray

log = logging.getLogger(__name__)

PAUSE = 5.0
"""Seconds before a job whose storage was away is started again."""
STEPS_BETWEEN_LOOKS = 16
"""Steps after which workers look whether one of their machines is about to go: it takes about a
millisecond, and notice is given a minute or two before."""


class ReportKeeper:
    """Hands checkpoints to Ray Train, which puts them into its storage. Rank 0 brings them."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._watched = os.environ.get(ray_cluster.WATCHER) != "0"
        self._steps = 0
        self._warned: ray.train.PreemptionInfo | None = None

    def keep(self, checkpoint: Checkpoint, metrics: Mapping[str, float]) -> None:
        """See :class:`pipeline.train.loop.Keeper`; a barrier for all workers."""
        if self._rank:
            ray.train.report(dict(metrics))
            return
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(Path(folder))
            ray.train.report(dict(metrics), checkpoint=ray.train.Checkpoint(folder))

    def asks(self, step: int) -> bool:
        """See :class:`pipeline.train.loop.Keeper`; once for each notice that a machine will go."""
        self._steps += 1
        if not self._watched or self._steps % STEPS_BETWEEN_LOOKS:
            return False
        warned = ray.train.get_preemption_info()
        if warned is None or warned == self._warned:
            return False
        self._warned = warned
        log.warning("a machine of this training is about to go: a checkpoint is kept")
        return True


class NoVainRetries(UserCallback):  # type: ignore[misc]
    """Ends a job at once where a worker raised an error of our own: no retry can heal it.

    What Ray restarts is what died: a worker, a node.
    """

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Raises our own error in the controller, which then gives up."""
        for error in worker_exceptions.values():
            if own := own_error(error):
                raise own


def train_on_ray(job: Job, name: str, compute: Compute) -> Trained:
    """Trains a run as a Ray Train job, or goes on with the job of that name.

    Args:
        job: what to train.
        name: of the job; one that is finished is not trained again.
        compute: workers, storage, restarts.

    Raises:
        UsageError: there is room for too few workers.
        DistillError: what a worker raised; it is not retried.
        TransientError: workers died more often than ``compute.failures`` allows.
        StorageError: its storage was away for longer than ``compute.patience``.
        TrainingError: a worker raised anything else.
    """
    ray_cluster.connect()
    placement = place(compute, ray_cluster.machines())
    workers: int | tuple[int, int] = compute.workers
    if compute.min_workers is not None:
        workers = (compute.min_workers, compute.workers)
    scaling = ScalingConfig(
        num_workers=workers,
        use_gpu=placement.gpu,
        resources_per_worker=dict(placement.share),
        # Over as many machines as there are: the loss of one then takes the fewest workers.
        placement_strategy="SPREAD",
        # A run that goes on is left alone: to resize it costs what it made since its checkpoint.
        elastic_resize_monitor_interval_s=math.inf,
    )
    job = job.model_copy(update={"loaders": placement.loaders})
    last = _fit_patiently(job, name, compute, scaling)
    history = [EpochRow(**row) for row in last.numbers["history"]]
    numbers = last.numbers
    return Trained(last.part("best"), history, numbers["best_epoch"], numbers["seconds"])


def _fit_patiently(job: Job, name: str, compute: Compute, scaling: ScalingConfig) -> Checkpoint:
    """The job's last checkpoint; a storage that is away is waited for.

    Where Ray's controller cannot write down what it has, the job ends, and goes on by being started
    again.
    """
    outage = Outage(compute.patience)
    while True:
        began = time.monotonic()
        try:
            return _fit(job, name, compute, scaling)
        except StorageError as error:
            if outage.over(began):
                raise
            log.warning("%s; it is started again", error)
            time.sleep(min(PAUSE, compute.patience))


def _fit(job: Job, name: str, compute: Compute, scaling: ScalingConfig) -> Checkpoint:
    mend_snapshot(compute.absolute_storage, name)
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
        raise error_of_job(name, error) from error
    except OSError as error:
        # Ray looks into its storage before it starts anything.
        if not is_of_storage(error):
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
    # To a worker without a GPU of its own Ray names the machine's first one.
    device = get_device() if ray.get_gpu_ids() else torch.device("cpu")
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
