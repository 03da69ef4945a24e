"""The deployment on a cluster: its stages train in a Ray that was there before. Minutes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import UUID

import psutil
import pytest
from clustered import jobs
from head import Head
from serving import Served, serve, until

pytestmark = [pytest.mark.slow, pytest.mark.long]

LONG: dict[str, Any] = {"training.epochs": 4000}


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """With more cores than there are: two trainings find room at once."""
    with Head(cpus=8) as started:
        yield started


@pytest.fixture(scope="module")
def served(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": head.token,
        "DISTILL_WORKERS": "1",
    }
    with serve(tmp_path_factory.mktemp("cluster") / "project", environment) as started:
        yield started


def training(head: Head) -> int:
    """How many workers train in the cluster."""
    count = 0
    for process in psutil.process_iter(["cmdline"]):
        if "RayTrainWorker" in " ".join(process.info["cmdline"] or []):
            # It may just have ended.
            with suppress(psutil.NoSuchProcess):
                count += str(head.home) in " ".join(process.parent().cmdline())
    return count


def test_stages_train_in_the_cluster_that_is_named(served: Served, head: Head) -> None:
    run = served.submit("cluster", cluster=head.node)
    assert served.ended(run, "Completed", "Failed").state_name == "Completed", served.log(run)
    assert set(served.tasks(run)) > {"pull", "shards", "student-alone", "report", "push"}
    (worker,) = set(re.findall(r"\(RayTrainWorker pid=(\d+)[,)]", served.log(run)))
    assert list(head.logs.glob(f"worker-*-{worker}.*")), "it was a process of this cluster"
    assert list((served.project / ".dvc/remote").rglob("*")), "the results were pushed"


def test_two_trainings_at_once_and_a_cancelled_one_leaves_ray(served: Served, head: Head) -> None:
    def start(seed: int) -> UUID:
        asked: dict[str, Any] = {"cluster": head.node, "push": False}
        return served.submit("cluster", overrides={**LONG, "seed": seed}, **asked)

    def trains(run: UUID) -> None:
        until(lambda: served.progress(run, "student-alone") > 0, lambda: served.log(run))

    def cancel(run: UUID, left: int) -> None:
        served.cancel(run)
        until(lambda: training(head) == left, lambda: served.log(run), seconds=15)
        assert served.ended(run, "Cancelled", "Failed", "Crashed").state_name == "Cancelled"

    first, second = start(1), start(2)
    trains(first)
    trains(second)
    assert training(head) == 2
    cancel(first, left=1)
    cancel(second, left=0)
    assert jobs(head) == [], "the cluster still answers: it is not the run's to end"
