"""The processes that do a run's work: one for each thing that DVC is asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from pipeline import errors
from pipeline.errors import DistillError, TransientError
from pipeline.failure import Failure

TOP: Final = Path(__file__).parents[1]
GRACE: Final = 12.0
"""Seconds that a process has to end all it started, before it is killed."""


class Outcome(BaseModel):
    """How it went.

    Attributes:
        changed: whether DVC had anything to do.
        failure: why it failed, if it did.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    changed: bool = False
    failure: Failure | None = None


class StageError(DistillError):
    """A stage or a transfer failed in a way that no retry heals; the message names its error."""


class StoppedError(DistillError):
    """The run was stopped while this was under way."""


class Processes:
    """Starts the processes of one run, and ends all of them at once.

    A process lives no longer than this one: it ends, with all it started, when its standard input
    is closed, which also happens when this process is killed.

    Args:
        folder: the project they work on.
        environment: variables for them, beside this process's own.
        lock: a file descriptor that they hold open, so that what it locks stays theirs.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], lock: int) -> None:
        self._folder, self._lock = folder, lock
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        self._environment = {
            **os.environ,
            "PATH": path,
            "PYTHONUNBUFFERED": "1",
            "DVC_NO_ANALYTICS": "1",
            "DO_NOT_TRACK": "1",
            **environment,
        }
        self._running: set[subprocess.Popen[str]] = set()
        self._guard = threading.Lock()
        self._stopped = False

    def reproduce(self, stage: str, say: Callable[[str], None]) -> bool:
        """Lets DVC reproduce one stage.

        Args:
            stage: its name.
            say: called with every line that it says.

        Returns:
            Whether there was anything to do.

        Raises:
            TransientError: it died, or lost what may come back.
            StageError: it failed for a reason that stays.
            StoppedError: :meth:`stop` was called.
        """
        return self._run(["reproduce", stage], say)

    def transfer(self, direction: str, remote: str | None, say: Callable[[str], None]) -> bool:
        """Lets DVC ``pull`` or ``push``; the rest is as of :meth:`reproduce`."""
        return self._run([direction, *([remote] if remote else [])], say)

    def stop(self) -> None:
        """Ends all processes and what they started; it takes ``GRACE`` seconds at most."""
        with self._guard:
            self._stopped = True
            running = list(self._running)
        for process in running:
            assert process.stdin is not None
            process.stdin.close()
        for process in running:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _run(self, arguments: list[str], say: Callable[[str], None]) -> bool:
        with tempfile.TemporaryDirectory(prefix="distill-") as folder:
            told = Path(folder) / "outcome.json"
            process = self._start([str(self._folder), str(told), *arguments])
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    say(line.rstrip("\n"))
                process.wait()
            finally:
                with self._guard:
                    self._running.discard(process)
            if self._stopped:
                raise StoppedError(f"{' '.join(arguments)} was stopped")
            if not told.exists():
                raise TransientError(f"{' '.join(arguments)} died with {process.returncode}")
            outcome = Outcome.model_validate_json(told.read_text())
        if outcome.failure is not None:
            kind = getattr(errors, outcome.failure.error, None)
            transient = isinstance(kind, type) and issubclass(kind, TransientError)
            name = "" if transient else f"{outcome.failure.error}: "
            raise (TransientError if transient else StageError)(
                f"{' '.join(arguments)}: {name}{outcome.failure.message}"
            )
        return outcome.changed

    def _start(self, arguments: list[str]) -> subprocess.Popen[str]:
        with self._guard:
            if self._stopped:
                raise StoppedError("the run was stopped")
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.dvc_process", *arguments],
                cwd=TOP,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                pass_fds=[self._lock],
            )
            self._running.add(process)
            return process
