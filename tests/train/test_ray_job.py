"""The same training as a Ray Train job, with real Ray: what dies is started again."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from commands import descendants, kill_training, run, start, wait_until, write_project

from pipeline.failure import Failure

pytestmark = pytest.mark.slow

COMMAND = ("train", "student-alone")
SETTINGS: dict[str, Any] = {
    "training": {"epochs": 8, "batch_size": 10, "ema": 0.9, "mixup": 0.3, "lr": 0.02},
    "models": {
        "student": {"network": {"architecture": "cnn", "channels": [8, 12], "dropout": 0.4}}
    },
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of an undisturbed training without Ray."""
    project = write_project(tmp_path_factory.mktemp("undisturbed"), **SETTINGS)
    done = run(project, *COMMAND)
    assert done.returncode == 0, done.stderr
    return weights(project)


def weights(project: Path) -> bytes:
    return (project / "models/student-alone/model.safetensors").read_bytes()


def has_checkpoint(project: Path) -> bool:
    """Whether the job knows of one: its controller hears of them some time after they are kept."""
    known = (project / ".checkpoints").glob("student-alone-*/checkpoint_manager_snapshot.json")
    return any("checkpoint_20" in path.read_text() for path in known)


def training_workers(process: subprocess.Popen[bytes]) -> list[int]:
    return [pid for pid, command in descendants(process.pid).items() if "RayTrainWorker" in command]


def test_a_killed_worker_is_replaced_and_the_job_ends_the_same(
    tmp_path: Path, expected: bytes
) -> None:
    project = write_project(tmp_path / "project", **SETTINGS)
    process = start(project, *COMMAND, workers=1, checkpoint_steps=2)
    try:
        wait_until(lambda: has_checkpoint(project), process)
        (worker,) = training_workers(process)
        os.kill(worker, signal.SIGKILL)
        assert process.wait(timeout=150) == 0, (project / "out.txt").read_text()
    finally:
        process.kill()
        process.wait()
    assert "goes on from epoch" in (project / "out.txt").read_text()
    assert weights(project) == expected


@pytest.mark.parametrize("half_written", [False, True])
def test_a_killed_driver_goes_on_when_run_again(
    tmp_path: Path, expected: bytes, half_written: bool
) -> None:
    project = write_project(tmp_path / "project", **SETTINGS)
    process = start(project, *COMMAND, workers=1, checkpoint_steps=2)
    try:
        wait_until(lambda: has_checkpoint(project), process)
    finally:
        kill_training(process)
    assert not (project / "models").exists()
    if half_written:
        # What the kill does where it meets Ray writing its list of checkpoints.
        (listed,) = (project / ".checkpoints").glob("*/checkpoint_manager_snapshot.json")
        listed.write_bytes(listed.read_bytes()[:20])
    again = run(project, *COMMAND, workers=1, checkpoint_steps=2)
    assert again.returncode == 0, again.stderr
    # The kill itself may have half-written it too.
    assert "is damaged" in again.stdout + again.stderr or not half_written
    assert "goes on from epoch" in again.stdout + again.stderr
    assert weights(project) == expected
    assert list((project / ".checkpoints").glob("student-*")) == [], "they are needed no more"


def test_two_workers_train_and_bad_data_reaches_the_user_at_once(
    tmp_path: Path,
) -> None:
    project = write_project(tmp_path / "project", **SETTINGS)
    shard = sorted((project / "data/shards/train").iterdir())[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    bad = run(project, *COMMAND, workers=2, failures=3)
    assert bad.returncode == 1
    assert f"error: {shard} has {len(content) - 1} bytes" in bad.stderr
    attempts = (bad.stdout + bad.stderr).count("student-alone: worker 1 of 2")
    assert attempts == 1, "what is wrong with the data is not tried again"
    shard.write_bytes(content)
    good = run(project, *COMMAND, workers=2, failures=0)
    assert good.returncode == 0, good.stderr
    assert len(weights(project)) > 1000


@pytest.mark.long
def test_a_job_whose_workers_died_may_be_healed_by_a_retry(tmp_path: Path) -> None:
    project, file = write_project(tmp_path / "project", **SETTINGS), tmp_path / "failure.json"
    process = start(project, *COMMAND, workers=1, checkpoint_steps=2, failures=0, failure_file=file)
    try:
        wait_until(lambda: has_checkpoint(project), process)
        (worker,) = training_workers(process)
        os.kill(worker, signal.SIGKILL)
        assert process.wait(timeout=150) == 1
    finally:
        process.kill()
        process.wait()
    assert Failure.model_validate_json(file.read_text()).error == "TransientError"


@pytest.mark.long
def test_what_a_worker_raised_is_not_healed_by_a_retry(tmp_path: Path) -> None:
    # timm asserts that it is 8, 16 or 32: an exception that is none of this project's.
    network = {"architecture": "timm", "name": "resnet10t", "arguments": {"output_stride": 7}}
    project = write_project(tmp_path / "project", models={"student": {"network": network}})
    file = tmp_path / "failure.json"
    raised = run(project, *COMMAND, workers=1, failures=0, failure_file=file)
    assert raised.returncode == 1
    assert Failure.model_validate_json(file.read_text()).error == "TrainingError"
