"""A teacher on every worker of a Ray cluster, each asked about one shard after another."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import ray
from ray.exceptions import RayActorError
from ray.util import ActorPool

from pipeline.compute import Compute
from pipeline.distill.store import Logits
from pipeline.errors import DistillError, TransientError
from pipeline.train import ray_cluster
from pipeline.train.job import Job
from pipeline.train.placement import place

if TYPE_CHECKING:
    from pipeline.train.answers import Answerer


class _Asked:
    """One worker. It is made anew where it died, and asked again."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._answerer: Answerer | None = None

    def answers(self, shard: int) -> tuple[int, Logits | DistillError]:
        """The shard and its logits.

        An error of ours is an answer too: Ray would put its trace into the message.
        """
        # Seconds to import, and only a worker needs them.
        import torch  # noqa: PLC0415

        from pipeline.train.answers import Answerer  # noqa: PLC0415

        try:
            if self._answerer is None:
                # A machine's GPU that Ray has not given to this worker is another's.
                device = None if ray.get_gpu_ids() else torch.device("cpu")
                self._answerer = Answerer(Job.model_validate_json(self._job), device)
            return shard, self._answerer.answers(shard)
        except DistillError as error:
            return shard, error


def answers_on_ray(
    job: Job, shards: Sequence[int], compute: Compute
) -> Iterator[tuple[int, Logits]]:
    """Asks about shards on all workers, and yields the answers as they come.

    After an error nothing more is asked; what other workers are at is waited for and yielded
    before it is raised.

    Args:
        job: of the run that is asked.
        shards: numbers within the training split.
        compute: workers, threads, restarts.

    Raises:
        UsageError: there is room for too few workers.
        DistillError: what a worker met.
        TransientError: a worker died more often than ``compute.failures`` allows.
    """
    ray_cluster.connect()
    workers = min(compute.workers, len(shards))
    # Views are made in the worker itself.
    asking = compute.model_copy(update={"workers": workers, "min_workers": None, "loaders": 0})
    share = place(asking, ray_cluster.machines()).share
    asked = ray.remote(_Asked).options(
        num_cpus=share["CPU"],
        num_gpus=share.get("GPU", 0),
        max_restarts=compute.failures,
        max_task_retries=compute.failures,
        scheduling_strategy="SPREAD",
    )
    pool = ActorPool([asked.remote(job.model_dump_json()) for _ in range(workers)])
    waiting = deque(shards)
    failure: DistillError | None = None
    while True:
        while waiting and failure is None and pool.has_free():
            pool.submit(lambda worker, one: worker.answers.remote(one), waiting.popleft())
        if not pool.has_next():
            break
        said: Logits | DistillError
        try:
            shard, said = pool.get_next_unordered()
        except RayActorError as error:
            said = TransientError(
                f"a worker that asks {job.run.name} died too often ({error}): run the same command "
                "again, what is done is kept"
            )
        if isinstance(said, DistillError):
            failure = failure or said
        else:
            yield shard, said
    if failure:
        raise failure
