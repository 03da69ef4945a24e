"""Objects in S3, read to their end whatever becomes of the connection: WebDataset's ``s3://``.

A connection that breaks, stalls or crawls is given up, and the object read on from the byte where
it stopped, after a wait that doubles and is drawn anew each time. What the bytes are is checked by
who reads them.
"""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import random
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import webdataset
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from pipeline import s3
from pipeline.errors import DistillError, StorageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

log = logging.getLogger(__name__)

PATIENCE: Final = 300.0
"""Seconds that S3 may give nothing, unless whoever reads says otherwise."""
SLOWEST: Final = 16_384
"""Bytes a second below which a connection counts as broken."""

_CHUNK: Final = 2**18
_WATCHED_SECONDS: Final = 10.0
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_SAID_AFTER_SECONDS: Final = 5.0
_BROKEN = (HTTPClientError, NoConnectionError, ResponseParserError, HTTPError, OSError)
_OUTDATED: Final = {
    *("ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken"),
    *("RequestExpired", "TokenRefreshRequired"),
}
# Loader processes are copies of one process: a shared state would give all the same waits.
_jitter = random.SystemRandom()
_lock = threading.Lock()
_clients: dict[int, Any] = {}


class Counts:
    """How often something happened, in this process and in the loader processes it starts."""

    NAMES: Final = ("requests", "bytes", "retries", "cached", "uncached")

    def __init__(self) -> None:
        self._values = multiprocessing.Array("q", len(self.NAMES))

    def add(self, name: str, number: int = 1) -> int:
        """Counts.

        Args:
            name: ``requests`` to S3, ``bytes`` of objects received, ``retries`` among the requests;
                shards found in the cache (``cached``) or not put there for lack of room
                (``uncached``).
            number: how many more.

        Returns:
            How many they are now.
        """
        at = self.NAMES.index(name)
        with self._values.get_lock():
            self._values[at] += number
            return int(self._values[at])

    def all(self) -> dict[str, int]:
        """What was counted, by name."""
        return dict(zip(self.NAMES, self._values[:], strict=True))


class ObjectStream(io.RawIOBase):
    """The bytes of one object.

    Args:
        uri: ``s3://bucket/key``.
        patience: seconds that S3 may give nothing before reading fails.
        counts: where requests are counted.

    Reading raises a UsageError where the request is refused, a DataError where there is no such
    object, a StorageError where S3 was away for longer than ``patience``.
    """

    def __init__(self, uri: str, patience: float, counts: Counts) -> None:
        super().__init__()
        self._uri, self._patience, self._counts = uri, patience, counts
        self._bucket, self._key = s3.parse(uri)
        self._raw: Any = None
        self._position, self._size = 0, -1
        self._failures, self._failing_since = 0, 0.0
        self._renewed = self._said = False
        # Of the connection, or of the last seconds of a long one.
        self._received, self._waited = 0, 0.0

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Reads what comes next, at least a byte before the end."""
        view = memoryview(buffer).cast("B")
        chunk = self._next(len(view))
        view[: len(chunk)] = chunk
        return len(chunk)

    def readall(self) -> bytes:
        """Reads the rest."""
        chunks = []
        while chunk := self._next(_CHUNK):
            chunks.append(chunk)
        return b"".join(chunks)

    def close(self) -> None:
        """Gives the connection up."""
        self._drop()
        super().close()

    def _next(self, most: int) -> bytes:
        while self._position != self._size:
            began = time.monotonic()
            try:
                if self._raw is None:
                    self._connect()
                    continue
                if self._waited > min(_WATCHED_SECONDS, self._patience / 4):
                    self._judge_speed()
                chunk: bytes = self._raw.read1(most)
                if not chunk:
                    raise ConnectionError(f"it ended {self._size - self._position} bytes early")
                self._position += len(chunk)
                self._received += len(chunk)
                self._counts.add("bytes", len(chunk))
                self._waited += time.monotonic() - began
            except ClientError as error:
                self._refused(error, began)
            except _BROKEN as error:
                self._waited += time.monotonic() - began
                self._wait(error, began)
            except BotoCoreError as error:
                raise s3.explained(error, self._uri) from error
            else:
                return chunk
        return b""

    def _connect(self) -> None:
        rest = {"Range": f"bytes={self._position}-"} if self._position else {}
        self._counts.add("requests")
        answer = _client().get_object(Bucket=self._bucket, Key=self._key, **rest)
        self._size = self._position + answer["ContentLength"]
        self._raw = answer["Body"].__enter__()  # urllib3's own response, which does not wait for
        self._received, self._waited = 0, 0.0  # as much as it is asked for, but gives what came

    def _judge_speed(self) -> None:
        if not self._fast():
            raise ConnectionError(f"less than {SLOWEST} bytes a second")
        self._failures, self._renewed = 0, False
        self._received, self._waited = 0, 0.0

    def _fast(self) -> bool:
        return self._received > SLOWEST * self._waited

    def _refused(self, error: ClientError, began: float) -> None:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if code in _OUTDATED and not self._renewed:
            log.warning("%s: %s; the credentials are read again", self._uri, code)
            self._renewed = True
            self._counts.add("retries")
            forget_clients()
        elif s3.is_passing(error):
            self._wait(error, began)
        else:
            raise s3.explained(error, self._uri) from error

    def _wait(self, error: Exception, began: float) -> None:
        if self._fast():
            self._failures, self._renewed = 0, False
        self._drop()
        if not self._failures:
            self._failing_since = began
        self._failures += 1
        self._counts.add("retries")
        failing = time.monotonic() - self._failing_since
        left = self._patience - failing
        if left <= 0:
            raise self._given_up(error) from error
        if failing > _SAID_AFTER_SECONDS and not self._said:
            log.warning("%s gives nothing (%s); it is waited for", self._uri, error)
            self._said = True
        longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(self._failures, 10))
        time.sleep(min(left, _jitter.uniform(0, longest)))

    def _given_up(self, error: Exception) -> DistillError:
        return StorageError(
            f"{self._uri} at {s3.endpoint()} gave nothing for {self._patience:g} s, in "
            f"{self._failures} attempts ({error}): run the same command again when the server is "
            "well, a training goes on from its last checkpoint; DISTILL_PATIENCE says how long it "
            "is waited for"
        )

    def _drop(self) -> None:
        if self._raw is not None:
            self._raw.close()
        self._raw = None
        self._received, self._waited = 0, 0.0


def open_object(
    uri: str,
    mode: str = "rb",
    bufsize: int = io.DEFAULT_BUFFER_SIZE,
    *,
    patience: float = PATIENCE,
    counts: Counts | None = None,
) -> ObjectStream:
    """Opens an object as :func:`webdataset.gopen` asks for it.

    Raises:
        ValueError: it is to be written.
    """
    if mode != "rb":
        raise ValueError(f"{uri} is opened for reading only, not with mode {mode}")
    return ObjectStream(uri, patience, counts or Counts())


def register() -> None:
    """Lets WebDataset read ``s3://``, in this process and in those it starts."""
    webdataset.gopen_schemes["s3"] = open_object


def _client() -> Any:
    # Two processes that use one connection would read each other's answers.
    with _lock:
        if os.getpid() not in _clients:
            _clients.clear()
            _clients[os.getpid()] = s3.client(attempts=1)
        return _clients[os.getpid()]


def forget_clients() -> None:
    """Lets the next request read the environment and the credentials again."""
    with _lock:
        _clients.clear()
