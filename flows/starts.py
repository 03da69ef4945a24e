"""What a run of Prefect's keeps from one of its starts to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State, StateType

from flows.worktree import commit_of
from pipeline.errors import DistillError

COMMIT: Final = "distill.commit"
"""The label of a run that names its commit."""


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
    if kept := run.labels.get(COMMIT):
        return str(kept)
    commit = commit_of(checkout, revision)
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(run.id, {COMMIT: commit})
    return commit
