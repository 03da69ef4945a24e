"""python -m flows.repro: what ``dvc repro`` does, with stages side by side that allow it.

A small network trains little faster on two cores than on one: two of them side by side, each on
one, take less time than one after the other. What DVC finds, keeps and locks is the same.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from pathlib import Path

from flows.processes import Processes
from flows.stages import read_stages
from flows.together import end_at_once, reproduce, threads
from flows.worktree import CORES, alone
from pipeline import compute
from pipeline.errors import DistillError

log = logging.getLogger(__name__)

AT_ONCE = 2


def main() -> None:
    """Reproduces every stage of the project here. Exit codes: 0 good, 1 failed, 2 wrong use."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    signal.signal(signal.SIGTERM, end_at_once)
    try:
        repro(Path.cwd())
    except DistillError as error:
        log.error("error: %s", error)
        raise SystemExit(error.exit_code) from error


def repro(project: Path) -> None:
    """Reproduces every stage, where it is; what else would train here waits until its end.

    Raises:
        DistillError: one stage failed; those that do not need it were run all the same.
    """
    at_once = min(AT_ONCE, compute.cores())
    with alone(project / CORES, _waiting) as cores:
        processes = Processes(project, {"DISTILL_THREADS": str(threads(at_once))}, [cores])
        try:
            reproduce(read_stages(project), processes, threading.Semaphore(at_once))
        finally:
            processes.stop()


def _waiting() -> None:
    log.info("another run is at work here: waiting for its end")


if __name__ == "__main__":
    main()
