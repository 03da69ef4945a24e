"""A run from its request to its end, whoever makes its tasks: Prefect, or plain threads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows.processes import TOP, Processes
from flows.request import Request
from flows.stages import DATA, Stage, data_stages, read_stages, trained_on_other_data
from flows.together import threads
from flows.worktree import CORES, Worktree, alone, worktree
from pipeline import compute

Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """A run that has its worktree.

    Attributes:
        request: what was asked for.
        worktree: where it happens.
        processes: what works for it.
    """

    request: Request
    worktree: Worktree
    processes: Processes

    def stages(self) -> tuple[Stage, ...]:
        """The stages of its project, each after those it needs."""
        return read_stages(self.worktree.folder)

    def push_data(self, say: Say) -> bool:
        """Sends the shards to the remote that jobs on a cluster stream them from."""
        return self.processes.transfer("push", compute.load().stream, say, DATA)

    def finish(self) -> str:
        """Keeps or drops what came of it.

        Returns:
            A sentence that says where it is.
        """
        folder = self.worktree.folder
        if not self.request.keep:
            if self.worktree.kept:
                return f"The worktree stays, since another run kept it: {folder}."
            self.worktree.drop()
            return "The worktree was dropped; stages take what they made from DVC's cache."
        changed, where = self.worktree.keep("Keep what distill-pipeline made")
        if not changed:
            return f"Nothing changed {where}, in {folder}."
        return f"The results are {where}, in {folder}."


@contextmanager
def start(request: Request, say: Say, checkout: Path = TOP) -> Iterator[Run]:
    """Gives a run its worktree; when the block ends, so have all its processes.

    Args:
        request: what is asked for.
        say: told what takes its time.
        checkout: whose worktree it is.

    Raises:
        UsageError: the request cannot be.
    """

    def waiting() -> None:
        say("another run has the same revision and settings: waiting for its end")

    def taken() -> None:
        say("another run is at work on this machine: waiting for its end")

    with worktree(checkout.resolve(), request, waiting) as place, ExitStack() as machine:
        say(f"working in {place.folder}")
        locks = [place.lock]
        if not request.cluster:
            # Two trainings would share the cores, and each take twice as long.
            locks.append(machine.enter_context(alone(place.checkout / CORES, taken)))
        # Without a cluster it is this machine, whatever the shell that started all this points at.
        environment = {"DISTILL_STOP_JOBS": "true", "RAY_ADDRESS": request.cluster}
        if not request.cluster:
            environment["DISTILL_THREADS"] = str(threads(request.stages_at_once))
        processes = Processes(place.folder, environment, locks)
        try:
            yield Run(request, place, processes)
        finally:
            processes.stop()


def parts(run: Run) -> Iterator[tuple[Stage, ...]]:
    """The stages in one part; or in two, those that make the data first.

    With ``only_if_data_changed`` the second comes only after other data; jobs on a cluster need the
    data in a remote before it. The caller runs each part to its end before it asks for the next.
    """
    stages = run.stages()
    if not run.request.only_if_data_changed and not run.request.jobs:
        yield stages
        return
    first = data_stages(stages)
    yield first
    rest = tuple(stage for stage in stages if stage not in first)
    if not run.request.only_if_data_changed or trained_on_other_data(run.worktree.folder, rest):
        yield rest


def log_to(logger: logging.Logger) -> Say:
    """Says things as log lines."""
    return lambda line: logger.info("%s", line)
