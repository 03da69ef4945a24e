"""Which errors of DVC and of what it talks to a retry may heal, by their types."""

from __future__ import annotations

import errno
from http.client import IncompleteRead

from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as S3ConnectionError
from botocore.parsers import ResponseParserError
from dvc.lock import LockError

BROKEN = (
    ConnectionError,
    TimeoutError,
    IncompleteRead,
    S3ConnectionError,
    HTTPClientError,
    ResponseParserError,
)
"""A connection that did not come about, or did not last."""
AWAY = {errno.EREMOTEIO, errno.EBUSY}
"""What a server's own failure is for fsspec: S3's statuses 500 and 503."""


def heals(error: BaseException) -> bool:
    """Whether the same may go well later: another has DVC's lock, a server is away or fails.

    A full disk, a missing bucket or a file in the way stays until somebody sees to it.
    """
    # Takes longer to import than all else of a process that mostly has nothing to judge.
    from aiohttp import ClientError as HTTPError  # noqa: PLC0415

    if isinstance(error, (LockError, HTTPError, *BROKEN)):
        return True
    if isinstance(error, OSError) and error.errno in AWAY:
        return True
    # Of other statuses fsspec makes an error of a disk.
    origin = error if isinstance(error, ClientError) else error.__cause__
    if not isinstance(origin, ClientError):
        return False
    status: int = origin.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return status >= 500
