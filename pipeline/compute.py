"""Where and how fast things are computed: settings that are no parameters of the result.

Of them only the number of workers and threads moves weights: by rounding, and by each worker's own
batch norm.

They come from the environment, never from params.yaml: ``DISTILL_WORKERS=2 dvc repro``.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from pipeline.errors import UsageError

CHECKPOINTS: Final = ".checkpoints"

_CPU_LIMIT: Final = Path("/sys/fs/cgroup/cpu.max")


class Compute(BaseSettings):
    """The settings, each from the environment variable ``DISTILL_<NAME>``.

    Attributes:
        workers: training processes, started by Ray; 0 trains in this process, without Ray.
        min_workers: with how many of them a job begins or goes on where machines are missing; null
            waits for all.
        loaders: loader processes of each worker; null takes what the machine has cores for.
        threads: CPU threads of each worker; null shares the cores among the workers.
        storage: where checkpoints are kept, a folder or a URI.
        stream: the DVC remote in S3 that shards are streamed from; null reads data/shards.
        cache: the folder that streamed shards are kept in, for all processes of a machine.
        cache_gib: its largest size, in GiB; 0 keeps none.
        patience: seconds that S3 may give nothing while shards are streamed.
        model_cache: the folder that fetched models are kept in.
        checkpoint_steps: steps between two checkpoints within an epoch; 0 keeps one an epoch.
        failures: how often a job goes on by itself after workers died.
        gpu: whether workers take GPUs, which a job on a cluster then waits for and has brought, or
            leave alone those that there are; null takes them where there are some.
        wait: seconds that a job on a cluster waits for processors for its workers.
        trial_cpus: what a trial of a search, or a student that is trained again, takes of a
            machine; whole cores are its threads.
        trial_gpus: and, where there are GPUs, of one of them.
        stop_jobs: whether a command that SIGTERM ends takes its job on a cluster with it.
    """

    model_config = SettingsConfigDict(env_prefix="DISTILL_", extra="forbid", frozen=True)

    workers: Annotated[int, Field(ge=0)] = 1
    min_workers: Annotated[int, Field(ge=1)] | None = None
    loaders: Annotated[int, Field(ge=0)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    storage: str = CHECKPOINTS
    stream: str | None = None
    cache: str = "~/.cache/script-distill/shards"
    cache_gib: Annotated[float, Field(ge=0)] = 10
    patience: Annotated[float, Field(gt=0)] = 300
    model_cache: str = "~/.cache/script-distill/models"
    checkpoint_steps: Annotated[int, Field(ge=0)] = 0
    failures: Annotated[int, Field(ge=0)] = 3
    gpu: bool | None = None
    wait: Annotated[float, Field(gt=0)] = 900
    trial_cpus: Annotated[float, Field(gt=0)] = 1
    trial_gpus: Annotated[float, Field(gt=0)] = 0.25
    stop_jobs: bool = False

    @property
    def least_workers(self) -> int:
        """The fewest workers that a job begins or goes on with."""
        return self.workers if self.min_workers is None else self.min_workers

    @property
    def loader_processes(self) -> int:
        """Loader processes of a worker."""
        if self.loaders is not None:
            return self.loaders
        return max(1, min(8, cores() // max(1, self.workers) - 1))

    @property
    def worker_threads(self) -> int:
        """CPU threads of a worker."""
        return self.threads or max(1, cores() // max(1, self.workers))

    @property
    def remote_storage(self) -> bool:
        """Whether the storage is a URI and no folder of this machine."""
        return "://" in self.storage

    @property
    def local_storage(self) -> Path:
        """The folder of this machine for what is kept between interruptions."""
        return Path(CHECKPOINTS if self.remote_storage else self.storage).resolve()

    @property
    def absolute_storage(self) -> str:
        """The storage as workers need it, since they change directory."""
        return self.storage if self.remote_storage else str(Path(self.storage).resolve())


def load() -> Compute:
    """The settings of this process's environment.

    Raises:
        UsageError: a variable has a value that is refused.
    """
    try:
        compute = Compute()
    except ValidationError as error:
        lines = [
            f"  DISTILL_{str(item['loc'][0]).upper()}: {item['msg']} (got {item['input']!r})"
            for item in error.errors()
        ]
        raise UsageError("\n".join(["bad compute settings in the environment:", *lines])) from error
    if compute.least_workers > compute.workers:
        raise UsageError(
            f"DISTILL_MIN_WORKERS={compute.min_workers} is more than "
            f"DISTILL_WORKERS={compute.workers}: it is the fewest of them that a job goes on with"
        )
    if compute.remote_storage and compute.workers == 0:
        raise UsageError(
            f"DISTILL_STORAGE={compute.storage} is written by Ray, which DISTILL_WORKERS=0 does "
            "without: set DISTILL_WORKERS to 1 or more, or DISTILL_STORAGE to a folder"
        )
    return compute


def cores(limit: Path = _CPU_LIMIT) -> int:
    """The processor cores this process may use.

    A container's limit of processor time counts too: Kubernetes gives a pod all cores of its node,
    and time on as many of them as the pod asked for. Ray counts the same.

    Args:
        limit: where the control group tells microseconds of quota and period, or ``max``.
    """
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = limit.read_text().split()
    except FileNotFoundError:
        return allowed  # no control group of version 2 of its own, as on most hosts
    return allowed if quota == "max" else min(allowed, max(1, math.ceil(int(quota) / int(period))))
