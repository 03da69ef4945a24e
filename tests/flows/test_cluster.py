"""The deployment on a cluster: its stages train in a Ray that was there before. Minutes."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from commands import descendants, runs
from serving import Served, serve, until

from cluster.ports import HOST, ports_for

pytestmark = [pytest.mark.slow, pytest.mark.long]

LONG: dict[str, Any] = {"training.epochs": 4000}


@dataclass(frozen=True)
class Ray:
    """A cluster of one node, and what it takes to join it."""

    folder: Path
    process: subprocess.Popen[bytes]
    address: str
    environment: dict[str, str]

    def training(self) -> list[int]:
        """The workers that train in it."""
        return [
            pid
            for pid, command in descendants(self.process.pid).items()
            if "RayTrainWorker" in command and runs(pid)
        ]

    def log(self, pid: int) -> list[Path]:
        """What a worker said, as far as it was one of this cluster's."""
        return sorted(self.folder.glob(f"session_latest/logs/worker-*-{pid}.*"))


@pytest.fixture(scope="module")
def ray() -> Iterator[Ray]:
    """Ray on loopback, with more cores than there are: two trainings find room at once."""
    ports = ports_for(("gcs", "dashboard", "client"))
    environment = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    # Ray's sockets lie below it, whose paths are short.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder:
        with (Path(folder) / "out.txt").open("wb") as out:
            process = subprocess.Popen(
                [
                    *(Path(sys.executable).with_name("ray"), "start", "--head", "--block"),
                    *(f"--node-ip-address={HOST}", f"--port={ports['gcs']}", "--num-cpus=8"),
                    *(f"--dashboard-host={HOST}", f"--dashboard-port={ports['dashboard']}"),
                    *(f"--ray-client-server-port={ports['client']}", f"--temp-dir={folder}/ray"),
                    # Any that are free, instead of a range that the others may lie in.
                    *(
                        "--min-worker-port=0",
                        "--max-worker-port=0",
                        "--dashboard-agent-listen-port=0",
                    ),
                ],
                env={**os.environ, **environment},
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        said = Path(folder) / "out.txt"
        try:
            until(lambda: "Ray runtime started" in said.read_text(), said.read_text)
            address = f"{HOST}:{ports['gcs']}"
            yield Ray(Path(folder) / "ray", process, address, environment)
        finally:
            everything = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            _, left = psutil.wait_procs(everything, timeout=20)
            for one in left:
                one.kill()
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def served(ray: Ray, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    environment = {**ray.environment, "DISTILL_WORKERS": "1"}
    with serve(tmp_path_factory.mktemp("cluster") / "project", environment) as started:
        yield started


def test_stages_train_in_the_cluster_that_is_named(served: Served, ray: Ray) -> None:
    run = served.submit("cluster", cluster=ray.address)
    assert served.ended(run, "Completed", "Failed").state_name == "Completed", served.log(run)
    assert set(served.tasks(run)) > {"pull", "shards", "student-alone", "report", "push"}
    (worker,) = set(re.findall(r"\(RayTrainWorker pid=(\d+)[,)]", served.log(run)))
    assert ray.log(int(worker)), "it was a process of this cluster"
    assert list((served.project / ".dvc/remote").rglob("*")), "the results were pushed"


def test_two_trainings_at_once_and_a_cancelled_one_leaves_ray(served: Served, ray: Ray) -> None:
    def start(seed: int) -> UUID:
        asked: dict[str, Any] = {"cluster": ray.address, "push": False}
        return served.submit("cluster", overrides={**LONG, "seed": seed}, **asked)

    def trains(run: UUID) -> None:
        until(lambda: served.progress(run, "student-alone") > 0, lambda: served.log(run))

    def cancel(run: UUID, left: int) -> None:
        served.cancel(run)
        until(lambda: len(ray.training()) == left, lambda: served.log(run), seconds=15)
        assert served.ended(run, "Cancelled", "Failed", "Crashed").state_name == "Cancelled"

    first, second = start(1), start(2)
    trains(first)
    trains(second)
    assert len(ray.training()) == 2
    cancel(first, left=1)
    cancel(second, left=0)
    assert ray.process.poll() is None, "the cluster is not the run's to end"
