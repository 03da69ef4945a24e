"""The flow distill-pipeline: a task for each of DVC's stages, run when Prefect says so.

Prefect decides when a stage runs and how often it is tried; whether there is anything to do, DVC.
"""

from __future__ import annotations

import inspect
import re
import time
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, ParamSpec, TypeVar

import httpx
from prefect import State, Task, flow, get_run_logger, task
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import StateType, TaskRun
from prefect.context import FlowRunContext
from prefect.futures import PrefectFuture
from prefect.states import Cancelled, Completed
from prefect.tasks import exponential_backoff

from flows.processes import TOP
from flows.progress import share_done
from flows.request import (
    Cluster,
    Keep,
    OnlyIfDataChanged,
    Overrides,
    Pull,
    Push,
    Remote,
    Request,
    Revision,
    StagesAtOnce,
    Teachers,
)
from flows.results import report_of, rows
from flows.run import Run, Say, parts, start
from flows.stages import Stage
from flows.starts import commit_of_run, refuse_vain_starts, since_last_end
from pipeline.errors import TransientError

P = ParamSpec("P")
R = TypeVar("R")

RETRIES: Final = 3
FIRST_DELAY: Final = 5
"""Seconds before the first retry; each further one waits twice as long."""
MOVES: Final = 2.0
"""Seconds between two updates of a progress artifact."""


def _described(function: Callable[P, R]) -> Callable[P, R]:
    """Adds to a docstring what the parameters mean: from there Prefect's form has it."""
    lines = [f"    {name}: {field.description}" for name, field in Request.model_fields.items()]
    function.__doc__ = "\n".join([inspect.getdoc(function) or "", "", "Args:", *lines])
    return function


@flow(name="distill-pipeline", persist_result=False)
@_described
def distill_pipeline(
    revision: Revision = "HEAD",
    teachers: Teachers = [],  # noqa: B006 - this signature is the form that people fill in
    overrides: Overrides = {},  # noqa: B006 - as above
    pull: Pull = True,
    push: Push = False,
    remote: Remote = None,
    cluster: Cluster = None,
    stages_at_once: StagesAtOnce = 1,
    keep: Keep = True,
    only_if_data_changed: OnlyIfDataChanged = False,
) -> State[None]:
    """Word images, teachers, assistants, students and the report, as far as DVC finds them stale.

    It happens in a worktree of its own: the checkout stays as it is. What failed or was cancelled
    goes on from where it was when it is run again with the same revision and parameters.
    """
    context = FlowRunContext.get()
    assert context is not None
    assert context.flow_run is not None
    states = since_last_end(context.flow_run)
    if any(state.type == StateType.CANCELLING for state in states):
        return Cancelled(message="It crashed after it had been cancelled.")
    refuse_vain_starts(states)
    request = Request(
        revision=commit_of_run(context.flow_run, TOP, revision),
        teachers=teachers,
        overrides=overrides,
        pull=pull,
        push=push,
        remote=remote,
        cluster=cluster,
        stages_at_once=stages_at_once,
        keep=keep,
        only_if_data_changed=only_if_data_changed,
    )
    say = _say()
    with start(request, say) as run:
        before: list[PrefectFuture[bool]] = []
        if pull:
            before.append(_transfer_task(run, "pull").submit())
        futures: dict[str, PrefectFuture[bool]] = {}
        for part, stages in enumerate(parts(run)):
            if part and request.jobs:
                before.append(_make_task("push-data", lambda: run.push_data(_say())).submit())
            _in_turn(run, stages, before, futures)
            _all_of([*before, *(futures[stage.name] for stage in stages)])
        if push:
            _all_of([_transfer_task(run, "push").submit(wait_for=list(futures.values()))])
        changed = [name for name, future in futures.items() if future.result()]
        did = f"Did {', '.join(changed)}." if changed else "No stage had anything to do."
        message = f"{did} {run.finish()}"
        say(message)
        return Completed(message=message)


