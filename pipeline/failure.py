"""Tells whoever started a command by which type of error it failed, since an exit code cannot."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline import errors
from pipeline.errors import DistillError, TrainingError, TransientError
from pipeline.files import write_whole

FAILURE_FILE = "DISTILL_FAILURE_FILE"
"""The environment variable that names the file to tell it in."""
STANDARD_ERROR = "-"
"""Its value for a line on standard error, where files are of another machine: a job's log."""
LINE = "failure: "
"""What that line begins with."""


class Failure(BaseModel):
    """Why something failed.

    Attributes:
        error: the name of the exception's type.
        message: what it said.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    error: str
    message: str


def failure_of(error: BaseException) -> Failure:
    """What to tell of an exception; a broken connection is a :class:`TransientError`."""
    broken = not isinstance(error, DistillError) and isinstance(
        error, ConnectionError | TimeoutError
    )
    kind = TransientError if broken else type(error)
    return Failure(error=kind.__name__, message=str(error) or kind.__name__)


def tell(error: BaseException) -> None:
    """Writes the failure into the file that ``DISTILL_FAILURE_FILE`` names, if it does."""
    name, content = os.environ.get(FAILURE_FILE), failure_of(error).model_dump_json()
    if name == STANDARD_ERROR:
        sys.stderr.write(f"{LINE}{content}\n")
    elif name:
        write_whole(Path(name), content)


def error_of(failure: Failure) -> DistillError:
    """The error that was told of; one that is none of ours is a :class:`TrainingError`."""
    kind = getattr(errors, failure.error, None)
    if isinstance(kind, type) and issubclass(kind, DistillError):
        return kind(failure.message)
    return TrainingError(f"{failure.error}: {failure.message}")
