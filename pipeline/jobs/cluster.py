"""A job's command joins the cluster it is on, and waits for machines that have to be brought."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Final

import ray
from ray.actor import ActorHandle
from ray.autoscaler.sdk import request_resources
from ray.exceptions import RayError

from pipeline.compute import Compute
from pipeline.errors import ClusterError, UsageError
from pipeline.jobs.worker import prepare
from pipeline.train import ray_cluster
from pipeline.train.placement import room_for, share_of, too_few

log = logging.getLogger(__name__)

_EVERY_SECONDS: Final = 2.0
_NAMESPACE: Final = "script-distill"
_LEAVING_SECONDS: Final = 60.0
"""How long a job that has ended may still be known as one that makes something."""


def join(environment: Mapping[str, str]) -> None:
    """Joins the cluster; each process that then works for the job prepares itself first.

    Args:
        environment: variables for these processes.
    """
    # What stands here is meant, also where whoever submitted the job by hand said otherwise.
    os.environ["RAY_OVERRIDE_JOB_RUNTIME_ENV"] = "1"
    variables = {
        "NO_ALBUMENTATIONS_UPDATE": "1",
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
        **environment,
    }
    hook = f"{prepare.__module__}.{prepare.__name__}"
    ray.init(
        os.environ["RAY_ADDRESS"],
        runtime_env={"env_vars": variables, "worker_process_setup_hook": hook},
        logging_level=logging.WARNING,
    )


class _Holder:
    """Is there while a job makes something, under the name of what it makes."""

    def __init__(self, job: str) -> None:
        self._job = job

    def job(self) -> str:
        return self._job


def hold(name: str, job: str) -> ActorHandle[_Holder]:
    """Makes sure that no other job of this cluster makes the same at the same time.

    Two would write into, and remove, the same checkpoints.

    Args:
        name: of what is made, by all that decides it.
        job: the submission id of this job.

    Returns:
        What holds the name, for as long as it is kept.

    Raises:
        UsageError: another job makes it now.
    """
    deadline = time.monotonic() + _LEAVING_SECONDS
    while True:
        options = {"name": name, "namespace": _NAMESPACE, "num_cpus": 0, "max_restarts": -1}
        try:
            return ray.remote(_Holder).options(**options).remote(job)
        except ValueError:
            # The name is taken; by whom?
            pass
        try:
            other = ray.get(ray.get_actor(name, _NAMESPACE).job.remote(), timeout=_EVERY_SECONDS)
        except (ValueError, RayError) as error:
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"another job makes {name}, and does not answer ({error}): see ray job list, "
                    "and run the same command again"
                ) from error
            time.sleep(_EVERY_SECONDS)
            continue
        raise UsageError(
            f"the job {other} makes this already: ray job logs --follow {other} shows how far it "
            "is, and from a checkout the same command takes its model"
        )


def wait_for(compute: Compute) -> None:
    """Asks for room for every worker, and waits until it is there.

    Args:
        compute: how many workers, the fewest of them, whether each wants a GPU, and how long to
            wait.

    Raises:
        UsageError: not even the fewest have room by then.
    """
    share = share_of(compute, gpu=compute.gpu, loaders=compute.loaders or 0)
    if _room(share) >= compute.workers:
        return
    log.info("waiting for room for %d workers, there is for %d", compute.workers, _room(share))
    request_resources(bundles=[share] * compute.workers)
    try:
        deadline = time.monotonic() + compute.wait
        while (room := _room(share)) < compute.workers:
            if time.monotonic() > deadline:
                if room >= compute.least_workers:
                    log.info("%d workers have room after %g s: they begin", room, compute.wait)
                    return
                found = f"after {compute.wait:g} s the cluster has room for {room}"
                raise UsageError(too_few(compute, share, found))
            time.sleep(_EVERY_SECONDS)
    finally:
        # From here on the job itself holds them.
        request_resources(bundles=[])


def _room(share: Mapping[str, float]) -> int:
    return room_for(share, ray_cluster.machines())
