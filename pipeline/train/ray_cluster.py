"""Joins a Ray cluster, or starts one on this machine."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

import ray
from ray.exceptions import AuthenticationError

from pipeline.compute import cores
from pipeline.errors import ClusterError, UsageError

WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
"""Ray's variable that says whether workers are told of machines about to go."""
_ADVICE: Final = (
    "put the cluster's own into ~/.ray/auth_token (mode 0600) or RAY_AUTH_TOKEN, with "
    "RAY_AUTH_MODE=token; docs/cluster.md says where each kind of cluster keeps it"
)


def connect() -> None:
    """Joins the cluster at RAY_ADDRESS, or starts a local one that ends with this process.

    Raises:
        UsageError: the cluster refuses the token.
        ClusterError: no cluster answers there.
    """
    if ray.is_initialized():
        return
    if address := os.environ.get("RAY_ADDRESS"):
        environment = {"env_vars": _for_workers()}
        try:
            ray.init(address, runtime_env=environment, logging_level=logging.WARNING)
        except AuthenticationError as error:
            raise UsageError(refused(address)) from error
        except ConnectionError as error:
            raise ClusterError(
                f"no cluster answers at {address} (from RAY_ADDRESS), or it refuses the token "
                f"({error}): check that it runs; {_ADVICE}"
            ) from error
    else:
        start()


def refused(address: str) -> str:
    """What to do about a cluster that refuses the token, or wants one."""
    return f"the cluster at {address} refuses the token: {_ADVICE}"


def machines() -> list[dict[str, float]]:
    """What Ray counts on each machine of the cluster that is up."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def start(*, show_workers: bool = True) -> str:
    """Starts Ray on this machine, until this process ends.

    Args:
        show_workers: whether what workers log is shown here.

    Returns:
        The address to join it at.
    """
    os.environ.update(_for_workers())
    # One machine is not warned before it goes; the watcher would cost a process.
    os.environ.setdefault(WATCHER, "0")
    # Workers started beforehand fit no job of Ray Train: each of its actors has an environment.
    os.environ.setdefault("RAY_enable_worker_prestart", "0")
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    context = ray.init(
        # Without it Ray would join whatever `ray start` began on this machine, or fail.
        "local",
        num_cpus=cores(),
        # Ray Train asks its server whether a job's controller lives; it listens on loopback.
        include_dashboard=True,
        logging_level=logging.WARNING,
        log_to_driver=show_workers,
    )
    return str(context.address_info["gcs_address"])


def _for_workers() -> dict[str, str]:
    """What other processes need to import this package, and to share cores, as this one does."""
    top, known = str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")
    return {
        "PYTHONPATH": os.pathsep.join([top, known] if known else [top]),
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }
