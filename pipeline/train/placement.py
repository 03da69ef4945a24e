"""What one worker takes of a machine, and how many workers a cluster's machines have room for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.compute import Compute
from pipeline.errors import UsageError

MOST_LOADERS = 8
"""Loader processes that a worker beside a GPU starts by itself."""


@dataclass(frozen=True)
class Placement:
    """Where a job's workers fit.

    Attributes:
        gpu: whether each has a GPU of its own.
        share: what a worker takes of its machine, as Ray counts it.
        loaders: loader processes of a worker.
    """

    gpu: bool
    share: Mapping[str, float]
    loaders: int


def share_of(compute: Compute, *, gpu: bool | None, loaders: int) -> dict[str, float]:
    """What a worker takes of its machine.

    Beside a GPU a core each for the worker and its loader processes. Without one the worker's
    threads, which its loader processes share.
    """
    return {"GPU": 1, "CPU": 1 + loaders} if gpu else {"CPU": compute.worker_threads}


def room_for(share: Mapping[str, float], machines: Iterable[Mapping[str, float]]) -> int:
    """How many workers of this share fit on the machines, each given as what Ray counts on it."""
    # Ray counts in ten-thousandths, of which five times 0.2 are just one.
    taken = {kind: round(10_000 * amount) for kind, amount in share.items()}
    return sum(
        min(round(10_000 * machine.get(kind, 0)) // amount for kind, amount in taken.items())
        for machine in machines
    )


def place(compute: Compute, machines: Sequence[Mapping[str, float]]) -> Placement:
    """Places a job's workers on a cluster: on its GPUs, where it has some, unless told.

    Args:
        compute: workers, threads, loader processes and GPUs that are wanted.
        machines: what Ray counts on each machine that is up.

    Raises:
        UsageError: there is room for too few workers.
    """
    with_gpu = [machine for machine in machines if machine.get("GPU", 0) >= 1]
    gpu = bool(with_gpu) if compute.gpu is None else compute.gpu
    loaders = compute.loader_processes
    if gpu and with_gpu and compute.loaders is None:
        cores = min(int(machine.get("CPU", 0) // machine["GPU"]) for machine in with_gpu)
        loaders = max(0, min(MOST_LOADERS, cores - 1))
    share = share_of(compute, gpu=gpu, loaders=loaders)
    room = room_for(share, machines)
    if room < compute.least_workers:
        raise UsageError(too_few(compute, share, f"Ray has room for {room}"))
    return Placement(gpu, share, loaders)


def too_few(compute: Compute, share: Mapping[str, float], found: str) -> str:
    """A message for whoever asked for more workers than there is room for."""
    takes = " and ".join(f"{amount:g} {kind}" for kind, amount in share.items())
    fewest = "" if compute.min_workers is None else f" (at least {compute.min_workers})"
    otherwise = ", or set DISTILL_GPU=0 to leave GPUs alone" if "GPU" in share else ""
    return (
        f"DISTILL_WORKERS={compute.workers}{fewest}, but {found}: each takes {takes} of one "
        "machine; take fewer workers, DISTILL_THREADS or DISTILL_LOADERS, or add machines"
        f"{otherwise}"
    )
