"""Work that one process at a time may be at."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from pipeline.errors import UsageError


def hold(path: Path, work: str) -> IO[str]:
    """A file that this process alone holds, until it closes it or ends, however it ends.

    Args:
        path: of the file; it is made, and stays.
        work: what it stands for, for the message.

    Raises:
        UsageError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UsageError(
            f"another process is at {work} (it holds {path}): wait for it, or end it"
        ) from None
    return file
