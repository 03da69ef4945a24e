"""What a job on a running cluster costs beside its training."""

from __future__ import annotations

import csv
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from ray.cluster_utils import Cluster

from benchmarks.part import some_shards
from benchmarks.spread import spread
from benchmarks.variables import variables
from cluster.ports import HOST, ports_for
from cluster.seaweedfs import Server
from pipeline.compute import cores
from pipeline.params import Params

TOP = Path(__file__).parents[1]
RUN = "student-alone"
REMOTE = "bench"
STAGE = {"stages": {"shards": {"cmd": "true", "outs": ["data/shards"]}}}


def startup_seconds(params: Params, folder: Path, jobs: int) -> dict[str, float]:
    """Seconds of `python -m pipeline train` as a job, beyond those of its epochs.

    They hold the command's own start, the code's upload, the start of the job and of its worker,
    its shards from S3, and the model's way back. A first job warms the cluster up and is not
    counted.
    """
    project = folder / "project"
    with Server(folder / "s3") as s3, variables(s3.credentials.environment()), _cluster():
        some_shards(project / "data/shards", 1)
        (project / "dvc.yaml").write_text(yaml.safe_dump(STAGE))
        url = f"s3://{s3.credentials.bucket}/dvc"
        for command in (
            ("init", "--quiet", "--no-scm"),
            ("remote", "add", "--quiet", REMOTE, url),
            ("commit", "--quiet", "--force"),
            ("push", "--quiet", "--remote", REMOTE),
        ):
            _call(project, "dvc", *command)
        settings = {
            "DISTILL_STREAM": REMOTE,
            "DISTILL_STORAGE": f"s3://{s3.credentials.bucket}/jobs",
            "DISTILL_CACHE": str(folder / "cache"),
            "DISTILL_WORKERS": "1",
        }
        with variables(settings):
            # Each with a seed of its own: the same job again would only be asked for its model.
            found = [_job(project, params, seed) for seed in range(jobs + 1)]
    return spread(found[1:])


def _job(project: Path, params: Params, seed: int) -> float:
    student = params.models["student"]
    training = {**student.training, "epochs": 1}
    models = {**params.models, "student": student.model_copy(update={"training": training})}
    told = params.model_copy(update={"seed": seed, "models": models})
    (project / "params.yaml").write_text(yaml.safe_dump(told.model_dump(mode="json")))
    shutil.rmtree(project / "models", ignore_errors=True)
    began = time.perf_counter()
    _call(project, "pipeline", "train", RUN)
    seconds = time.perf_counter() - began
    with (project / "models" / RUN / "history.csv").open(newline="") as rows:
        return seconds - sum(float(row["seconds"]) for row in csv.DictReader(rows))


@contextmanager
def _cluster() -> Iterator[None]:
    """One machine as a cluster, with its job server on loopback behind a token."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(16)}
    ports = ports_for(["dashboard_port", "dashboard_agent_listen_port"])
    with variables(token):
        head = {"num_cpus": cores(), "include_dashboard": True, **ports}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            with variables({"RAY_ADDRESS": f"http://{HOST}:{ports['dashboard_port']}"}):
                yield
        finally:
            cluster.shutdown()


def _call(project: Path, module: str, *arguments: str) -> None:
    known = {**os.environ, "PYTHONPATH": str(TOP), "DVC_NO_ANALYTICS": "1"}
    command = [sys.executable, "-m", module, *arguments]
    subprocess.run(command, cwd=project, env=known, stdout=subprocess.DEVNULL, check=True)
