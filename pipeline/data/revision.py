"""Which objects of a DVC remote are the shards of a revision.

DVC keeps a folder as a listing, an object named by its own MD5 with ``.dir`` behind it, and every
file as an object named by its MD5. Nothing here needs git, unless a revision is named.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import webdataset

from pipeline import s3
from pipeline.data.shards import INDEX_FILE, Index, parse_index
from pipeline.data.stream import register
from pipeline.errors import DataError, UsageError
from pipeline.params import Section


class Revision(Section):
    """The shards of one revision in a DVC remote: values that travel as JSON.

    Attributes:
        index: what the shards hold.
        objects: the address in S3 of every file, by its path beside the index.
    """

    index: Index
    objects: dict[str, str]


def locate(shards: Path, rev: str | None, remote: str, patience: float) -> Revision:
    """Finds the shards of a revision in a DVC remote in S3, by two requests to it.

    Args:
        shards: their folder's path in the DVC project.
        rev: of the git history; None takes the ``dvc.lock`` that lies here.
        remote: the name of a DVC remote.
        patience: seconds that S3 may give nothing.

    Raises:
        UsageError: there is no such revision or remote, or it keeps no content-addressed objects
            in S3, or S3 refuses.
        DataError: the revision was not pushed to the remote, or is damaged there.
        StorageError: S3 was away for longer than ``patience``.
    """
    listing = _address(shards, rev, remote)
    top, _, name = listing.rpartition("/files/md5/")
    if not (s3.is_uri(listing) and top and name.endswith(".dir")):
        raise UsageError(
            f"the DVC remote {remote} keeps {shards} at {listing}: stream from a remote in S3 that "
            "is not version_aware"
        )
    register()
    try:
        files = {
            entry["relpath"]: f"{top}/files/md5/{entry['md5'][:2]}/{entry['md5'][2:]}"
            for entry in json.loads(_checked(listing, patience))
        }
        index = parse_index(_checked(files[INDEX_FILE], patience), f"{listing}!{INDEX_FILE}")
        objects = {shard.name: files[shard.name] for shard in index.shards}
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{listing} is no listing of shards ({error!r}): push {shards} again, by dvc push"
        ) from error
    return Revision(index=index, objects=objects)


def _address(shards: Path, rev: str | None, remote: str) -> str:
    # It takes half a second to import, and is needed where shards are streamed only.
    import dvc.api  # noqa: PLC0415
    from dvc.exceptions import DvcException  # noqa: PLC0415

    logging.getLogger("dvc").setLevel(logging.WARNING)
    try:
        address: Any = dvc.api.get_url(shards.as_posix(), rev=rev, remote=remote)
    except DvcException as error:
        asked = f"data.rev {rev}" if rev else "the dvc.lock here"
        raise UsageError(
            f"DVC does not find {shards} of {asked} in its remote {remote} (from DISTILL_STREAM): "
            f"{error}; see dvc remote list and git tag"
        ) from error
    return str(address)


def _checked(uri: str, patience: float) -> bytes:
    """The content of an object that is named by its MD5."""
    with webdataset.gopen(uri, patience=patience) as stream:
        content: bytes = stream.read()
    named = "".join(uri.removesuffix(".dir").split("/")[-2:])
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != named:
        raise DataError(
            f"{uri} does not match the checksum it is named by: it was changed in the bucket; "
            "remove it there and push it again, by dvc push"
        )
    return content
