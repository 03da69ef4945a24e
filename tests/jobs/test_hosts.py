"""Jobs on three hosts: network namespaces on a bridge. Minutes, and root: kept out of the suite."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bucket import without_data
from clustered import TEACHER, settings_of_jobs, weights
from commands import run
from head import Head
from rig import Rig, possible

from cluster.seaweedfs import Credentials, Server

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not possible(), reason="making hosts needs root, ip and unshare"),
]


@pytest.fixture(scope="module")
def rig(s3: Server) -> Iterator[Rig]:
    with Rig(3, s3.credentials.endpoint) as rig:
        yield rig


@pytest.fixture
def settings(
    rig: Rig, s3_environment: Credentials, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    monkeypatch.setenv("AWS_ENDPOINT_URL", rig.s3)
    monkeypatch.setenv("RAY_ADDRESS", rig.address)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", rig.token)
    return settings_of_jobs(s3_environment, rig.disk)


def test_a_job_over_three_hosts_is_equal_to_one_on_one_host(
    checkout: Path,
    project: Path,
    settings: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = run(checkout, "train", TEACHER, **{**settings, "workers": 3})
    assert done.returncode == 0, done.stderr
    assert "worker 1 of 3" in done.stderr
    other = without_data(project, tmp_path / "one-host")
    with Head(cpus=3) as one:
        monkeypatch.setenv("RAY_ADDRESS", one.address)
        monkeypatch.setenv("RAY_AUTH_TOKEN", one.token)
        local = {"cache": tmp_path / "cache", "model_cache": tmp_path / "models"}
        done = run(other, "train", TEACHER, **{**settings, **local, "workers": 3})
        assert done.returncode == 0, done.stderr
    assert weights(checkout, TEACHER) == weights(other, TEACHER)


def test_the_doctor_asks_every_host(checkout: Path, settings: dict[str, Any]) -> None:
    done = run(checkout, "doctor", "--cluster", "--json", **settings)
    checks = json.loads(done.stdout)["checks"]
    hosts = {check["name"].split()[0] for check in checks if check["name"].endswith(" s3")}
    assert len(hosts) == 3
    by_s3 = [check for check in checks if check["name"].endswith(" s3")]
    assert all(check["ok"] for check in by_s3), by_s3
    assert len({check["detail"] for check in checks if check["name"].endswith(" ray")}) == 3
