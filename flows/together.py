"""Stages side by side, each when those it needs are done: by plain threads, without Prefect."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import FrameType

from flows.processes import Processes
from flows.stages import Stage
from pipeline import compute
from pipeline.errors import DistillError

log = logging.getLogger(__name__)


class SkippedError(DistillError):
    """A stage was not run, since one that it needs failed."""


def reproduce(
    stages: Sequence[Stage], processes: Processes, turns: threading.Semaphore
) -> dict[str, bool]:
    """Lets DVC reproduce every stage; one that fails stops only those that need it.

    Args:
        stages: each after those it needs, as far as these are among them.
        processes: what works for them; all are ended when this is interrupted.
        turns: given to as many stages at once as may be.

    Returns:
        Whether there was anything to do, for every stage.

    Raises:
        DistillError: the first that a stage failed with; further ones are logged.
    """
    futures: dict[str, Future[bool]] = {}
    with ThreadPoolExecutor(len(stages)) as pool:
        try:
            for stage in stages:
                before = [futures[name] for name in stage.needs if name in futures]
                futures[stage.name] = pool.submit(_after, before, stage, processes, turns)
            errors = [error for future in futures.values() if (error := future.exception())]
        except BaseException:
            # The threads wait for processes, which would go on.
            processes.stop()
            raise
    own = [error for error in errors if not isinstance(error, SkippedError)]
    for error in own[1:]:
        log.error("error: %s", error)
    if own:
        raise own[0]
    return {name: future.result() for name, future in futures.items()}


def threads(stages: int) -> int:
    """How many CPU threads a worker gets on this machine with so many stages side by side."""
    chosen = compute.load()
    workers = stages * max(1, chosen.workers)
    return chosen.threads or max(1, compute.cores() // workers)


def end_at_once(number: int, frame: FrameType | None) -> None:
    """A signal's handler that ends this process the orderly way."""
    raise SystemExit(128 + number)


def _after(
    before: list[Future[bool]], stage: Stage, processes: Processes, turns: threading.Semaphore
) -> bool:
    if any(future.exception() for future in before):
        raise SkippedError(f"{stage.name} was not run: a stage that it needs failed")
    with turns:
        began = time.perf_counter()
        changed = processes.reproduce(stage.name, lambda line: log.info("%s", line))
        what = "done" if changed else "nothing to do"
        log.info("%s: %s, %.1f s", stage.name, what, time.perf_counter() - began)
        return changed
