"""What a failed Ray Train job means: by types, never by what a message says."""

from __future__ import annotations

import pytest
from ray.exceptions import ActorDiedError, RayTaskError
from ray.train import ControllerError, TrainingFailedError, WorkerGroupError
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError

from pipeline.errors import DataError, DistillError, StorageError, TrainingError, TransientError
from pipeline.train.failures import Outage, error_of_job

PEER = RuntimeError("Connection closed by peer")


def workers(*failures: Exception) -> WorkerGroupError:
    return WorkerGroupError("told", dict(enumerate(failures)))


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (workers(ActorDiedError()), TransientError),
        (workers(PEER, ActorDiedError()), TransientError),
        (ControllerError(WorkerGroupStartupTimeoutError(2)), TransientError),
        (TrainingFailedError("told"), TransientError),
        (workers(KeyError("x")), TrainingError),
        (workers(RayTaskError("_work", "told", KeyError("x"))), TrainingError),
        (workers(OSError("AWS Error NETWORK_CONNECTION")), StorageError),
        (workers(FileNotFoundError(2, "no such file")), TrainingError),
        (workers(PEER, DataError("ours")), DataError),
        (ControllerError(DataError("ours")), DataError),
    ],
)
def test_the_type_says_whether_a_retry_may_heal(
    error: TrainingFailedError, kind: type[DistillError]
) -> None:
    assert type(error_of_job("student-1", error)) is kind


def test_patience_is_counted_over_attempts_in_a_row() -> None:
    outage = Outage(patience=10)
    assert not outage.over(began=100, now=101)
    assert not outage.over(began=106, now=107)
    assert outage.over(began=112, now=112)


def test_a_second_outage_gets_patience_of_its_own() -> None:
    outage = Outage(patience=10)
    assert not outage.over(began=0, now=1)
    assert not outage.over(began=6, now=60), "it trained for 54 seconds in between"
    assert not outage.over(began=65, now=66)
