"""The files of a folder or a zip, in one order on every file system, each read when asked for.

Zips are read in place; nothing of them is ever written to disk.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Final, NoReturn

from pipeline.errors import DataError

MAX_MEMBER: Final = 64 * 2**20
"""Bytes that one file may have."""
MAX_TOTAL: Final = 8 * 2**30
"""Bytes that all members of one zip may have together, unpacked."""
MAX_RATIO: Final = 200
"""How many times smaller a zip may have made a member; a JPEG hardly shrinks at all."""

_ENCRYPTED = 0x1 | 0x40 | 0x2000
_DRIVE = re.compile(r"[A-Za-z]:")
_BROKEN = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError)
_LITTER = {"__macosx", "thumbs.db", "desktop.ini"}


@dataclass(frozen=True)
class File:
    """One file of a folder or a zip.

    Attributes:
        path: the root's name and the way down from it, a zip on the way standing as a folder.
        origin: for messages: the path below the root, a zip and its member parted by ``!``.
        read: gives the bytes, or raises a :class:`DataError` that names the file. A zip stays open
            for as long as one of its files is kept; read it in the process that listed it.
    """

    path: PurePosixPath
    origin: str
    read: Callable[[], bytes] = field(repr=False, compare=False)


def list_files(root: Path) -> tuple[File, ...]:
    """The files of a folder or a zip, sorted; a folder's zips stand as folders.

    Dot files, ``__MACOSX`` and the like are left out. Linked files and folders are followed in a
    folder, which is the user's own, and refused in a zip.

    Raises:
        DataError: the root is neither folder nor zip, or a zip is corrupt, encrypted, too large, or
            has a member that is no plain file inside it.
    """
    name = PurePosixPath(root.resolve().stem if root.is_file() else root.resolve().name)
    if root.is_file() and root.suffix.lower() == ".zip":
        files = list(_members(root, name, root.name))
    elif root.is_dir():
        files = []
        for path in _walk(root):
            below = PurePosixPath(path.relative_to(root).as_posix())
            if path.suffix.lower() == ".zip":
                files += _members(path, name / below.with_suffix(""), str(below))
            else:
                files.append(File(name / below, _printable(below), partial(_read_file, path)))
    else:
        raise DataError(f"{root} is neither a folder nor a .zip; give one of them")
    return tuple(sorted(files, key=lambda file: (file.path.parts, file.origin)))


def _walk(root: Path) -> Iterator[Path]:
    visited: set[Path] = set()
    for folder, folders, names in os.walk(root, onerror=_unlistable, followlinks=True):
        if (real := Path(folder).resolve()) in visited:
            folders.clear()  # a link that leads back up would be followed without end
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not _is_litter(name))
        for name in names:
            if _is_litter(name):
                continue
            path = Path(folder, name)
            if not path.is_file():
                raise DataError(f"{path} is a broken link or no regular file; remove it")
            yield path


def _unlistable(error: OSError) -> NoReturn:
    raise DataError(f"{error.filename} cannot be listed: {error.strerror}") from error


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_MEMBER + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_MEMBER:
        raise DataError(f"{path} is larger than {MAX_MEMBER >> 20} MiB, no word image; remove it")
    return content


def _members(path: Path, base: PurePosixPath, origin: str) -> Iterator[File]:
    try:
        archive = zipfile.ZipFile(path)
    except (*_BROKEN, OSError) as error:
        raise DataError(f"{path} is no readable zip: {error}; fetch it again") from error
    infos = archive.infolist()
    for info in infos:
        if reason := _refusal(info):
            raise DataError(
                f"{path}: member {_printable(info.orig_filename)!r} {reason}; "
                "nothing was read, pack the images anew"
            )
    if sum(info.file_size for info in infos) > MAX_TOTAL:
        raise DataError(f"{path} would unpack to more than {MAX_TOTAL >> 30} GiB; split it")
    if sum(info.compress_size for info in infos) > path.stat().st_size:
        raise DataError(f"{path}: its members overlap, as in a zip bomb; pack the images anew")
    taken: set[PurePosixPath] = set()
    for info in infos:
        inner = PurePosixPath(info.filename)
        if info.is_dir() or any(_is_litter(part) for part in inner.parts):
            continue
        if inner in taken:
            raise DataError(f"{path}: two members are called '{inner}'; pack the images anew")
        taken.add(inner)
        yield File(
            base / inner,
            _printable(f"{origin}!{inner}"),
            partial(_read_member, archive, info, path),
        )


def _refusal(info: zipfile.ZipInfo) -> str | None:
    # orig_filename: filename is already cut at a NUL, with the system's separators replaced.
    name = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    refusals = {
        "has no plain name": not name or any(ord(char) < 32 for char in name),
        "has a backslash in its name": "\\" in name,
        "has an absolute name": name.startswith("/") or _DRIVE.match(name) is not None,
        "leads out of the archive": ".." in name.split("/"),
        "is a link or a special file": kind not in (0, stat.S_IFREG, stat.S_IFDIR),
        "is encrypted": bool(info.flag_bits & _ENCRYPTED),
        # bzip2 and LZMA members are unpacked without a bound by the standard library.
        "is neither stored nor deflated": info.compress_type
        not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
        f"is larger than {MAX_MEMBER >> 20} MiB": info.file_size > MAX_MEMBER,
        f"was packed more than {MAX_RATIO} times smaller, as in a zip bomb": info.file_size
        > MAX_RATIO * max(info.compress_size, 1),
    }
    return next((reason for reason, holds in refusals.items() if holds), None)


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> bytes:
    try:
        with archive.open(info) as file:
            # A bounded read never unpacks more than the declared size; an unbounded one may.
            content = file.read(info.file_size + 1)
    except (*_BROKEN, OSError, RuntimeError) as error:
        raise DataError(
            f"{path}: member '{info.filename}' is corrupt: {error}; fetch the archive again"
        ) from error
    if len(content) != info.file_size:
        raise DataError(
            f"{path}: member '{info.filename}' is corrupt: {len(content)} bytes instead of "
            f"{info.file_size}; fetch the archive again"
        )
    return content


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER


def _printable(name: object) -> str:
    # A file name may hold bytes that are no UTF-8, and no report could be written with it.
    return str(name).encode("utf-8", "backslashreplace").decode()
