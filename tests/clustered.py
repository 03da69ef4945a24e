"""Projects whose trainings become jobs on a Ray cluster, and what is to be seen of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import requests
from bucket import REMOTE, dvc, params, push, train
from head import Head
from tiny import tiny_model

from cluster.seaweedfs import Credentials, Server
from pipeline.models.folder import WEIGHTS_FILE
from pipeline.runs import find

TEACHER, STUDENT, ASSISTANT = "teacher-cnn", "student-cnn", "assistant-cnn"
PREFIX = "clustered"


def make_project(project: Path, s3: Server) -> Path:
    """A project whose shards and teacher DVC knows, and has pushed below :data:`PREFIX`."""
    index = push(project, s3, PREFIX)
    teacher = find(params(), TEACHER)
    tiny_model(
        project / "models" / TEACHER, index, run=TEACHER, network=teacher.network, view=teacher.view
    )
    stages = json.loads((project / "dvc.yaml").read_text())
    stages["stages"]["teacher"] = {"cmd": "true", "outs": [f"models/{TEACHER}"]}
    (project / "dvc.yaml").write_text(json.dumps(stages))
    dvc(project, s3, "commit", "-q", "-f")
    dvc(project, s3, "push", "-q", "-r", REMOTE)
    return project


def settings_of_machines(credentials: Credentials) -> dict[str, str]:
    """The environment of a cluster's machines: where data and checkpoints lie; no keys."""
    return {
        "DISTILL_STREAM": REMOTE,
        "DISTILL_STORAGE": f"s3://{credentials.bucket}/{PREFIX}-kept",
        "DISTILL_THREADS": "1",
        "DISTILL_LOADERS": "0",
        "AWS_ENDPOINT_URL": credentials.endpoint,
        "AWS_DEFAULT_REGION": credentials.region,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def settings_of_jobs(credentials: Credentials, folder: Path) -> dict[str, Any]:
    """Compute settings of jobs whose machines keep what they fetch in a folder of the test's."""
    return {
        "workers": 1,
        "stream": REMOTE,
        "storage": f"s3://{credentials.bucket}/{PREFIX}-kept",
        "cache": folder / "cache",
        "model_cache": folder / "models",
        "checkpoint_steps": 2,
    }


def weights(project: Path, name: str) -> bytes:
    """The bytes of a trained model."""
    return (project / "models" / name / WEIGHTS_FILE).read_bytes()


def trained_here(project: Path, folder: Path, name: str, patch: pytest.MonkeyPatch) -> bytes:
    """The weights of the same training in this process, without a cluster, from the disk."""
    for teacher in (project / "models").iterdir():
        shutil.copytree(teacher, folder / "models" / teacher.name)
    with patch.context() as here:
        here.chdir(project)
        return train(folder, {"checkpoint_steps": 2}, run=name)


def jobs(head: Head) -> list[dict[str, Any]]:
    """What the dashboard shows of all jobs that were submitted to it."""
    token = {"Authorization": f"Bearer {head.token}"}
    found: list[dict[str, Any]] = requests.get(
        f"{head.address}/api/jobs/", headers=token, timeout=10
    ).json()
    # It also shows every driver that joined by itself.
    return [job for job in found if job["submission_id"]]


def left(s3: Server, job: str) -> list[str]:
    """The keys of what jobs whose name begins so keep in the bucket, but for a folder's marker."""
    top = f"{PREFIX}-kept/"
    listed = s3.client().list_objects_v2(Bucket=s3.credentials.bucket, Prefix=top)
    found = [found["Key"] for found in listed.get("Contents", []) if found["Size"]]
    # Checkpoints lie beside the folder of the jobs, under the same name.
    return [key for key in found if key.removeprefix(top).removeprefix("jobs/").startswith(job)]
