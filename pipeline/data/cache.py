"""A bounded folder of what was fetched, shared by all processes of a machine.

A file is there whole or not at all, is named by its SHA-256 and checked against it when it is read.
Where a process is killed, the kernel opens its locks.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_POLL_SECONDS: Final = 0.005


class Cache:
    """Files by their SHA-256; where there is no more room, those unused for longest go.

    Args:
        folder: made when it is first written to.
        limit: bytes of all files together.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit

    def has(self, sha256: str) -> bool:
        """Whether there is a file for this SHA-256; what it holds is not looked at."""
        return (self._folder / sha256).exists()

    def get(self, sha256: str) -> bytes | None:
        """The content with this SHA-256, if it is there.

        Raises:
            OSError: it is there and cannot be read.
        """
        path = self._folder / sha256
        try:
            content = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        if hashlib.sha256(content).hexdigest() != sha256:
            log.warning("%s was damaged; it is fetched again", path)
            path.unlink(missing_ok=True)
            return None
        return content

    def put(self, sha256: str, content: bytes) -> None:
        """Keeps content whose SHA-256 was checked; not if it is larger than the cache.

        Raises:
            OSError: it cannot be written; nothing of it stays behind.
        """
        if len(content) > self._limit:
            return
        # One writer at a time: so the limit holds, and what a killed writer left has one name.
        with self._lock("write") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            part = self._folder / ".part"
            try:
                part.unlink(missing_ok=True)
                self._make_room(len(content))
                part.write_bytes(content)
                part.replace(self._folder / sha256)
            finally:
                part.unlink(missing_ok=True)

    @contextmanager
    def fetching(self, sha256: str, patience: float) -> Iterator[None]:
        """Lets one at a time fetch this content; others wait, for ``patience`` seconds at most.

        Raises:
            OSError: the folder cannot be written to.
        """
        deadline = time.monotonic() + patience
        with self._lock(f"fetch-{sha256[:2]}") as lock:
            while not _locked(lock) and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
            yield

    def _make_room(self, wanted: int) -> None:
        files = []
        for entry in os.scandir(self._folder):
            # A damaged one may have been removed meanwhile.
            with suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False):
                    about = entry.stat(follow_symlinks=False)
                    files.append((about.st_mtime_ns, entry.path, about.st_size))
        there = sum(size for _, _, size in files)
        for _, path, size in sorted(files):
            if there + wanted <= self._limit:
                return
            Path(path).unlink(missing_ok=True)
            there -= size

    @contextmanager
    def _lock(self, name: str) -> Iterator[int]:
        folder = self._folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            yield lock
        finally:
            # Closing alone would leave it locked while a forked process has a copy.
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)


def _locked(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