def _in_turn(
    run: Run,
    stages: tuple[Stage, ...],
    before: list[PrefectFuture[bool]],
    futures: dict[str, PrefectFuture[bool]],
) -> None:
    """Submits each stage when those it needs have ended and its turn has come.

    A task that waited for its turn itself would show as running.

    Args:
        run: says how many stages may be at work.
        stages: each after those it needs.
        before: what all of them need.
        futures: of the stages that were run before; those of these come to them.
    """
    done, waiting = set(futures), list(stages)
    ended: SimpleQueue[str] = SimpleQueue()
    at_work = 0
    while waiting or at_work:
        ready = [stage for stage in waiting if done.issuperset(stage.needs)]
        for stage in ready[: run.request.stages_at_once - at_work]:
            needed = [futures[name] for name in stage.needs]
            future = _stage_task(run, stage).submit(wait_for=[*before, *needed])
            future.add_done_callback(partial(_tell, ended, stage.name))
            futures[stage.name] = future
            waiting.remove(stage)
            at_work += 1
        done.add(ended.get())
        at_work -= 1


def _tell(ended: SimpleQueue[str], stage: str, future: PrefectFuture[bool]) -> None:
    ended.put(stage)


def _all_of(futures: list[PrefectFuture[bool]]) -> None:
    """Waits for all of them, then raises the first error that is not another's consequence."""
    states = []
    for future in futures:
        future.wait()
        states.append(future.state)
    for state in sorted(states, key=lambda state: not state.is_failed()):
        if not state.is_completed():
            state.result(raise_on_failure=True)


def _heals(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Whether a retry may help."""
    return isinstance(state.result(raise_on_failure=False), TransientError)


def _make_task(name: str, work: Callable[[], bool]) -> Task[..., bool]:
    make = task(
        name=name,
        task_run_name=name,
        cache_policy=NO_CACHE,
        persist_result=False,
        retries=RETRIES,
        retry_delay_seconds=exponential_backoff(FIRST_DELAY),
        retry_condition_fn=_heals,
    )
    return make(work)


def _transfer_task(run: Run, direction: str) -> Task[..., bool]:
    def work() -> bool:
        return run.processes.transfer(direction, run.request.remote, _say())

    return _make_task(direction, work)


def _stage_task(run: Run, stage: Stage) -> Task[..., bool]:
    def work() -> bool:
        progress = _Progress(stage.name, _say())
        began = time.perf_counter()
        changed = run.processes.reproduce(stage.name, progress)
        seconds = time.perf_counter() - began
        progress.move(100)
        folder = run.worktree.folder
        _show(
            create_table_artifact,
            rows(stage, folder, changed=changed, seconds=seconds),
            key=_key(stage.name),
            description=f"What came of the stage {stage.name}",
        )
        if report := report_of(stage, folder):
            _show(create_markdown_artifact, report, key="result-matrix", description="Results")
        return changed

    return _make_task(stage.name, work)


class _Progress:
    """Says a stage's lines, and moves its progress artifact where they tell how far it is."""

    def __init__(self, stage: str, say: Say) -> None:
        self._say, self._moved = say, 0.0
        self._artifact = _show(
            create_progress_artifact,
            0.0,
            key=_key(f"progress-{stage}"),
            description=f"How far the stage {stage} is",
        )

    def __call__(self, line: str) -> None:
        self._say(line)
        share = share_done(line)
        if share is not None and time.monotonic() - self._moved > MOVES:
            self.move(share)

    def move(self, share: float) -> None:
        """Shows that so many percent are done."""
        self._moved = time.monotonic()
        if self._artifact is not None:
            _show(update_progress_artifact, self._artifact, progress=share)


def _show(make: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """Makes an artifact; a server that is away loses a picture of the run, not the run."""
    try:
        return make(*arguments, **named)
    except httpx.HTTPError as error:
        get_run_logger().warning("an artifact was lost: %s", error)
        return None


def _key(name: str) -> str:
    """A name as an artifact's key."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _say() -> Say:
    logger = get_run_logger()
    return lambda line: logger.info("%s", line)
