"""A job's command joins the cluster it is on, and waits for machines that have to be brought."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import Final

import ray
from ray.autoscaler.sdk import request_resources

from pipeline.compute import Compute
from pipeline.errors import UsageError
from pipeline.jobs.worker import prepare

log = logging.getLogger(__name__)

_EVERY_SECONDS: Final = 2.0


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


def wait_for(compute: Compute) -> None:
    """Asks for a processor for every worker, and waits until they are there.

    Args:
        compute: how many workers, whether each wants a GPU, and how long to wait.

    Raises:
        UsageError: they did not come.
    """
    kind = "GPU" if compute.gpu else "CPU"
    if _has(kind) >= compute.workers:
        return
    log.info("waiting for %d %ss, the cluster has %g", compute.workers, kind, _has(kind))
    request_resources(bundles=[{kind: 1}] * compute.workers)
    try:
        deadline = time.monotonic() + compute.wait
        while _has(kind) < compute.workers:
            if time.monotonic() > deadline:
                raise UsageError(
                    f"DISTILL_WORKERS={compute.workers}, but after {compute.wait:g} s the cluster "
                    f"has {_has(kind):g} {kind}s: take fewer workers, or raise what the cluster's "
                    "configuration lets it bring"
                )
            time.sleep(_EVERY_SECONDS)
    finally:
        # From here on the job itself holds them.
        request_resources(bundles=[])


def _has(kind: str) -> float:
    return float(ray.cluster_resources().get(kind, 0))
