"""python -m flows.dvc_process FOLDER: does what DVC is asked for in a project, in a process apart.

A request is a line of standard input, a JSON list: reproduce STAGE, pull REMOTE TARGET...,
push REMOTE TARGET...; an empty remote is DVC's default, no target is everything.
What is said goes to standard output, and at last how it went, errors by type. When its standard
input is closed the process ends, with all that it started.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue

import psutil
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from dvc.exceptions import CheckoutError, DvcException, FileTransferError, ReproductionError
from dvc.repo import Repo
from dvc.stage import run as dvc_run
from dvc.stage.exceptions import StageCmdFailedError

from flows.healing import heals
from flows.marks import MARK, end
from flows.processes import OUTCOME, Outcome
from pipeline.errors import DataError, DistillError, TransientError, UsageError
from pipeline.failure import FAILURE_FILE, Failure, failure_of

POLITE = 6.0
"""Seconds that a stage's command has to end by itself, before all of it is killed."""
SHELLS = {"sh", "bash", "dash", "zsh", "fish", "ksh", "busybox"}
REFUSED = (PermissionError, NoCredentialsError, PartialCredentialsError)
"""What a remote's client raises where the keys are wrong or missing, or allow too little."""


class CommandFailedError(StageCmdFailedError):  # type: ignore[misc]
    """What DVC raises of a stage's command, with how that ended, which DVC puts into a text only.

    Attributes:
        status: its exit code, or the negative number of the signal that ended it.
    """

    def __init__(self, cmd: str, status: int | None = None) -> None:
        super().__init__(cmd, status)
        self.status = status or 0

    @property
    def killed(self) -> bool:
        """Whether a signal ended it, or what its shell ran: a shell then exits with 128 more."""
        return self.status < 0 or self.status > 128


def main() -> None:
    """Serves requests, one after another."""
    dvc_run.StageCmdFailedError = CommandFailedError
    # DVC takes a stage's name relative to where it is called.
    os.chdir(sys.argv[1])
    logging.getLogger("dvc").setLevel(logging.INFO)
    requests: SimpleQueue[list[str] | None] = SimpleQueue()
    receiver = threading.Thread(target=_receive, args=(requests,), daemon=True)
    receiver.start()
    try:
        while (request := requests.get()) is not None:
            what, *rest = request
            outcome = reproduce(*rest) if what == "reproduce" else transfer(what, *rest)
            sys.stdout.write(f"{OUTCOME}{outcome.model_dump_json()}\n")
            sys.stdout.flush()
    except BrokenPipeError:
        # Whoever asked is gone. To end now would leave alive what the receiver is just ending.
        receiver.join()


def reproduce(stage: str) -> Outcome:
    """``dvc repro --single-item STAGE``; a failed command tells its own error."""
    with tempfile.TemporaryDirectory(prefix="distill-") as folder:
        file = Path(folder) / "failure.json"
        os.environ[FAILURE_FILE] = str(file)
        try:
            with Repo(_wait_for_lock=True) as repo:
                changed = repo.reproduce(targets=stage, single_item=True)
        except ReproductionError as error:
            cause = error.__cause__ or error
            if isinstance(cause, CommandFailedError):
                if file.exists():
                    return Outcome(failure=Failure.model_validate_json(file.read_text()))
                # It could not tell. One that was killed may do better; one that could not be
                # started, or was called in a wrong way, would fail again.
                kind = TransientError if cause.killed else DistillError
                return Outcome(failure=failure_of(kind(str(cause))))
            return _failed(cause)
        except DvcException as error:
            return _failed(error)
    return Outcome(changed=bool(changed))


def transfer(direction: str, remote: str, *targets: str) -> Outcome:
    """``dvc pull`` or ``dvc push``.

    What the remote does not have is not pulled, and made by its stage.
    """
    # A pull warns of every output that no stage has made yet.
    logging.getLogger("dvc_data").setLevel(logging.ERROR)
    with _logged() as logged:
        try:
            with Repo(_wait_for_lock=True) as repo:
                if direction == "push":
                    return Outcome(changed=bool(repo.push(list(targets), remote=remote or None)))
                # Forced, for a stage that was killed may have left an output that DVC never saw.
                pulled = repo.pull(
                    list(targets), remote=remote or None, allow_missing=True, force=True
                )
                return Outcome(changed=any(pulled["stats"].values()))
        except (DvcException, OSError, BotoCoreError, ClientError) as error:
            return _failed(error, logged)


@contextmanager
def _logged() -> Iterator[list[BaseException]]:
    """The exceptions that DVC logs: of files that were not transferred it raises the number."""
    found: list[BaseException] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1]:
                found.append(record.exc_info[1])

    logger, handler = logging.getLogger("dvc_data"), Keep()
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)


def _failed(error: BaseException, logged: Sequence[BaseException] = ()) -> Outcome:
    """What to tell of an error.

    Args:
        error: that DVC raised.
        logged: why files were not transferred, where that is what it raised.
    """
    refused = next((one for one in (error, *logged) if isinstance(one, REFUSED)), None)
    if refused is not None:
        error = UsageError(f"refused, see to the keys and rights: {refused}")
    elif isinstance(error, FileTransferError) and logged:
        # One that no retry heals decides: the others may be its consequence.
        first = next((one for one in logged if not heals(one)), logged[0])
        kind = TransientError if heals(first) else DistillError
        error = kind(f"{error}: {first}")
    elif heals(error):
        error = TransientError(str(error))
    elif isinstance(error, CheckoutError):
        error = DataError(str(error))
    elif isinstance(error, DvcException):
        error = UsageError(f"DVC refused: {error}")
    return Outcome(failure=failure_of(error))


def _receive(requests: SimpleQueue[list[str] | None]) -> None:
    """Takes requests up to the end of standard input, then ends all that this process started."""
    # The unbuffered file: an interpreter that ends would wait for a buffer's lock.
    with open(0, "rb", buffering=0, closefd=False) as lines:
        for line in lines:
            requests.put(json.loads(line))
    _end_children()
    requests.put(None)
    # DVC now gives back its locks; if it hangs in a transfer it is not waited for.
    time.sleep(POLITE / 3)
    os._exit(1)


def _end_children() -> None:
    """Asks commands to end, and after a while ends all that is left of them."""
    mark, started = os.environ[MARK], psutil.Process().children()
    commands = [command for process in started for command in _commands(process)]
    for process in commands:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    # Ray's processes end by themselves when their driver has, and some do it just now.
    psutil.wait_procs(commands, timeout=POLITE)
    end(mark)


def _commands(process: psutil.Process) -> list[psutil.Process]:
    """A process, and if it is a shell what that runs: shells do not pass signals on.

    The shell is the first: it would go on with its next command.
    """
    with suppress(psutil.Error):
        if Path(process.exe()).name in SHELLS:
            below = process.children()
            return [process, *(command for child in below for command in _commands(child))]
    return [process]


if __name__ == "__main__":
    main()
