"""Every test computes on one thread: its numbers do not hang on the machine's cores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import pytest
import torch
from bucket import push
from hypothesis import settings
from proxy import Proxy
from versions import make_project

from cluster.seaweedfs import Credentials, Server
from pipeline.data import stream

# The same examples in every run; a slow, shared machine is no failure.
settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real S3 server. Tests share it and its bucket: each uses a prefix of its own."""
    with Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_environment(s3: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Credentials:
    """The environment of a shell that sourced the server's env file, and nothing else of AWS."""
    for name in [*os.environ]:
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "no-such-file"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in s3.credentials.environment().items():
        monkeypatch.setenv(name, value)
    return s3.credentials


@pytest.fixture(scope="session")
def pushed(s3: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose shards were pushed into the bucket, below ``streamed``."""
    project = tmp_path_factory.mktemp("pushed")
    push(project, s3, "streamed")
    return project


@pytest.fixture
def proxy(s3_environment: Credentials, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the S3 server, which the environment names as the server."""
    with Proxy(s3_environment.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        stream.forget_clients()
        yield proxy
    stream.forget_clients()


@pytest.fixture(scope="session")
def versions(s3: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the tags v1.0 and v1.1, whose data and models lie in the bucket."""
    project = tmp_path_factory.mktemp("versions") / "project"
    project.mkdir()
    make_project(project, s3.credentials)
    return project
