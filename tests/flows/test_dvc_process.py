"""How a stage's command ended, told by the process that runs it for DVC."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import make_project
from serving import call

from flows.processes import Processes, StageError
from pipeline.errors import TransientError

COMMANDS = {
    "missing": "no-such-command",
    "import": "python -c 'import no_such_module'",
    "usage": "python -m pipeline train",
    "told": "python -m pipeline train nobody",
    "killed": "kill -9 $$",
    "killed-below": "sh -c 'kill -9 $$'; exit $?",
    "done": "touch out",
}
STAGES = "stages:\n" + "".join(
    f"  {name}:\n    cmd: {command}\n" for name, command in COMMANDS.items()
)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    project = make_project(tmp_path_factory.mktemp("ends") / "project", stages=STAGES)
    started = Processes(project, {}, [])
    yield started
    started.stop()


@pytest.mark.parametrize("stage", ["missing", "import", "usage", "told"])
def test_a_command_that_ends_by_itself_would_fail_again(processes: Processes, stage: str) -> None:
    with pytest.raises(StageError, match=f"reproduce {stage}"):
        processes.reproduce(stage, print)


@pytest.mark.parametrize("stage", ["killed", "killed-below"])
def test_a_command_that_was_killed_may_do_better(processes: Processes, stage: str) -> None:
    with pytest.raises(TransientError, match=f"reproduce {stage}"):
        processes.reproduce(stage, print)


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
