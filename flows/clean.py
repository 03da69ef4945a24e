"""python -m flows.clean: removes worktrees that no run was in for some time."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from flows.processes import TOP
from flows.worktree import WORKTREES, Worktree, alone
from pipeline.errors import DistillError

log = logging.getLogger(__name__)

app = typer.Typer(pretty_exceptions_enable=False)


class _AtWorkError(DistillError):
    """A run has the worktree."""


def main() -> None:
    """Runs the command line. Exit codes: 0 good, 1 failed, 2 wrong use."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    try:
        app()
    except DistillError as error:
        log.error("error: %s", error)
        raise SystemExit(error.exit_code) from error


@app.command()
def clean(
    days: Annotated[int, typer.Option(min=0, help="Without a run for so many days.")] = 30,
) -> None:
    """Remove worktrees with their checkpoints; branches and DVC's cache stay."""
    for folder in sorted(TOP.glob(f"{WORKTREES}/*/")):
        if folder.name != "locks":
            log.info("%s: %s", folder.name, _clean(TOP, folder, days))


def _clean(checkout: Path, folder: Path, days: int) -> str:
    """Removes a worktree that is old enough.

    Returns:
        What became of it.
    """
    try:
        with alone(folder.parent / "locks" / folder.name, _at_work) as lock:
            worktree = Worktree(folder.name, folder, checkout, lock)
            idle = (time.time() - worktree.used) / 86_400
            if idle < days:
                return f"stays, had a run {idle:.0f} days ago"
            worktree.drop()
            return "removed"
    except _AtWorkError:
        return "stays, a run is at work in it"


def _at_work() -> None:
    raise _AtWorkError


if __name__ == "__main__":
    main()
