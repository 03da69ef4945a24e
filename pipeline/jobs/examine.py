"""What every machine of a cluster has, before a run on it is paid for."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Final

import ray
from botocore.exceptions import BotoCoreError, ClientError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import machine, s3
from pipeline.compute import Compute
from pipeline.jobs.cluster import join
from pipeline.jobs.where import storage_of
from pipeline.jobs.worker import take_keys
from pipeline.machine import Check

log = logging.getLogger(__name__)

_PROBE_BYTES: Final = 32 * 2**20
_PATIENCE_SECONDS: Final = 120.0


def examine_cluster(compute: Compute, job: str) -> list[Check]:
    """Looks at every machine of the cluster that this job is on, one after another.

    Args:
        compute: storage and stream are in S3.
        job: its submission id.

    Returns:
        Checks whose names begin with a machine's address.

    Raises:
        UsageError: a setting is missing.
    """
    take_keys()
    storage = storage_of(compute)
    join({})
    nodes = ray.nodes()
    alive = sorted(
        (str(node["NodeManagerAddress"]), str(node["NodeID"])) for node in nodes if node["Alive"]
    )
    left = {str(node["NodeManagerAddress"]) for node in nodes} - {address for address, _ in alive}
    # An autoscaler takes machines away as it should: that one has left is no fault.
    found = [
        Check(
            name=f"{address} ray",
            ok=True,
            detail="has left the cluster",
            advice="start its Ray again if it should be there",
        )
        for address in sorted(left)
    ]
    for address, node in alive:
        log.info("looking at %s", address)
        found += _looked_at(address, node, f"{storage}/jobs/{job}/probe-{node[:12]}")
    return found


def _looked_at(address: str, node: str, uri: str) -> list[Check]:
    where = NodeAffinitySchedulingStrategy(node, soft=False)
    task = ray.remote(_look).options(num_cpus=0, scheduling_strategy=where).remote(uri)
    try:
        checks: list[Check] = ray.get(task, timeout=_PATIENCE_SECONDS)
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[-1] or type(error).__name__
        fault = Check(
            name="ray",
            ok=False,
            detail=f"nothing can be run there: {reason}",
            advice="see its logs on the dashboard: the image, the lock, its way to the head",
        )
        checks = [fault]
    return [check.model_copy(update={"name": f"{address} {check.name}"}) for check in checks]


def _look(uri: str) -> list[Check]:
    """Looks at the machine that Ray runs this on."""
    own = machine.examine(Path())
    ray_check = Check(name="ray", ok=True, detail=f"{ray.__version__}, host {os.uname().nodename}")
    return [ray_check, *own, _s3(uri)]


def _s3(uri: str) -> Check:
    """Puts an object into S3, gets it back and removes it."""
    bucket, key = s3.parse(uri)
    client = s3.client(attempts=2)
    try:
        began = time.perf_counter()
        client.put_object(Bucket=bucket, Key=key, Body=os.urandom(_PROBE_BYTES))
        put = time.perf_counter()
        client.get_object(Bucket=bucket, Key=key)["Body"].read()
        got = time.perf_counter()
        client.delete_object(Bucket=bucket, Key=key)
    except (BotoCoreError, ClientError) as error:
        detail, _, advice = str(s3.explained(error, uri)).rpartition(": ")
        return Check(name="s3", ok=False, detail=detail, advice=advice)
    up, down = (_PROBE_BYTES / 1e6 / seconds for seconds in (put - began, got - put))
    detail = f"bucket {bucket} at {s3.endpoint()}: {down:.0f} MB/s from it, {up:.0f} MB/s to it"
    return Check(name="s3", ok=True, detail=detail)
