"""What every machine of a cluster has, before a run on it is paid for."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ray
import torch
from botocore.exceptions import BotoCoreError, ClientError
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import machine, s3
from pipeline.compute import Compute
from pipeline.data.revision import locate
from pipeline.data.stream import open_object
from pipeline.errors import DistillError, UsageError
from pipeline.jobs.cluster import join, wait_for
from pipeline.jobs.where import storage_of
from pipeline.jobs.worker import take_keys
from pipeline.machine import Check
from pipeline.train import ray_cluster
from pipeline.train.placement import room_for, share_of
from pipeline.train.run import SHARDS

log = logging.getLogger(__name__)

_PROBE_BYTES: Final = 32 * 2**20
_PATIENCE_SECONDS: Final = 120.0
_READ_SECONDS: Final = 30.0


def examine_cluster(compute: Compute, job: str, *, wait: bool) -> list[Check]:
    """Looks at every machine of the cluster that this job is on, at all of them at once.

    Args:
        compute: storage and stream are in S3.
        job: its submission id.
        wait: whether machines for all workers are waited for first, as a run does it.

    Returns:
        Checks whose names begin with a machine's address, after those of the cluster.

    Raises:
        UsageError: a setting is missing.
    """
    take_keys()
    storage = storage_of(compute)
    join({})
    if wait:
        try:
            wait_for(compute)
        except UsageError as error:
            log.warning("%s", error)
    shards = _shards(compute)
    return [
        _room(compute, wait),
        shards.check,
        *_machines(f"{storage}/jobs/{job}", compute, shards.first),
    ]


@dataclass(frozen=True)
class _Shards:
    """What is found of the shards, and the address of the first of them."""

    check: Check
    first: str | None


def _shards(compute: Compute) -> _Shards:
    try:
        found = locate(SHARDS, None, str(compute.stream), compute.patience)
    except DistillError as error:
        return _Shards(_fault("shards", error), None)
    detail = f"{len(found.objects)} in the DVC remote {compute.stream}"
    first = found.objects[found.index.shards[0].name]
    return _Shards(Check(name="shards", ok=True, detail=detail), first)


def _room(compute: Compute, waited: bool) -> Check:
    """For how many workers there is room: too few are a fault where they were waited for."""
    share = share_of(compute, gpu=compute.gpu, loaders=compute.loaders or 0)
    room = room_for(share, ray_cluster.machines())
    advice = (
        "add machines, or take fewer workers"
        if waited
        else "what a run would have brought is not looked at: doctor --cluster --wait waits for it"
    )
    return Check(
        name="workers",
        ok=not waited or room >= compute.least_workers,
        detail=f"room for {room} of the {compute.workers} workers that are wanted",
        advice="" if room >= compute.workers else advice,
    )


def _fault(name: str, error: DistillError) -> Check:
    """A check that failed; the last part of an error says what to do."""
    detail, _, advice = str(error).rpartition(": ")
    return Check(name=name, ok=False, detail=detail, advice=advice)


def _machines(uri: str, compute: Compute, shard: str | None) -> list[Check]:
    nodes = sorted(ray.nodes(), key=lambda node: str(node["NodeManagerAddress"]))
    alive = [node for node in nodes if node["Alive"]]
    addresses = {str(node["NodeManagerAddress"]) for node in alive}
    left = {str(node["NodeManagerAddress"]) for node in nodes} - addresses
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
    log.info("looking at %s", ", ".join(sorted(addresses)))
    looking = [
        ray.remote(_look)
        .options(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], False)
        )
        .remote(f"{uri}/probe-{node['NodeID'][:12]}", compute.cache, shard, node["Resources"])
        for node in alive
    ]
    deadline = time.monotonic() + _PATIENCE_SECONDS
    for node, task in zip(alive, looking, strict=True):
        try:
            checks: list[Check] = ray.get(task, timeout=max(0, deadline - time.monotonic()))
        except RayError as error:
            reason = str(error).strip().splitlines()[-1] or type(error).__name__
            fault = Check(
                name="ray",
                ok=False,
                detail=f"nothing can be run there: {reason}",
                advice="see its logs on the dashboard: the image, the lock, its way to the head",
            )
            checks = [fault]
        address = node["NodeManagerAddress"]
        found += [check.model_copy(update={"name": f"{address} {check.name}"}) for check in checks]
    return found


def _look(uri: str, cache: str, shard: str | None, counted: Mapping[str, float]) -> list[Check]:
    """Looks at the machine that Ray runs this on.

    Args:
        uri: of an object that may be written to S3.
        cache: the folder that shards would be kept in.
        shard: the address of one.
        counted: what Ray counts here.
    """
    # Ray hides all GPUs from who takes none.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    own = machine.examine(Path(), store=int(counted.get("object_store_memory", 0)))
    ray_check = Check(name="ray", ok=True, detail=f"{ray.__version__}, host {os.uname().nodename}")
    return [
        ray_check,
        *own,
        *_gpus(counted.get("GPU", 0)),
        _cache(Path(cache).expanduser()),
        _s3(uri),
        *_read(shard),
    ]


def _gpus(counted: float) -> Iterator[Check]:
    seen = torch.cuda.device_count()
    if seen < counted:
        yield Check(
            name="gpus",
            ok=False,
            detail=f"Ray counts {counted:g} here, PyTorch sees {seen}",
            advice="see the driver, and that the container is given the GPUs",
        )


def _cache(folder: Path) -> Check:
    """Whether shards can be kept in a folder, which is made as a training would make it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free / 2**30
    except OSError as error:
        advice = f"set DISTILL_CACHE to a folder that uid {os.getuid()} may write to"
        return Check(name="cache", ok=False, detail=f"{folder}: {error.strerror}", advice=advice)
    return Check(name="cache", ok=True, detail=f"{folder}, {free:.1f} GiB free")


def _read(shard: str | None) -> Iterator[Check]:
    """Reads a shard, if there is one to read, as a training would."""
    if shard is None:
        return
    try:
        began = time.perf_counter()
        with open_object(shard, patience=_READ_SECONDS) as source:
            size = len(source.read())
    except DistillError as error:
        yield _fault("shards", error)
        return
    rate = size / 1e6 / (time.perf_counter() - began)
    yield Check(name="shards", ok=True, detail=f"{rate:.0f} MB/s from the DVC remote's bucket")


def _s3(uri: str) -> Check:
    """Puts an object into S3, gets it back and removes it."""
    bucket, key = s3.parse(uri)
    client = s3.client(attempts=2)
    try:
        began = time.perf_counter()
        client.put_object(Bucket=bucket, Key=key, Body=os.urandom(_PROBE_BYTES))
        try:
            put = time.perf_counter()
            client.get_object(Bucket=bucket, Key=key)["Body"].read()
            got = time.perf_counter()
        finally:
            client.delete_object(Bucket=bucket, Key=key)
    except (BotoCoreError, ClientError) as error:
        return _fault("s3", s3.explained(error, uri))
    up, down = (_PROBE_BYTES / 1e6 / seconds for seconds in (put - began, got - put))
    detail = f"bucket {bucket} at {s3.endpoint()}: {down:.0f} MB/s from it, {up:.0f} MB/s to it"
    return Check(name="s3", ok=True, detail=detail)
