"""Processes that carry a mark in their environment: they are found whoever their parent is by now.

One that loses its parent belongs to nobody any more, and would go on.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final

import psutil

MARK: Final = "DISTILL_MARK"
"""The variable that holds it."""
SECONDS: Final = 5.0
"""How long processes that were killed may take to be gone."""


def marked(mark: str) -> set[psutil.Process]:
    """The processes whose mark begins like this, and all below them, but not this one.

    Ray's workers write a title over their environment, but are below its raylet, which does not.
    """
    this, found = psutil.Process(), set[psutil.Process]()
    for process in psutil.process_iter():
        # Others' processes may not be looked into, and any may just have ended.
        with suppress(psutil.Error):
            if process != this and process.environ().get(MARK, "").startswith(mark):
                found |= {process, *process.children(recursive=True)}
    return {process for process in found if _runs(process)}


def end(mark: str) -> None:
    """Kills all of them; what they start meanwhile too."""
    assert mark, "every process begins with nothing"
    deadline = time.monotonic() + SECONDS
    while (left := marked(mark)) and time.monotonic() < deadline:
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=1)


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False
