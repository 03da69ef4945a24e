"""How a training would scale to many GPUs, on paper: which link of a machine is full first.

Figures that were measured come from elsewhere; those of machines are what their maker says. Nothing
here was run on a GPU. docs/scaling.md says what comes of it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

IMAGE_BYTES: Final = 4373
"""Of a shard for an image: 46,735,360 bytes of shards hold 10,688 images."""
VIEWS_PER_LOADER: Final = 4606.0
"""Images a second that one loader process prepares on one core, by ``make bench``."""
AHEAD: Final = 4
"""Batches that a machine prepares before they are needed."""


@dataclass(frozen=True)
class Cluster:
    """Machines of one kind, one worker on each GPU.

    Attributes:
        machines: how many.
        gpus: of each.
        loaders: loader processes of each GPU.
        bandwidth: bytes a second into a machine; as many go out at the same time.
    """

    machines: int
    gpus: int
    loaders: int
    bandwidth: float

    @property
    def workers(self) -> int:
        """GPUs of all machines."""
        return self.machines * self.gpus


@dataclass(frozen=True)
class Load:
    """A training.

    Attributes:
        gradient_bytes: of a step: four for each parameter.
        batch: images of a worker in a step.
    """

    gradient_bytes: int
    batch: int


def fetched_bytes(cluster: Cluster) -> float:
    """What a machine fetches from S3 for every image of one of its workers.

    A worker has a share of every batch, and a batch mixes the images of a window of shards: so each
    machine needs every shard, and fetches the images of all workers.
    """
    return IMAGE_BYTES * cluster.workers / cluster.gpus


def reduced_bytes(cluster: Cluster, load: Load) -> float:
    """What a machine takes in of others' gradients for every image of one of its workers.

    In a ring each machine takes in 2 (m - 1) / m times the gradient in a step, whatever its GPUs.
    """
    others = 2 * (cluster.machines - 1) / cluster.machines
    return others * load.gradient_bytes / (load.batch * cluster.gpus)


def limits(cluster: Cluster, load: Load) -> dict[str, float]:
    """Images a second of one worker at which each part of a machine alone would be full."""
    into = cluster.bandwidth / cluster.gpus
    reduced = reduced_bytes(cluster, load)
    return {
        "loaders": VIEWS_PER_LOADER * cluster.loaders,
        "shards from S3": into / fetched_bytes(cluster),
        "gradients": into / reduced if reduced else float("inf"),
    }


def rate(cluster: Cluster, load: Load) -> float:
    """Images a second of one worker, where shards and gradients share the machine's link."""
    network = cluster.bandwidth / (
        cluster.gpus * (fetched_bytes(cluster) + reduced_bytes(cluster, load))
    )
    return min(VIEWS_PER_LOADER * cluster.loaders, network)


def simulate(cluster: Cluster, load: Load, steps: int, jitter: float, seed: int = 0) -> float:
    """Images a second of one worker, counted by going through the steps one by one.

    Every machine fetches and prepares batches ahead, at a pace that varies; its link carries one
    thing at a time; and a step ends for all machines at once.

    Args:
        cluster: the machines.
        load: the training.
        steps: how many.
        jitter: how far the time for a batch varies, as a share of it.
        seed: of that.
    """
    chance = random.Random(seed)
    prepare = load.batch / (VIEWS_PER_LOADER * cluster.loaders)
    images = load.batch * cluster.gpus
    fetch = images * fetched_bytes(cluster) / cluster.bandwidth
    reduce = images * reduced_bytes(cluster, load) / cluster.bandwidth
    prepared: list[list[float]] = [[] for _ in range(cluster.machines)]
    free, now = [0.0] * cluster.machines, 0.0
    for step in range(steps):
        for machine, batches in enumerate(prepared):
            while len(batches) < step + AHEAD:
                free[machine] = max(free[machine], now) + fetch
                before = batches[-1] if batches else 0.0
                vary = 1 + chance.uniform(-jitter, jitter)
                batches.append(max(before, free[machine]) + prepare * vary)
        now = max(*free, *(batches[step] for batches in prepared)) + reduce
        free = [now] * cluster.machines
    return steps * load.batch / now
