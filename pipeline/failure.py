"""Tells whoever started a command by which type of error it failed, since an exit code cannot."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.errors import DistillError, TransientError
from pipeline.files import write_whole

FAILURE_FILE = "DISTILL_FAILURE_FILE"
"""The environment variable that names the file to tell it in."""


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
    if name := os.environ.get(FAILURE_FILE):
        write_whole(Path(name), failure_of(error).model_dump_json())
