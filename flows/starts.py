"""What a run of Prefect's keeps from one of its starts to the next."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import AwaitingRetry, Cancelled

from flows.worktree import commit_of
from pipeline.errors import DistillError

COMMIT: Final = "distill.commit"
"""The label of a run that names its commit."""
PLACE: Final = "distill.checkout"
"""The label that names the machine and the checkout where it was last started."""
STARTS: Final = 5
"""How often a run may be started, until it ends as something else than crashed."""


def since_last_end(run: FlowRun) -> list[State]:
    """The states of a run since it ended as something else than crashed; the oldest first."""
    with get_client(sync_client=True) as client:
        states = sorted(client.read_flow_run_states(run.id), key=lambda state: state.timestamp)
    ends = (StateType.FAILED, StateType.COMPLETED, StateType.CANCELLED)
    last = max((place for place, state in enumerate(states) if state.type in ends), default=-1)
    return states[last + 1 :]


def refuse_vain_starts(states: list[State]) -> None:
    """Lets a run that takes its process down each time come to an end.

    Somebody who has it tried again after that gives it as many starts anew.

    Args:
        states: since the last end.

    Raises:
        DistillError: it was started too often.
    """
    starts = sum(state.is_running() for state in states)
    if starts > STARTS:
        raise DistillError(
            f"this run was started {starts} times: see why it ends before its end, "
            "then have it tried again"
        )


def commit_of_run(run: FlowRun, checkout: Path, revision: str) -> str:
    """The commit that the revision named at the run's first start, whatever it names by now.

    Raises:
        UsageError: there is no such revision.
    """
    commit = str(run.labels.get(COMMIT) or commit_of(checkout, revision))
    labels: dict[str, str | int | float | bool] = {COMMIT: commit, PLACE: _place(checkout)}
    if not labels.items() <= run.labels.items():
        with get_client(sync_client=True) as client:
            client.update_flow_run_labels(run.id, labels)
    return commit


def put_back(client: SyncPrefectClient, checkout: Path) -> list[str]:
    """Puts runs back into the queue that are no longer at work on this machine.

    The automations do so too, but what a server saw before its own end it does not connect with
    what comes after. A run that was cancelled ends instead.

    Args:
        client: of the server, which has no worker of this checkout now.
        checkout: whose runs.

    Returns:
        The runs' names.
    """
    under_way = [
        StateType.PENDING,
        StateType.RUNNING,
        StateType.CANCELLING,
        StateType.CRASHED,
    ]
    found = client.read_flow_runs(
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=under_way))
        ),
        # What is left out here Prefect 3.8.8 sends as null, which its server refuses.
        sort=FlowRunSort.EXPECTED_START_TIME_ASC,
        limit=200,
        offset=0,
    )
    alive = _at_work()
    lost = [
        run
        for run in found
        if run.labels.get(PLACE) == _place(checkout) and str(run.id) not in alive
    ]
    for run in lost:
        state: State[Any] = Cancelled(message="Nothing of it was left")
        if run.state_type != StateType.CANCELLING:
            # Its first time: it goes before those that were asked for after it.
            state = AwaitingRetry(
                scheduled_time=run.expected_start_time,
                message="Its process was gone, and it goes on from where it was",
            )
        client.set_flow_run_state(run.id, state, force=True)
    return [run.name for run in lost]


def _place(checkout: Path) -> str:
    return f"{socket.gethostname()}:{checkout}"


def _at_work() -> set[str]:
    """The runs that are at work on this machine, by their numbers at the server.

    What a killed run had started takes seconds to end, and is no longer the run.
    """
    found = set()
    for process in psutil.process_iter():
        # Others' processes may not be looked into, and any may just have ended.
        with suppress(psutil.Error):
            if "prefect.engine" in process.cmdline():
                found.add(process.environ().get("PREFECT__FLOW_RUN_ID", ""))
    return found
