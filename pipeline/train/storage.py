"""Where a Ray Train job keeps its checkpoints: a folder, or S3."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from pipeline import s3
from pipeline.files import remove_folder


def for_ray(storage: str) -> str:
    """The storage as Ray takes it: pyarrow must be told what boto3 reads from the environment.

    What stands behind a question mark in the address goes before the environment.
    """
    if not s3.is_uri(storage):
        return storage
    address, _, query = storage.partition("?")
    settings = {
        "endpoint_override": s3.endpoint_url(),
        "region": os.environ.get("AWS_DEFAULT_REGION"),
        **dict(parse_qsl(query)),
    }
    query = urlencode({name: value for name, value in settings.items() if value})
    return f"{address}?{query}" if query else address


def remove_job(storage: str, name: str) -> None:
    """Removes what a job kept. A versioned bucket keeps the old versions, until its rules end them.

    Raises:
        OSError: S3 refuses, or is away.
    """
    if "://" not in storage:
        remove_folder(Path(storage) / name)
        return
    # It comes with Ray, which is imported where a job was trained.
    from pyarrow.fs import FileSystem  # noqa: PLC0415

    filesystem, top = FileSystem.from_uri(for_ray(storage))
    filesystem.delete_dir(f"{top}/{name}")
