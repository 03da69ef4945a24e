"""What the doctor finds on the machines of a real Ray cluster: minutes, so not in the suite."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from clustered import left, settings_of_machines
from commands import ROOT, run
from head import Head

from cluster.seaweedfs import Server

pytestmark = pytest.mark.long


def test_the_doctor_looks_at_every_machine(
    checkout: Path, settings: dict[str, Any], s3: Server
) -> None:
    shutil.copy(ROOT / "requirements.lock", checkout / "requirements.lock")
    done = run(checkout, "doctor", "--cluster", "--wait", "--json", **settings)
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert found["workers"]["detail"] == "room for 2 of the 1 workers that are wanted"
    assert found["shards"]["ok"], found["shards"]
    of_machines = {name.split()[1]: check for name, check in found.items() if " " in name}
    assert {"ray", "packages", "disk", "shared", "gpu", "s3", "cache", "shards"} <= {*of_machines}
    assert "gpus" not in of_machines
    assert of_machines["s3"]["ok"]
    assert "MB/s from it" in of_machines["s3"]["detail"]
    assert "MB/s from the DVC remote's bucket" in of_machines["shards"]["detail"]
    assert done.returncode == (0 if all(check["ok"] for check in found.values()) else 1)
    assert left(s3, "doctor") == []


def test_the_doctor_finds_what_a_run_would_lack(
    checkout: Path, settings: dict[str, Any], s3: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU that Ray counts and nobody sees, and a folder that cannot be made."""
    with Head(environment=settings_of_machines(s3.credentials), gpus=1) as other:
        monkeypatch.setenv("RAY_ADDRESS", other.address)
        monkeypatch.setenv("RAY_AUTH_TOKEN", other.token)
        lacking = {**settings, "cache": "/proc/shards", "workers": 3, "wait": 1}
        done = run(checkout, "doctor", "--cluster", "--json", **lacking)
        waited = run(checkout, "doctor", "--cluster", "--wait", "--json", **lacking)
    assert done.returncode == 1, done.stderr
    found = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert found["workers"]["detail"] == "room for 2 of the 3 workers that are wanted"
    assert found["workers"]["ok"]
    assert "doctor --cluster --wait" in found["workers"]["advice"]
    workers = next(one for one in json.loads(waited.stdout)["checks"] if one["name"] == "workers")
    assert not workers["ok"]
    of_machines = {name.split()[1]: check for name, check in found.items() if " " in name}
    assert of_machines["gpus"]["detail"] == "Ray counts 1 here, PyTorch sees 0"
    assert not of_machines["cache"]["ok"]
