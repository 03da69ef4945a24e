"""Whole commands in a small project of their own, as processes that a test may kill."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from tiny import tiny_params, tiny_shards

ROOT = Path(__file__).parents[1]


def write_project(path: Path, **overrides: Any) -> Path:
    """A folder with params.yaml and shards to train on."""
    path.mkdir(parents=True, exist_ok=True)
    content = tiny_params(**overrides).model_dump(mode="json")
    (path / "params.yaml").write_text(json.dumps(content))
    tiny_shards(path / "data/shards")
    return path


def environment(**compute: Any) -> dict[str, str]:
    """This process's environment, with ``DISTILL_<NAME>`` for every keyword."""
    settings = {"workers": 0, "loaders": 0, "threads": 1, **compute}
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("DISTILL_")},
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
        **{f"DISTILL_{name.upper()}": str(value) for name, value in settings.items()},
    }


def run(project: Path, *arguments: str, **compute: Any) -> subprocess.CompletedProcess[str]:
    """Runs ``python -m pipeline`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=project,
        env=environment(**compute),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def start(project: Path, *arguments: str, **compute: Any) -> subprocess.Popen[bytes]:
    """Starts ``python -m pipeline``; what it says goes to ``out.txt``."""
    with (project / "out.txt").open("wb") as out:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=project,
            env=environment(**compute),
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Waits for something while a process works on it.

    Raises:
        AssertionError: the process ended before, or it took more than two minutes.
    """
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the process ended before what was waited for"
        assert time.monotonic() < deadline, "waited for two minutes"
        time.sleep(0.02)


def kill_training(process: subprocess.Popen[bytes]) -> None:
    """Kills a command that trains by Ray, and waits until what wrote its checkpoints has ended.

    Raises:
        AssertionError: something of it still runs after a minute.
    """
    names = ("TrainController", "RayTrainWorker")
    writing = [
        psutil.Process(pid)
        for pid, command in descendants(process.pid).items()
        if any(name in command for name in names)
    ]
    process.kill()
    process.wait()
    _, left = psutil.wait_procs(writing, timeout=60)
    assert not left, "they end with their driver"


def descendants(pid: int) -> dict[int, str]:
    """The processes that a process started, and theirs: number and command line."""
    found: dict[int, str] = {}
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            numbers = [int(number) for number in children.read_text().split()]
        except OSError:
            continue
        for number in numbers:
            try:
                command = Path(f"/proc/{number}/cmdline").read_bytes()
            except OSError:
                continue
            found[number] = command.replace(b"\0", b" ").decode()
            found |= descendants(number)
    return found


def runs(pid: int) -> bool:
    """Whether a process runs: one that ended, and that nobody has asked how, does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
