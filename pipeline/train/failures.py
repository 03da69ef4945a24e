"""What a failed Ray Train job means: ours, something lost, or a storage that is away."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import ray.train
from ray.exceptions import RayError, RayTaskError
from ray.train.v2._internal.exceptions import RayTrainError

from pipeline.errors import DistillError, StorageError, TrainingError, TransientError


def error_of_job(name: str, error: ray.train.TrainingFailedError) -> DistillError:
    """The error to raise for a failed job.

    Our own error, where a worker raised one; otherwise by what failed: its storage, a worker or
    node that was lost, or code that raised what is none of ours.
    """
    if own := own_error(error):
        return own
    failures = [
        *getattr(error, "worker_failures", {}).values(),
        *filter(None, [getattr(error, "controller_failure", None)]),
    ]
    kind: type[DistillError] = TrainingError
    if any(map(is_of_storage, failures)):
        kind = StorageError
    # Where one worker is lost, others raise whatever their broken connections make of it.
    elif not failures or any(map(_is_lost, failures)):
        kind = TransientError
    return kind(f"the Ray job {name} failed: {error}")


def own_error(error: BaseException | None) -> DistillError | None:
    """Our own error behind Ray's, if there is one."""
    if error is None or isinstance(error, DistillError):
        return error
    behind = [
        *getattr(error, "worker_failures", {}).values(),
        *(getattr(error, name, None) for name in ("controller_failure", "cause", "__cause__")),
    ]
    return next((found for found in map(own_error, behind) if found), None)


def _is_lost(failure: Any) -> bool:
    """Whether Ray speaks for itself, and not for code that raised something.

    What a worker raised, it hands on as it is.
    """
    of_ray = isinstance(failure, RayError | RayTrainError)
    return of_ray and not isinstance(failure, RayTaskError)


def is_of_storage(failure: Any) -> bool:
    """Whether S3 failed under a checkpoint: pyarrow raises that with no number of this system."""
    return isinstance(failure, OSError) and failure.errno is None


@dataclass
class Outage:
    """How long a storage has been away, over attempts that each end by it.

    Attributes:
        patience: the most seconds.
    """

    patience: float
    _since: float | None = None

    def over(self, began: float, now: float | None = None) -> bool:
        """Whether patience is at its end, after an attempt.

        Args:
            began: when the attempt began, by the monotonic clock, in seconds.
            now: when it ended; null is now.
        """
        now = time.monotonic() if now is None else now
        # An attempt that lasted for so long had its storage in between.
        if self._since is None or now - began > self.patience:
            self._since = now
        return now - self._since > self.patience
