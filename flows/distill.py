"""python -m flows.distill: the whole pipeline, in a worktree of its own, without a server."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path

import yaml
from pydantic import ValidationError
from pydantic_settings import CliApp, SettingsError

from flows.processes import TOP
from flows.request import Request
from flows.run import log_to, parts, start
from flows.together import end_at_once, reproduce
from pipeline.errors import DistillError, UsageError

log = logging.getLogger(__name__)


def main() -> None:
    """Runs what the command line asks for. Exit codes: 0 good, 1 failed, 2 wrong use."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    signal.signal(signal.SIGTERM, end_at_once)
    try:
        distill(_asked(sys.argv[1:]), TOP)
    except DistillError as error:
        log.error("error: %s", error)
        raise SystemExit(error.exit_code) from error


def _asked(arguments: list[str]) -> Request:
    """What the command line asks for.

    Raises:
        UsageError: an option has a value that is refused.
    """
    try:
        asked = CliApp.run(Request, arguments)
        # `--overrides seed=1` gives a text, which means what it would mean in params.yaml.
        typed = {
            key: yaml.safe_load(value) if isinstance(value, str) else value
            for key, value in asked.overrides.items()
        }
    except ValidationError as error:
        lines = [
            f"  --{str(item['loc'][0]).replace('_', '-')}: {item['msg']} (got {item['input']!r})"
            for item in error.errors()
        ]
        raise UsageError("\n".join(["bad options:", *lines])) from error
    except SettingsError as error:
        raise UsageError(
            f"bad options: {error}; overrides are KEY=VALUE or a JSON object"
        ) from error
    except yaml.YAMLError as error:
        raise UsageError(
            f"bad options: --overrides: no value as in params.yaml: {error}"
        ) from error
    return asked.model_copy(update={"overrides": typed})


def distill(request: Request, checkout: Path) -> None:
    """Pulls, reproduces every stage, pushes.

    Raises:
        DistillError: one stage failed; those that do not need it were run all the same.
    """
    with start(request, log.info, checkout) as run:
        if request.pull:
            run.processes.transfer("pull", request.remote, log_to(log))
        outcomes: dict[str, bool] = {}
        turns = threading.Semaphore(request.stages_at_once)
        for part, stages in enumerate(parts(run)):
            if part and request.jobs:
                run.push_data(log_to(log))
            outcomes |= reproduce(stages, run.processes, turns)
        if request.push:
            run.processes.transfer("push", request.remote, log_to(log))
        if not any(outcomes.values()):
            log.info("No stage had anything to do.")
        log.info("%s", run.finish())


if __name__ == "__main__":
    main()
