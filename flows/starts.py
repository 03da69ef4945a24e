"""What a run of Prefect's keeps from one of its starts to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun

from flows.worktree import commit_of

COMMIT: Final = "distill.commit"
"""The label of a run that names its commit."""


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
