"""How a stage's command ended, told by the process that runs it for DVC."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from commands import runs
from projects import make_project
from serving import call, until

from flows.processes import Processes, StageError, StoppedError
from pipeline.errors import TransientError

COMMANDS = {
    "missing": "no-such-command",
    "import": "python -c 'import no_such_module'",
    "usage": "python -m pipeline train",
    "told": "python -m pipeline train nobody",
    "killed": "kill -9 $$",
    "killed-below": "sh -c 'kill -9 $$'; exit $?",
    "polite": "sh -c 'python polite.py; true' && true",
    "lost": "sh -c 'echo $$ > lost; sleep 1000' && true",
}
POLITE = """
import signal, sys, time
from pathlib import Path
def tell(number, frame):
    Path("told").touch()
    sys.exit(1)
signal.signal(signal.SIGTERM, tell)
Path("ready").touch()
time.sleep(1000)
"""
STAGES = "stages:\n" + "".join(
    f"  {name}:\n    cmd: {command}\n" for name, command in COMMANDS.items()
)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    project = make_project(tmp_path_factory.mktemp("ends") / "project", stages=STAGES)
    started = Processes(project, {}, [])
    yield started
    started.stop()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = make_project(tmp_path / "project", stages=STAGES)
    (folder / "polite.py").write_text(POLITE)
    return folder


@contextmanager
def at_work(processes: Processes, stage: str, ready: Path) -> Iterator[Future[bool]]:
    """A stage that has come so far."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(processes.reproduce, stage, print)
        try:
            until(ready.exists, lambda: f"no {ready}")
            yield future
        finally:
            processes.stop()


@pytest.mark.parametrize("stage", ["missing", "import", "usage", "told"])
def test_a_command_that_ends_by_itself_would_fail_again(processes: Processes, stage: str) -> None:
    with pytest.raises(StageError, match=f"reproduce {stage}"):
        processes.reproduce(stage, print)


@pytest.mark.parametrize("stage", ["killed", "killed-below"])
def test_a_command_that_was_killed_may_do_better(processes: Processes, stage: str) -> None:
    with pytest.raises(TransientError, match=f"reproduce {stage}"):
        processes.reproduce(stage, print)


def test_what_a_shell_runs_is_asked_to_end(project: Path) -> None:
    processes = Processes(project, {}, [])
    with at_work(processes, "polite", project / "ready") as future:
        processes.stop()
        assert (project / "told").exists()
        with pytest.raises(StoppedError):
            future.result()


def test_what_a_killed_process_started_ends_too(project: Path) -> None:
    processes = Processes(project, {}, [])
    with at_work(processes, "lost", project / "lost") as future:
        until(lambda: bool((project / "lost").read_text().strip()), lambda: "no number")
        started = int((project / "lost").read_text())
        (keeper,) = (
            process
            for process in psutil.Process().children()
            if process.cmdline()[-1] == str(project) and started in below(process)
        )
        keeper.kill()
        with pytest.raises(TransientError, match="its process ended with -9"):
            future.result(30)
        assert not runs(started)


def below(process: psutil.Process) -> list[int]:
    return [child.pid for child in process.children(recursive=True)]


@pytest.fixture
def small_files() -> Iterator[None]:
    """No process may write a file of more than a mebibyte: to DVC that is as a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_remote_is_not_tried_again(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    stages = "stages: {one: {cmd: head -c 2000000 /dev/zero > out, outs: [out]}}"
    project = make_project(tmp_path / "project", stages=stages)
    remote = str(tmp_path / "remote")
    for command in (("remote", "add", "-d", "there", remote), ("repro", "--quiet")):
        assert call(project, "dvc", *command).returncode == 0
    request.getfixturevalue("small_files")
    processes = Processes(project, {}, [])
    try:
        with pytest.raises(StageError, match=r"1 files failed to upload: .*File too large"):
            processes.transfer("push", None, print)
    finally:
        processes.stop()
