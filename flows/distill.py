"""python -m flows.distill: the whole pipeline, in a worktree of its own, without a server."""

from __future__ import annotations

import logging
import signal
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import yaml
from pydantic_settings import CliApp

from flows.processes import TOP
from flows.request import Request
from flows.run import Run, log_to, parts, start
from flows.stages import Stage
from pipeline.errors import DistillError

log = logging.getLogger(__name__)


class SkippedError(DistillError):
    """A stage was not run, since one that it needs failed."""


def main() -> None:
    """Runs what the command line asks for. Exit codes: 0 good, 1 failed, 2 wrong use."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    signal.signal(signal.SIGTERM, _end)
    try:
        asked = CliApp.run(Request, sys.argv[1:])
        # `--overrides seed=1` gives a text, which means what it would mean in params.yaml.
        typed = {
            key: yaml.safe_load(value) if isinstance(value, str) else value
            for key, value in asked.overrides.items()
        }
        distill(asked.model_copy(update={"overrides": typed}), TOP)
    except DistillError as error:
        log.error("error: %s", error)
        raise SystemExit(error.exit_code) from error


def distill(request: Request, checkout: Path) -> None:
    """Pulls, reproduces every stage, pushes.

    Raises:
        DistillError: one stage failed; those that do not need it were run all the same.
    """
    with start(request, log.info, checkout) as run:
        if request.pull:
            run.processes.transfer("pull", request.remote, log_to(log))
        outcomes: dict[str, bool] = {}
        for stages in parts(run):
            outcomes |= _reproduce(run, stages)
        if request.push:
            run.processes.transfer("push", request.remote, log_to(log))
        if not any(outcomes.values()):
            log.info("No stage had anything to do.")
        log.info("%s", run.finish())


def _reproduce(run: Run, stages: tuple[Stage, ...]) -> dict[str, bool]:
    """Whether there was anything to do, for every stage."""
    futures: dict[str, Future[bool]] = {}
    with ThreadPoolExecutor(len(stages)) as pool:
        try:
            for stage in stages:
                before = [futures[name] for name in stage.needs if name in futures]
                futures[stage.name] = pool.submit(_after, before, run, stage)
            errors = [error for future in futures.values() if (error := future.exception())]
        except BaseException:
            # The threads wait for processes, which would go on.
            run.processes.stop()
            raise
    own = [error for error in errors if not isinstance(error, SkippedError)]
    for error in own[1:]:
        log.error("error: %s", error)
    if own:
        raise own[0]
    return {name: future.result() for name, future in futures.items()}


def _after(before: list[Future[bool]], run: Run, stage: Stage) -> bool:
    if any(future.exception() for future in before):
        raise SkippedError(f"{stage.name} was not run: a stage that it needs failed")
    with run.turns:
        began = time.perf_counter()
        changed = run.processes.reproduce(stage.name, log_to(log))
        what = "done" if changed else "nothing to do"
        log.info("%s: %s, %.1f s", stage.name, what, time.perf_counter() - began)
        return changed


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    main()
