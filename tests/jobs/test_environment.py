"""Which variables of whoever submits, and of a machine, every worker of a job has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT
from head import Head

from pipeline.jobs import package

ASKS = """
import os
import ray
from pipeline.jobs.cluster import join
join({})
def nccl():
    return {name: value for name, value in os.environ.items() if name.startswith("NCCL_")}
print("worker has", sorted(ray.get(ray.remote(nccl).remote()).items()))
"""


def test_settings_of_nccl_go_along_with_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    settings = package.settings()
    assert settings["NCCL_DEBUG"] == "INFO"
    assert "SOMETHING_ELSE" not in settings


@pytest.mark.slow
def test_workers_have_the_variables_of_their_job_and_of_their_machine(tmp_path: Path) -> None:
    job = {"env_vars": {"NCCL_DEBUG": "INFO", "PYTHONPATH": str(ROOT)}}
    (tmp_path / "asks.py").write_text(ASKS)
    with Head(cpus=1, environment={"NCCL_SOCKET_IFNAME": "eth0"}) as head:
        done = subprocess.run(
            [
                *(str(Path(sys.executable).with_name("ray")), "job", "submit"),
                *("--address", head.address, "--runtime-env-json", json.dumps(job)),
                *("--", sys.executable, str(tmp_path / "asks.py")),
            ],
            env={
                "HOME": str(head.home),
                "PATH": os.environ["PATH"],
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": head.token,
            },
            cwd=tmp_path,
            check=False,
            capture_output=True,
            text=True,
            timeout=180,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "worker has [('NCCL_DEBUG', 'INFO'), ('NCCL_SOCKET_IFNAME', 'eth0')]" in done.stdout
