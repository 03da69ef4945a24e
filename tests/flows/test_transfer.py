"""Transfers to and from a real S3 server: what a retry may heal is told from what it cannot."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from projects import commit, make_project
from proxy import Fault, Proxy, Request
from serving import call

from cluster.seaweedfs import Credentials
from flows.processes import Processes, StageError
from pipeline.errors import TransientError

STAGES = """
stages:
  words:
    cmd: mkdir -p out && cp words.txt out/words && cp params.yaml out/params
    deps: [words.txt]
    outs: [out]
"""


@pytest.fixture
def project(tmp_path: Path, s3_environment: Credentials) -> Path:
    """One whose output was made, and whose DVC remote is in the bucket."""
    project = make_project(tmp_path / "project", stages=STAGES)
    url = f"s3://{s3_environment.bucket}/{tmp_path.name}"
    for command in (("remote", "add", "-d", "bucket", url), ("repro", "--quiet")):
        done = call(project, "dvc", *command)
        assert done.returncode == 0, done.stderr
    commit(project, "made")
    return project


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


@contextmanager
def processes(project: Path, lock: int, **environment: str) -> Iterator[Processes]:
    started = Processes(project, environment, [lock])
    try:
        yield started
    finally:
        started.stop()


def answer_reads(fault: Fault) -> Callable[[Request], Fault | None]:
    """A rule that lets every read fail in this way."""
    return lambda request: fault if request.line.startswith("GET") else None


def test_what_is_refused_is_told_from_what_may_come_back(
    project: Path, lock: int, s3_environment: Credentials, proxy: Proxy
) -> None:
    # Uploads pass the proxy by, which does not ask a client to continue.
    server = {"AWS_ENDPOINT_URL": s3_environment.endpoint}
    wrong = {**server, "AWS_SECRET_ACCESS_KEY": "wrong"}
    with processes(project, lock, **server) as right:
        assert right.transfer("push", None, print)
    shutil.rmtree(project / ".dvc/cache")
    shutil.rmtree(project / "out")
    with processes(project, lock, **wrong) as refused:
        with pytest.raises(StageError, match="keys and rights"):
            refused.transfer("pull", None, print)
        with pytest.raises(StageError, match="keys and rights"):
            refused.transfer("push", None, print)
    with processes(project, lock, AWS_MAX_ATTEMPTS="1") as proxied:
        # A key that may list but not read: what was refused is known only of each file.
        proxy.rule = lambda request: (
            Fault(status=403, code="AccessDenied")
            if request.line.startswith("GET") and "/files/md5/" in request.line
            else None
        )
        with pytest.raises(StageError, match="keys and rights"):
            proxied.transfer("pull", None, print)
        for status, code in ((503, "SlowDown"), (504, "GatewayTimeout")):
            fault = Fault(status=status, code=code)
            proxy.rule = answer_reads(fault)
            with pytest.raises(TransientError):
                proxied.transfer("pull", None, print)
        proxy.rule = lambda request: None
        assert proxied.transfer("pull", None, print)
    assert (project / "out/words").read_text() == "words"
