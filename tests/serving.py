"""A Prefect server and a worker of a tiny project's own, as `make prefect` starts them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
from commands import environment
from prefect import State
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
    TaskRunFilter,
)
from prefect.client.schemas.objects import Artifact, FlowRun, TaskRun
from prefect.client.schemas.sorting import ArtifactSort, FlowRunSort, LogSort, TaskRunSort
from prefect.states import AwaitingRetry, Cancelling
from projects import make_project

SECONDS = 150
"""After which something that is waited for is taken for hung."""
PAGE = 200
"""The most that the server gives at once."""


@dataclass(frozen=True)
class Served:
    """The project, a client of its server, its settings, and what was said at its start."""

    project: Path
    client: SyncPrefectClient
    settings: dict[str, str]
    said: str

    def submit(
        self, deployment: str = "local", *, state: State[Any] | None = None, **parameters: Any
    ) -> UUID:
        """Schedules a run, for now unless the state says otherwise."""
        found = self.client.read_deployment_by_name(f"distill-pipeline/{deployment}")
        run = self.client.create_flow_run_from_deployment(
            found.id, parameters=parameters, state=state
        )
        return run.id

    def ended(self, run: UUID, *states: str) -> FlowRun:
        """The run, once it is in one of these states."""
        until(lambda: self.run(run).state_name in states, lambda: self.log(run))
        return self.run(run)

    def run(self, run: UUID) -> FlowRun:
        return self.client.read_flow_run(run)

    def message(self, run: UUID) -> str:
        """Of the run's state."""
        state = self.run(run).state
        return str(state.message) if state else ""

    def tasks(self, run: UUID) -> dict[str, TaskRun]:
        """By name."""
        found = self.client.read_task_runs(
            flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])),
            sort=TaskRunSort.EXPECTED_START_TIME_ASC,
            limit=PAGE,
            offset=0,
        )
        return {task.name: task for task in found}

    def artifacts(self, run: UUID) -> dict[str, Artifact]:
        """By key."""
        found = self.client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run])),
            flow_run_filter=FlowRunFilter(),
            task_run_filter=TaskRunFilter(),
            sort=ArtifactSort.CREATED_DESC,
            limit=PAGE,
            offset=0,
        )
        return {str(artifact.key): artifact for artifact in found}

    def progress(self, run: UUID, stage: str) -> float:
        """How far a stage is, in percent."""
        artifact = self.artifacts(run).get(f"progress-{stage}")
        return float(str(artifact.data)) if artifact else 0.0

    def runs(self) -> list[FlowRun]:
        """All runs, the newest first."""
        return self.client.read_flow_runs(sort=FlowRunSort.START_TIME_DESC, limit=PAGE, offset=0)

    def log(self, run: UUID) -> str:
        lines: list[str] = []
        while True:
            found = self.client.read_logs(
                LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run])),
                sort=LogSort.TIMESTAMP_ASC,
                limit=PAGE,
                offset=len(lines),
            )
            lines += [line.message for line in found]
            if len(found) < PAGE:
                return "\n".join(lines)

    def cancel(self, run: UUID) -> None:
        """As the button in the UI does."""
        self.client.set_flow_run_state(run, Cancelling())

    def retry(self, run: UUID) -> None:
        """As the button in the UI does."""
        self.client.set_flow_run_state(run, AwaitingRetry())

    def training(self) -> list[psutil.Process]:
        """The training processes in the project's worktrees."""
        return [
            process
            for process in psutil.process_iter(["cmdline", "cwd"])
            # Not the shell that DVC starts it with, which some shells leave waiting for it.
            if (process.info["cmdline"] or [])[1:4] == ["-m", "pipeline", "train"]
            and str(process.info["cwd"]).startswith(str(self.project))
        ]

    def service(self, name: str) -> psutil.Process:
        """The ``server`` or the ``worker``."""
        content = json.loads((self.project / f".prefect/{name}.json").read_text())
        return psutil.Process(content["pid"])

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in the project, as from a shell that sourced .prefect/env."""
        return call(self.project, *command, **self.settings)


def call(project: Path, *command: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command in a project, to its end."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # The project has its own code: nothing is to be imported from this one's.
    known = {k: v for k, v in environment().items() if not k.startswith(("PREFECT", "PYTHONPATH"))}
    return subprocess.run(
        command,
        cwd=project,
        env={**known, "PATH": path, **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def until(condition: Callable[[], bool], told: Callable[[], str], seconds: float = SECONDS) -> None:
    """Waits for something; what is told explains why it did not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, told()
        time.sleep(0.1)


def locks(worktree: Path) -> dict[str, Any]:
    """Who holds a path for DVC."""
    file = worktree / ".dvc/tmp/rwlock"
    content: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    return {kind: held for kind, held in content.items() if any(held.values())}


def sourced(project: Path) -> dict[str, str]:
    """What .prefect/env sets in a shell, beside its path."""
    lines = (project / ".prefect/env").read_text().splitlines()
    pairs = [shlex.split(line.removeprefix("export "))[0].split("=", 1) for line in lines]
    return {name: value for name, value in pairs if name != "PATH"}


@contextmanager
def serve(
    folder: Path, environment: Mapping[str, str] | None = None, **project_options: Any
) -> Iterator[Served]:
    """Makes the project and starts everything, on a port that is free.

    Args:
        folder: the project's, to be made.
        environment: variables for the server, the worker and its runs.
        project_options: as for :func:`projects.make_project`.
    """
    project = make_project(folder, **project_options)
    server = (sys.executable, "-m", "flows.server")
    more = environment or {}
    try:
        done = call(project, *server, "start", "--port", "0", **more)
        assert done.returncode == 0, done.stdout + done.stderr
        settings = {**more, **sourced(project)}
        with SyncPrefectClient(settings["PREFECT_API_URL"]) as client:
            yield Served(project, client, settings, done.stdout)
    finally:
        stopped = call(project, *server, "stop")
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr
