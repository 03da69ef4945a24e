"""What a Prefect server needs for the flow: a pool, a limit, and what looks after lost runs."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import Final

from prefect.automations import Automation
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists

from flows.flow import MACHINE, distill_pipeline

POOL: Final = "script-distill"
HEARTBEAT: Final = 30
"""Seconds between two signs of life of a run; Prefect takes no fewer."""
SILENCE: Final = 90
"""Seconds without one after which a run is taken for lost."""

_RUN = {"prefect.resource.id": "prefect.flow-run.*"}
_OURS = {"prefect.resource.role": "flow", "prefect.resource.name": distill_pipeline.name}
_ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Crashed", "Cancelled")}

LOST: Final = Automation(
    name="mark lost runs of distill-pipeline",
    description="A run that gives no sign of life any more is marked as crashed.",
    trigger=EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.heartbeat", *_ENDS},
        match=_RUN,
        match_related=_OURS,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=SILENCE),
    ),
    actions=[ChangeFlowRunState(state=StateType.CRASHED, message="No sign of life any more")],
)
AGAIN: Final = Automation(
    name="run crashed runs of distill-pipeline again",
    description="A crashed run is put back into the queue, and goes on from where it was.",
    trigger=EventTrigger(
        expect={"prefect.flow-run.Crashed"},
        match=_RUN,
        match_related=_OURS,
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    ),
    actions=[
        ChangeFlowRunState(
            state=StateType.SCHEDULED,
            name="AwaitingRetry",
            message="It crashed, and goes on from where it was",
            force=True,
        )
    ],
)


def install(client: SyncPrefectClient) -> None:
    """Makes all of it, where it is not there yet; what people changed in the UI stays."""
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    limits = {limit.name for limit in client.read_global_concurrency_limits(limit=200, offset=0)}
    if MACHINE not in limits:
        client.upsert_global_concurrency_limit_by_name(MACHINE, limit=1)
    for automation in (LOST, AGAIN):
        if not client.read_automations_by_name(automation.name):
            client.create_automation(automation)
