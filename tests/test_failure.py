"""A command that fails tells the type of its error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from commands import environment, write_project

from pipeline.errors import DataError
from pipeline.failure import FAILURE_FILE, Failure, failure_of, tell


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (DataError("bad"), "DataError"),
        (ConnectionRefusedError("away"), "TransientError"),
        (TimeoutError("slow"), "TransientError"),
        (PermissionError("no"), "PermissionError"),
    ],
)
def test_only_what_may_come_back_is_transient(error: Exception, kind: str) -> None:
    assert failure_of(error) == Failure(error=kind, message=str(error))


def test_nothing_is_told_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FAILURE_FILE, raising=False)
    tell(DataError("bad"))


def test_a_command_tells_why_it_failed(tmp_path: Path) -> None:
    project, file = write_project(tmp_path / "project"), tmp_path / "failure.json"
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "train", "nobody"],
        cwd=project,
        env={**environment(), FAILURE_FILE: str(file)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    failure = Failure.model_validate_json(file.read_text())
    assert failure.error == "UsageError"
    assert failure.message.startswith("no run 'nobody'")
