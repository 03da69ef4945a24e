"""Trainings as jobs on a real Ray cluster, with shards, checkpoints and models in a real bucket."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bucket import RUN, params
from clustered import PREFIX, TEACHER, jobs, left, trained_here, weights
from commands import environment, run, start, wait_until
from head import Head
from proxy import Fault, Proxy, Request
from safetensors.numpy import load

from cluster.seaweedfs import Server
from pipeline.compute import Compute
from pipeline.distill.store import pack
from pipeline.distill.target_index import INDEX_FILE
from pipeline.errors import ClusterError
from pipeline.jobs.client import JobServer
from pipeline.train.targets import make_targets, targets_name

pytestmark = pytest.mark.slow


def test_a_job_outlives_who_submitted_it_and_no_secret_is_told(
    head: Head,
    project: Path,
    checkout: Path,
    settings: dict[str, Any],
    s3: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    process, out = start(checkout, "train", TEACHER, **settings), checkout / "out.txt"
    try:
        wait_until(lambda: "is submitted to" in out.read_text(), process)
    finally:
        process.kill()
        process.wait()
    again = run(checkout, "train", TEACHER, "--json", **settings)
    assert again.returncode == 0, again.stderr
    assert "with 1 workers" in again.stderr
    assert f"{TEACHER}  epoch 3/3" in again.stderr, "the job's own progress"
    assert json.loads(again.stdout)["model"] == f"models/{TEACHER}"
    assert len([one for one in jobs(head) if one["submission_id"].startswith(TEACHER)]) == 1
    expected = trained_here(project, tmp_path / "here", TEACHER, monkeypatch)
    assert weights(checkout, TEACHER) == expected
    assert sorted(path.name for path in (checkout / "models" / TEACHER).iterdir()) == [
        *("history.csv", "model.json", "model.safetensors")
    ]
    assert left(s3, TEACHER) == [], "it is needed no more"
    said = [out.read_text(), again.stdout, again.stderr, json.dumps(jobs(head))]
    secrets = [s3.credentials.secret_key, head.token]
    said += [path.read_text(errors="replace") for path in head.logs.rglob("*") if path.is_file()]
    assert any(f"{TEACHER}-" in text for text in said)
    assert not [text for text in said for secret in secrets if secret in text]
    sent = [*head.logs.parent.rglob(".job-keys.json")]
    assert {path.stat().st_mode & 0o777 for path in sent} == {0o600}


def test_a_model_is_asked_by_a_job_that_goes_on_where_another_ended(
    head: Head,
    project: Path,
    checkout: Path,
    settings: dict[str, Any],
    s3: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    view = {"height": 16, "width": 32, "augment": {"noise": 0.5}, "cycle": 2}
    chosen = params(view=view, distillation={"targets": "stored"})
    (checkout / "params.yaml").write_text(chosen.model_dump_json())
    shutil.copytree(project / "models" / TEACHER, checkout / "models" / TEACHER)
    here = tmp_path / "here"
    compute = Compute(workers=0, threads=1, storage=str(here / "kept"))
    shards, models = project / "data/shards", project / "models"
    made = make_targets(chosen, TEACHER, compute, shards=shards, models=models, targets=here)
    expected = {file.name: (here / TEACHER / file.name).read_bytes() for file in made.files}
    # Zeros stand for what a job has stored that did not come to its end.
    first, *_ = expected
    assert made.origin is not None
    expected[first] = pack(np.zeros_like(load(expected[first])["logits"]))
    s3.client().put_object(
        Bucket=s3.credentials.bucket,
        Key=f"{PREFIX}-kept/jobs/{targets_name(made.origin)}/targets/{first}",
        Body=expected[first],
    )
    done = run(checkout, "targets", TEACHER, "--json", **settings)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["mode"] == "stored"
    found = {path.name: path.read_bytes() for path in (checkout / "targets" / TEACHER).iterdir()}
    del found[INDEX_FILE]
    assert found == expected
    assert [one["submission_id"] for one in jobs(head)].count(targets_name(made.origin)) == 1
    assert left(s3, f"targets-{TEACHER}") == []


def test_without_the_token_nothing_is_submitted(
    checkout: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "wrong")
    done = run(checkout, "train", RUN, **settings)
    assert done.returncode == 2, done.stderr
    *_, last = done.stderr.strip().splitlines()
    assert "refuses the token: put the cluster's own into ~/.ray/auth_token" in last
    assert "or RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token" in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("token", "code"), [("wrong", 1), (None, 2)])
def test_without_the_token_no_training_joins_the_cluster(
    head: Head,
    project: Path,
    settings: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    token: str | None,
    code: int,
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", head.node)
    monkeypatch.setenv("HOME", str(project))
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    if token:
        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    done = run(project, "train", RUN, workers=1)
    assert done.returncode == code, done.stderr
    *_, last = done.stderr.strip().splitlines()
    assert f"cluster at {head.node}" in last or f"answers at {head.node}" in last
    assert "refuses the token" in last
    assert "put the cluster's own into ~/.ray/auth_token" in last
    assert "or RAY_AUTH_TOKEN, with RAY_AUTH_MODE=token" in last
    assert "Traceback" not in done.stderr


def test_a_cluster_that_is_not_there_is_said_to_be() -> None:
    with pytest.raises(ClusterError, match=r"cluster at http://127.0.0.1:9 \(from RAY_ADDRESS\)"):
        JobServer("http://127.0.0.1:9")


def test_a_cluster_that_has_just_started_is_waited_for(
    head: Head, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its job server answers before there is an agent that starts jobs."""
    fault = Fault(status=500, code="No available agent to submit job, please try again later.")

    def refuse_once(request: Request) -> Fault | None:
        is_first = not proxy.injected[fault]
        return fault if is_first and request.line.startswith("POST /api/jobs/") else None

    # In a process of its own: Ray keeps the token that it saw first, and takes its address from
    # the environment before any other.
    code = (
        "import pathlib, sys; from pipeline.jobs.client import JobServer; "
        "print(JobServer(sys.argv[1]).submit('waited-for', 'true', pathlib.Path('.'), {}, {}))"
    )
    with Proxy(head.address) as proxy:
        proxy.rule = refuse_once
        monkeypatch.setenv("RAY_ADDRESS", proxy.endpoint)
        command = [sys.executable, "-c", code, proxy.endpoint]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    assert (done.stdout.strip(), proxy.injected[fault]) == ("waited-for", 1)
    assert [one["submission_id"] for one in jobs(head)].count("waited-for") == 1
