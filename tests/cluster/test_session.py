"""One Ray for all stages of a command, and its end with the command."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from commands import environment, wait_until, write_project


def session(folder: Path, script: str, **settings: str) -> subprocess.Popen[bytes]:
    """Starts ``python -m cluster.session`` around a shell script; what it says goes to out.txt."""
    with (folder / "out.txt").open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "cluster.session", "sh", "-c", script],
            cwd=folder,
            env={**environment(workers=1), **settings},
            stdout=out,
            stderr=subprocess.STDOUT,
        )


@pytest.mark.parametrize(
    "settings", [{"RAY_ADDRESS": "elsewhere:6379"}, {"DISTILL_WORKERS": "0"}], ids=min
)
def test_no_ray_is_started_where_none_is_needed(tmp_path: Path, settings: dict[str, str]) -> None:
    process = session(tmp_path, "echo at $RAY_ADDRESS; exit 3", **settings)
    assert process.wait(timeout=60) == 3
    assert (
        tmp_path / "out.txt"
    ).read_text().strip() == f"at {settings.get('RAY_ADDRESS', '')}".strip()


@pytest.mark.slow
def test_two_runs_share_one_ray_that_ends_with_them(tmp_path: Path) -> None:
    project = write_project(tmp_path / "project")
    train = f"{sys.executable} -m pipeline train"
    process = session(
        project, f"{train} teacher-cnn && {train} student-alone && echo $RAY_ADDRESS > address"
    )
    assert process.wait(timeout=240) == 0, (project / "out.txt").read_text()
    assert (project / "models/student-alone/model.safetensors").exists()
    host, port = (project / "address").read_text().strip().rsplit(":", 1)
    with socket.socket() as probe:
        assert probe.connect_ex((host, int(port))) != 0


@pytest.mark.slow
def test_ending_it_ends_the_command_first(tmp_path: Path) -> None:
    script = "trap 'echo asked >> seen; exit 7' TERM; echo up > seen; while :; do sleep 0.1; done"
    process = session(tmp_path, script)
    try:
        wait_until((tmp_path / "seen").exists, process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 7
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "seen").read_text().split() == ["up", "asked"]
