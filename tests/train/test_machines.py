"""A Ray Train job over machines that come and go, each a node of a real cluster on this one."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
from commands import descendants, run, start, wait_until, write_project
from head import free_ports
from ray.cluster_utils import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.long]

COMMAND = ("train", "student-alone")
SETTINGS: dict[str, Any] = {
    "training": {"epochs": 60, "batch_size": 10, "ema": 0.9, "lr": 0.02},
    "models": {"student": {"network": {"architecture": "cnn", "channels": [8, 12]}}},
}


@contextmanager
def machines(count: int, patch: pytest.MonkeyPatch, **each: int) -> Iterator[Cluster]:
    """A head without room for workers, and machines on which Ray counts what is given."""
    patch.setenv("RAY_AUTH_MODE", "disabled")
    (port,) = free_ports(1)
    head = {"num_cpus": 0, "include_dashboard": True, "dashboard_port": port}
    made = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(count):
            made.add_node(**each)
        made.wait_for_nodes()
        patch.setenv("RAY_ADDRESS", made.address)
        yield made
    finally:
        made.shutdown()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Three machines with room for one worker each."""
    with machines(3, monkeypatch, num_cpus=1) as made:
        yield made


def weights(project: Path) -> bytes:
    return (project / "models/student-alone/model.safetensors").read_bytes()


def said(project: Path) -> str:
    return (project / "out.txt").read_text()


def has_checkpoint(project: Path) -> bool:
    known = (project / ".checkpoints").glob("student-alone-*/checkpoint_manager_snapshot.json")
    return any("checkpoint_20" in path.read_text() for path in known)


def machine_of_a_worker(cluster: Cluster) -> Any:
    """A machine that a worker is on."""

    def has_worker(node: Any) -> bool:
        (raylet,) = node.all_processes["raylet"]
        started = descendants(raylet.process.pid).values()
        return any("RayTrainWorker" in command for command in started)

    return next(node for node in cluster.worker_nodes if has_worker(node))


def test_a_notice_that_a_machine_will_go_leads_to_a_checkpoint(
    cluster: Cluster, tmp_path: Path
) -> None:
    undisturbed = write_project(tmp_path / "undisturbed", **SETTINGS)
    done = run(undisturbed, *COMMAND, workers=2)
    assert done.returncode == 0, done.stderr
    project = write_project(tmp_path / "project", **SETTINGS)
    process = start(project, *COMMAND, workers=2)
    try:
        wait_until(lambda: has_checkpoint(project), process)
        node = machine_of_a_worker(cluster)
        subprocess.run(
            [
                *("ray", "drain-node", "--address", cluster.address, "--node-id", node.node_id),
                *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"),
                *("--deadline-remaining-seconds", "20"),
            ],
            check=True,
            timeout=60,
        )
        wait_until(lambda: "is about to go: a checkpoint is kept" in said(project), process)
        cluster.remove_node(node, allow_graceful=False)
        assert process.wait(timeout=240) == 0, said(project)
    finally:
        process.kill()
        process.wait()
    assert "goes on from epoch" in said(project)
    assert weights(project) == weights(undisturbed)


def test_a_machine_that_leaves_does_not_end_a_job_that_may_have_fewer_workers(
    cluster: Cluster, tmp_path: Path
) -> None:
    project = write_project(tmp_path / "project", **SETTINGS)
    process = start(project, *COMMAND, workers=3, min_workers=1)
    try:
        wait_until(lambda: has_checkpoint(project), process)
        cluster.remove_node(machine_of_a_worker(cluster), allow_graceful=False)
        assert process.wait(timeout=240) == 0, said(project)
    finally:
        process.kill()
        process.wait()
    workers = re.findall(r"worker 1 of (\d)", said(project))
    assert workers[0] == "3"
    assert workers[-1] in {"1", "2"}
    assert "goes on from epoch" in said(project)


def test_a_machine_that_joins_is_used_at_a_restart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray counts machines every 20 seconds, and a restart goes by its last count."""
    training = {**SETTINGS["training"], "epochs": 300}
    project = write_project(tmp_path / "project", **{**SETTINGS, "training": training})

    def sizes() -> list[str]:
        return re.findall(r"worker 1 of (\d)", said(project))

    def started(times: int) -> bool:
        return len(sizes()) >= times

    with machines(2, monkeypatch, num_cpus=1) as cluster:
        process = start(project, *COMMAND, workers=3, min_workers=1, failures=30)
        try:
            wait_until(lambda: has_checkpoint(project), process)
            cluster.add_node(num_cpus=1)
            cluster.wait_for_nodes()
            assert sizes() == ["2"], "a run that goes on is left alone"
            while sizes()[-1] == "2":
                again = len(sizes()) + 1
                (raylet,) = machine_of_a_worker(cluster).all_processes["raylet"]
                found = descendants(raylet.process.pid).items()
                os.kill(next(pid for pid, name in found if "RayTrainWorker" in name), SIGKILL)
                wait_until(partial(started, again), process)
            assert process.wait(timeout=240) == 0, said(project)
        finally:
            process.kill()
            process.wait()
    assert sizes()[-1] == "3"
    assert "goes on from epoch" in said(project)


def test_workers_have_a_gpu_each_and_speak_nccl(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Ray counts GPUs here that are not there: NCCL is where such a job ends."""
    project = write_project(tmp_path / "project", **SETTINGS)
    with machines(2, monkeypatch, num_cpus=2, num_gpus=1):
        refused = run(project, *COMMAND, workers=3)
        assert refused.returncode == 2
        assert "Ray has room for 2" in refused.stderr
        assert "each takes 1 GPU and" in refused.stderr
        beside = run(project, *COMMAND, workers=3, threads=1, gpu=0)
        assert beside.returncode == 0, beside.stderr
        assert "worker 1 of 3, on cpu" in beside.stdout + beside.stderr
        project = write_project(tmp_path / "other", **SETTINGS)
        placed = run(project, *COMMAND, workers=2)
        assert placed.returncode == 1
        assert "ProcessGroupNCCL is only supported with GPUs" in placed.stderr
