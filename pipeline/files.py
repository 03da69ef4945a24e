"""Files and folders that appear whole or not at all, and their checksums."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_whole(path: Path, content: bytes | str, mode: int = 0o644) -> None:
    """Writes a file beside ``path``, syncs it, and renames it into place.

    A reader sees the old file or the new one. A write that fails (a full disk) leaves the old one.
    Before it is in place nobody but its owner can read it, and after that whom ``mode`` lets.

    Raises:
        OSError: the file could not be written; nothing of it stays behind.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.chmod(mode)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, put in the place of ``path`` when the block ends well.

    Yields:
        An empty folder beside ``path``. If the block raises, it is removed and ``path`` stays as it
        was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder_there(path)
    part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        part.chmod(0o755)
        old = _old(path)
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.replace(old)
        part.replace(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def folder_there(path: Path) -> bool:
    """Whether a folder is there; one whose process was killed while replacing it is put back."""
    if not path.exists() and _old(path).exists():
        _old(path).replace(path)
    return path.exists()


def remove_folder(path: Path) -> None:
    """Removes a folder, and what killed processes that wrote it left beside it."""
    for folder in (path, *path.parent.glob(f".{path.name}.*")):
        shutil.rmtree(folder, ignore_errors=True)


def _old(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")
