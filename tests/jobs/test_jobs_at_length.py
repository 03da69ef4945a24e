"""What jobs on a real Ray cluster do beside the ordinary: minutes, so kept out of the suite."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import timm
from bucket import RUN, params, without_data
from clustered import (
    STUDENT,
    TEACHER,
    jobs,
    left,
    weights,
)
from commands import environment, run, start, wait_until
from head import Head
from projects import git
from safetensors.torch import save_file

from cluster.seaweedfs import Server
from pipeline.data.shards import read_index
from pipeline.jobs.weights import job_name
from pipeline.models.folder import read_info

pytestmark = pytest.mark.long


def test_who_interrupts_without_a_terminal_leaves_the_job(
    head: Head, checkout: Path, settings: dict[str, Any]
) -> None:
    (checkout / "params.yaml").write_text(json.dumps(params(seed=9).model_dump(mode="json")))
    process, out = start(checkout, "train", RUN, **settings), checkout / "out.txt"
    try:
        wait_until(lambda: "is submitted to" in out.read_text(), process)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 1
    finally:
        process.kill()
        process.wait()
    found = re.search(rf"the job ({RUN}-\w+) goes on at {head.address}", out.read_text())
    assert found
    assert f"ray job stop --address {head.address} {found[1]} ends it" in out.read_text()
    stop = [str(Path(sys.executable).with_name("ray")), "job", "stop", "--address", head.address]
    done = subprocess.run([*stop, found[1]], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    again = run(checkout, "train", RUN, **settings)
    assert again.returncode == 0, again.stderr
    assert f"job {found[1]}-2 is submitted" in again.stderr


def test_without_any_token_a_command_says_where_to_put_it(
    checkout: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(checkout))
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    done = run(checkout, "train", RUN, **settings)
    assert done.returncode == 2, done.stderr
    assert "put the cluster's own into ~/.ray/auth_token" in done.stderr


def test_whoever_interrupts_at_a_terminal_may_end_the_job(
    head: Head, project: Path, checkout: Path, settings: dict[str, Any]
) -> None:
    from ray.job_submission import JobSubmissionClient  # noqa: PLC0415

    # It stands for a training, as which the command takes it by its name.
    chosen, version = params(seed=7), read_index(project / "data/shards").version
    name = job_name(chosen, RUN, version, project / "models")
    (checkout / "params.yaml").write_text(json.dumps(chosen.model_dump(mode="json")))
    client = JobSubmissionClient(head.address, headers={"Authorization": f"Bearer {head.token}"})
    client.submit_job(entrypoint="echo at work; sleep 600", submission_id=name)
    there, here = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "train", RUN],
        cwd=checkout,
        env=environment(**settings),
        stdin=here,
        stdout=here,
        stderr=here,
        start_new_session=True,
    )
    os.close(here)
    try:
        read_until(there, "at work")
        process.send_signal(signal.SIGINT)
        read_until(there, "[y/N]")
        os.write(there, b"y\n")
        read_until(there, "is stopped: the same command goes on from its last checkpoint")
        assert process.wait(timeout=30) == 1
    finally:
        process.kill()
        process.wait()
        os.close(there)
    assert str(client.get_job_status(name)) == "STOPPED"


def read_until(terminal: int, text: str) -> None:
    """Reads what a terminal shows, up to a text."""
    shown = ""
    while text not in shown:
        try:
            shown += os.read(terminal, 1000).decode().replace("\r\n", " ")
        except OSError:
            break
    assert text in shown, shown


def test_dvc_repro_of_a_student_is_a_job_whose_teacher_comes_through_s3(
    head: Head,
    project: Path,
    checkout: Path,
    settings: dict[str, Any],
    s3: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(project / "models" / TEACHER, checkout / "models" / TEACHER)
    stages = json.loads((checkout / "dvc.yaml").read_text())
    command = f"{sys.executable} -m pipeline train {STUDENT}"
    stages["stages"]["student"] = {"cmd": command, "outs": [f"models/{STUDENT}"]}
    (checkout / "dvc.yaml").write_text(json.dumps(stages))
    git(checkout, "init", "-q")
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "--single-item", "student"],
        cwd=checkout,
        env={**environment(**{**settings, "workers": 2}), "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"job {STUDENT}-" in done.stderr
    assert left(s3, STUDENT) == []
    # The same on the same Ray, but by a command that joins it.
    (tmp_path / "kept").mkdir()
    other = without_data(project, tmp_path / "here")
    shutil.copytree(project / "models" / TEACHER, other / "models" / TEACHER)
    monkeypatch.setenv("RAY_ADDRESS", head.node)
    local = run(other, "train", STUDENT, **{**settings, "workers": 2, "storage": tmp_path / "kept"})
    assert local.returncode == 0, local.stderr
    assert weights(checkout, STUDENT) == weights(other, STUDENT)


def test_stored_targets_go_to_a_job_with_their_teacher(
    project: Path,
    checkout: Path,
    settings: dict[str, Any],
    s3: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = params(
        view={"height": 16, "width": 32, "augment": {"noise": 0.5}, "cycle": 2},
        distillation={"assistant": {}, "student": {}, "targets": "stored"},
    )
    text = json.dumps(stored.model_dump(mode="json"))
    (checkout / "params.yaml").write_text(text)
    shutil.copytree(project / "models" / TEACHER, checkout / "models" / TEACHER)
    early = run(checkout, "train", STUDENT, **settings)
    assert early.returncode == 1
    assert "holds no stored targets of teacher-cnn: make them by" in early.stderr
    asked = run(checkout, "targets", TEACHER, **settings)
    assert asked.returncode == 0, asked.stderr
    assert f"job targets-{TEACHER}-" in asked.stderr
    done = run(checkout, "train", STUDENT, **settings)
    assert done.returncode == 0, done.stderr
    assert f"job {STUDENT}-" in done.stderr
    assert left(s3, STUDENT) == left(s3, f"targets-{TEACHER}") == []
    monkeypatch.delenv("RAY_ADDRESS")
    other = without_data(project, tmp_path / "other")
    (other / "params.yaml").write_text(text)
    for place in (f"models/{TEACHER}", f"targets/{TEACHER}"):
        shutil.copytree(checkout / place, other / place)
    local = run(other, "train", STUDENT, **{**settings, "storage": tmp_path / "kept"})
    assert local.returncode == 0, local.stderr
    assert weights(checkout, STUDENT) == weights(other, STUDENT)


def test_of_two_that_submit_the_same_at_once_one_attaches_to_the_others_job(
    head: Head, project: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    chosen = params(seed=5).model_dump(mode="json")
    checkouts = [without_data(project, tmp_path / name) for name in ("one", "other")]
    found: list[subprocess.CompletedProcess[str]] = []

    def train(checkout: Path) -> None:
        (checkout / "params.yaml").write_text(json.dumps(chosen))
        found.append(run(checkout, "train", RUN, **settings))

    before = len(jobs(head))
    threads = [threading.Thread(target=train, args=(checkout,)) for checkout in checkouts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(jobs(head)) == before + 1
    # Whoever fetches the model first removes it from S3; the other may come too late for it.
    late = [done for done in found if done.returncode]
    assert len(late) < 2, [done.stderr for done in late]
    gone = ("another checkout took it", "there is no s3://")
    assert all(any(words in done.stderr for words in gone) for done in late), late
    trained = [checkout for checkout in checkouts if (checkout / "models" / RUN).exists()]
    assert len({weights(checkout, RUN) for checkout in trained}) == 1


def test_a_local_file_of_pretrained_weights_reaches_the_workers(
    project: Path,
    checkout: Path,
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = {"architecture": "timm", "name": "resnet10t", "reduction": 32}
    row = {"network": {**network, "weights": "pretrained/resnet.safetensors"}}
    models = {**params().model_dump(mode="json")["models"], "cnn": row}
    chosen = params(models=models, training={"epochs": 1, "batch_size": 8})
    pretrained = timm.create_model("resnet10t", num_classes=5).state_dict()
    other = without_data(project, tmp_path / "other")
    for folder in (checkout, other):
        (folder / "params.yaml").write_text(json.dumps(chosen.model_dump(mode="json")))
        (folder / "pretrained").mkdir()
        save_file(pretrained, folder / "pretrained/resnet.safetensors")
    done = run(checkout, "train", TEACHER, **settings)
    assert done.returncode == 0, done.stderr
    with monkeypatch.context() as without:
        without.delenv("RAY_ADDRESS")
        local = run(other, "train", TEACHER, **{**settings, "workers": 0, "storage": "kept"})
    assert local.returncode == 0, local.stderr
    assert weights(checkout, TEACHER) == weights(other, TEACHER)
    there, here = (read_info(one / "models" / TEACHER) for one in (checkout, other))
    assert there.network == here.network


def test_a_failed_jobs_own_error_and_exit_code_arrive_and_it_can_be_tried_again(
    head: Head, checkout: Path, settings: dict[str, Any]
) -> None:
    for attempt in ("", "-2"):
        done = run(checkout, "train", RUN, **{**settings, "workers": 64, "wait": 0.1})
        assert done.returncode == 2, done.stderr
        *_, last = done.stderr.strip().splitlines()
        assert last.startswith(
            "error: DISTILL_WORKERS=64, but after 0.1 s the cluster has room for 2: each takes 1"
        )
        found = [one for one in jobs(head) if one["submission_id"] in last]
        assert [one["status"] for one in found] == ["FAILED"] * len(found)
        assert last.endswith(f"{attempt} at {head.address})")
