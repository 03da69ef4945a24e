"""The processes that do a run's work: as many as things that DVC is asked for at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

from flows.marks import MARK, end
from pipeline.errors import DistillError, TransientError
from pipeline.failure import Failure, error_of

TOP: Final = Path(__file__).parents[1]
GRACE: Final = 12.0
"""Seconds that a process has to end all it started, before it is killed."""


OUTCOME: Final = "\x1eoutcome "
"""What comes before how it went; nobody else says this character."""


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
    is closed, which also happens when this process is killed. What it started lives no longer than
    it: where it is killed, this process ends that. Where both were killed, the next does, before it
    starts anything there.

    Args:
        folder: the project they work on, and no others at the same time.
        environment: variables for them, beside this process's own; None takes one away.
        locks: file descriptors that they hold open, so that what these lock stays theirs.
    """

    def __init__(
        self, folder: Path, environment: Mapping[str, str | None], locks: Sequence[int]
    ) -> None:
        self._folder, self._locks = folder, tuple(locks)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        wanted = {
            **os.environ,
            "PATH": path,
            "PYTHONUNBUFFERED": "1",
            "DVC_NO_ANALYTICS": "1",
            "DO_NOT_TRACK": "1",
            **environment,
        }
        self._environment = {name: value for name, value in wanted.items() if value is not None}
        # A path has no line's end: no folder's mark begins like another's.
        self._mark = f"{folder}\n"
        self._watchers: list[threading.Thread] = []
        self._all: list[subprocess.Popen[str]] = []
        self._idle: list[subprocess.Popen[str]] = []
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

    def transfer(
        self, direction: str, remote: str | None, say: Callable[[str], None], *targets: Path
    ) -> bool:
        """Lets DVC ``pull`` or ``push`` all or some; the rest is as of :meth:`reproduce`."""
        return self._run([direction, remote or "", *map(str, targets)], say)

    def stop(self) -> None:
        """Ends all processes and what they started; it takes ``GRACE`` seconds at most."""
        with self._guard:
            self._stopped = True
            alive = [process for process in self._all if process.poll() is None]
        for process in alive:
            assert process.stdin is not None
            process.stdin.close()
        for process in alive:
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                process.kill()
        for watcher in self._watchers:
            watcher.join()

    def _run(self, request: list[str], say: Callable[[str], None]) -> bool:
        process = self._take()
        asked = " ".join(filter(None, request))
        outcome = _ask(process, request, say)
        if self._stopped:
            raise StoppedError(f"{asked} was stopped")
        if outcome is None:
            ended = process.wait()
            kind = TransientError if ended < 0 else StageError
            raise kind(f"{asked}: its process ended with {ended} and told nothing")
        with self._guard:
            self._idle.append(process)
        if outcome.failure is None:
            return outcome.changed
        if isinstance(error_of(outcome.failure), TransientError):
            raise TransientError(f"{asked}: {outcome.failure.message}")
        raise StageError(f"{asked}: {outcome.failure.error}: {outcome.failure.message}")

    def _take(self) -> subprocess.Popen[str]:
        """A process that has nothing to do; to start one for every stage would take longer."""
        with self._guard:
            if self._stopped:
                raise StoppedError("the run was stopped")
            while self._idle:
                process = self._idle.pop()
                if process.poll() is None:
                    return process
            if not self._all:
                end(self._mark)
            mark = f"{self._mark}{len(self._all)}\n"
            process = subprocess.Popen(
                [sys.executable, "-m", "flows.dvc_process", str(self._folder)],
                cwd=TOP,
                env={**self._environment, MARK: mark},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                pass_fds=self._locks,
            )
            self._all.append(process)
            watcher = threading.Thread(target=_watch, args=(process, mark), daemon=True)
            self._watchers.append(watcher)
            watcher.start()
            return process


def _watch(process: subprocess.Popen[str], mark: str) -> None:
    """Ends what a process leaves behind; until then it would keep its output open too."""
    process.wait()
    end(mark)


def _ask(
    process: subprocess.Popen[str], request: list[str], say: Callable[[str], None]
) -> Outcome | None:
    """How it went; None where the process died over it."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    for line in process.stdout:
        # A command's last line may lack its end.
        said, mark, told = line.rstrip("\n").partition(OUTCOME)
        if said or not mark:
            say(said)
        if mark:
            return Outcome.model_validate_json(told)
    return None
