"""What a Prefect server needs for the flow: a pool, deployments, a look after lost runs."""

from __future__ import annotations

import shlex
import sys
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentUpdate,
    WorkPoolCreate,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from pydantic import BaseModel, ConfigDict

from flows.flow import distill_pipeline

POOL: Final = "script-distill"
QUEUES: Final = {"machine": 1, "cluster": None}
"""How many runs of a queue may be under way: on one machine two trainings would share the cores."""
HEARTBEAT: Final = 30
"""Seconds between two signs of life of a run; Prefect takes no fewer."""
SILENCE: Final = 90
"""Seconds without one after which a run is taken for lost."""
CANCELLING: Final = 60
"""Seconds after which nothing is left that could end a cancelled run: it takes 15 at most."""
PAUSE: Final = 15
"""Seconds from a crash to the next start."""

_RUN = {"prefect.resource.id": "prefect.flow-run.*"}
_OURS = {"prefect.resource.role": "flow", "prefect.resource.name": distill_pipeline.name}
_ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Crashed", "Cancelled")}

LOST: Final = AutomationCore(
    name="mark lost runs of distill-pipeline",
    description="A run that gives no sign of life any more is marked as crashed.",
    trigger=EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.heartbeat", "prefect.flow-run.Cancelling", *_ENDS},
        match=_RUN,
        match_related=_OURS,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=SILENCE),
    ),
    actions=[ChangeFlowRunState(state=StateType.CRASHED, message="No sign of life any more")],
)
UNENDED: Final = AutomationCore(
    name="mark lost cancelled runs of distill-pipeline",
    description="A cancelled run whose process and worker are gone is marked as cancelled.",
    trigger=EventTrigger(
        after={"prefect.flow-run.Cancelling"},
        expect=_ENDS,
        match=_RUN,
        match_related=_OURS,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=CANCELLING),
    ),
    actions=[ChangeFlowRunState(state=StateType.CANCELLED, message="Nothing of it was left")],
)
# It waits, since a worker reports a crash twice within seconds, and the second report would undo
# what came in between.
AGAIN: Final = AutomationCore(
    name="run crashed runs of distill-pipeline again",
    description="A crashed run is put back into the queue, and goes on from where it was.",
    trigger=EventTrigger(
        after={"prefect.flow-run.Crashed"},
        expect={f"prefect.flow-run.{state}" for state in ("AwaitingRetry", "Running", "Cancelled")},
        match=_RUN,
        match_related=_OURS,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=PAUSE),
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


class _Schedule(BaseModel):
    model_config = ConfigDict(extra="forbid")

    cron: str
    timezone: str
    active: bool


class _Pool(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    work_queue_name: str


class _Deployment(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    description: str
    entrypoint: str
    work_pool: _Pool
    parameters: dict[str, Any] = {}
    schedules: list[_Schedule] = []


def install(client: SyncPrefectClient, checkout: Path) -> None:
    """Makes all of it; queues, automations and schedules that are there stay as they are."""
    with suppress(ObjectAlreadyExists):
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    for name, limit in QUEUES.items():
        with suppress(ObjectAlreadyExists):
            client.create_work_queue(name, work_pool_name=POOL, concurrency_limit=limit)
    for automation in (LOST, UNENDED, AGAIN):
        if not client.read_automations_by_name(automation.name):
            client.create_automation(automation)
    _deploy(client, checkout)


def _deploy(client: SyncPrefectClient, checkout: Path) -> None:
    """Does what `prefect deploy --all` does, which in Prefect 3.8.8 ends with an error.

    It asks the server for workers with a limit of null, which FastAPI 0.154 refuses.
    """
    content = yaml.safe_load((checkout / "prefect.yaml").read_text())
    flow_id = client.create_flow_from_name(distill_pipeline.name)
    for entry in content["deployments"]:
        deployment = _Deployment.model_validate(entry)
        settings: dict[str, Any] = {
            "description": deployment.description,
            "entrypoint": deployment.entrypoint,
            "work_pool_name": deployment.work_pool.name,
            "work_queue_name": deployment.work_pool.work_queue_name,
            "parameters": deployment.parameters,
            "parameter_openapi_schema": distill_pipeline.parameters.model_dump_for_openapi(),
            "enforce_parameter_schema": True,
            "pull_steps": [
                {"prefect.deployments.steps.set_working_directory": {"directory": str(checkout)}}
            ],
            # With a command of its own a run starts at once; otherwise Prefect first starts a
            # process that prepares a workspace, which takes as long as the run's own start.
            "job_variables": {
                "command": shlex.join([sys.executable, "-m", "prefect.engine"]),
                "working_dir": str(checkout),
            },
        }
        there = _deployed(client, deployment.name)
        if there is None:
            schedules = [
                DeploymentScheduleCreate(
                    schedule=CronSchedule(cron=one.cron, timezone=one.timezone), active=one.active
                )
                for one in deployment.schedules
            ]
            client.create_deployment(flow_id, deployment.name, schedules=schedules, **settings)
        else:
            # Schedules are changed in the UI.
            client.update_deployment(there.id, DeploymentUpdate(**settings))


def _deployed(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    """The deployment of that name, if there is one."""
    try:
        return client.read_deployment_by_name(f"{distill_pipeline.name}/{name}")
    except ObjectNotFound:
        return None
