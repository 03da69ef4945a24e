"""A Ray cluster of one node, and a checkout that submits to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bucket import without_data
from clustered import make_project, settings_of_jobs, settings_of_machines
from head import Head

from cluster.seaweedfs import Credentials, Server


@pytest.fixture(scope="session")
def head(s3: Server) -> Iterator[Head]:
    """Its machine knows where data and checkpoints lie, as one of cluster/ does."""
    with Head(environment=settings_of_machines(s3.credentials)) as head:
        yield head


@pytest.fixture(scope="session")
def project(s3: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose shards and teacher were pushed."""
    return make_project(tmp_path_factory.mktemp("project"), s3)


@pytest.fixture
def checkout(project: Path, tmp_path: Path) -> Path:
    """The same as another machine has it: neither data nor models."""
    return without_data(project, tmp_path / "checkout")


@pytest.fixture
def settings(
    head: Head, s3_environment: Credentials, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> dict[str, Any]:
    """The settings of jobs, and the environment of who submits them."""
    monkeypatch.setenv("RAY_ADDRESS", head.address)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
    return settings_of_jobs(s3_environment, tmp_path)
