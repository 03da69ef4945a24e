"""python -m flows.dvc_process FOLDER OUTCOME reproduce STAGE | pull [REMOTE] | push [REMOTE].

One thing that DVC is asked for, in a process of its own, which ends with all that it started when
its standard input is closed. It writes how it went, errors by type, into the file OUTCOME.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
from dvc.exceptions import CheckoutError, DvcException, FileTransferError, ReproductionError
from dvc.lock import LockError
from dvc.repo import Repo
from dvc.stage.exceptions import StageCmdFailedError

from flows.processes import Outcome
from pipeline.errors import DataError, TransientError, UsageError
from pipeline.failure import FAILURE_FILE, Failure, failure_of
from pipeline.files import write_whole

POLITE = 6.0
"""Seconds that a stage's command has to end by itself, before all of it is killed."""


def main() -> None:
    """Does it, and exits with 0 or 1."""
    folder, told, what, *rest = sys.argv[1:]
    logging.getLogger("dvc").setLevel(logging.INFO)
    if what == "pull":
        # It warns of every output that no stage has made yet.
        logging.getLogger("dvc_data").setLevel(logging.ERROR)
    threading.Thread(target=_end_when_told, daemon=True).start()
    # DVC takes a stage's name relative to where it is called.
    os.chdir(folder)
    outcome = reproduce(rest[0]) if what == "reproduce" else transfer(what, *rest)
    write_whole(Path(told), outcome.model_dump_json())
    raise SystemExit(1 if outcome.failure else 0)


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
            if not isinstance(cause, StageCmdFailedError):
                return _failed(cause)
            if file.exists():
                return Outcome(failure=Failure.model_validate_json(file.read_text()))
            # It was killed: whoever fails by himself says why.
            return _failed(TransientError(str(cause)))
        except DvcException as error:
            return _failed(error)
    return Outcome(changed=bool(changed))


def transfer(direction: str, remote: str | None = None) -> Outcome:
    """``dvc pull`` or ``dvc push``.

    What the remote does not have is not pulled, and made by its stage.
    """
    try:
        with Repo(_wait_for_lock=True) as repo:
            if direction == "push":
                return Outcome(changed=bool(repo.push(remote=remote)))
            stats = repo.pull(remote=remote, allow_missing=True)["stats"]
            return Outcome(changed=any(stats.values()))
    except (DvcException, OSError) as error:
        return _failed(error)


def _failed(error: BaseException) -> Outcome:
    if isinstance(error, LockError | FileTransferError):
        error = TransientError(str(error))
    elif isinstance(error, CheckoutError):
        error = DataError(str(error))
    elif isinstance(error, DvcException):
        error = UsageError(f"DVC refused: {error}")
    return Outcome(failure=failure_of(error))


def _end_when_told() -> None:
    """Waits for the end of standard input, then ends what this process started, then itself."""
    # The unbuffered call: an interpreter that ends would wait for a buffer's lock.
    while os.read(0, 1):
        pass
    this = psutil.Process()
    started = this.children(recursive=True)
    for process in this.children():
        process.terminate()
    psutil.wait_procs(this.children(), timeout=POLITE)
    left = {*started, *this.children(recursive=True)}
    for process in left:
        # Ray's processes end by themselves when their driver has, and some do it just now.
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=POLITE / 2)
    # DVC now takes back its locks; if it hangs in a transfer it is not waited for.
    time.sleep(POLITE / 3)
    os._exit(1)


if __name__ == "__main__":
    main()
