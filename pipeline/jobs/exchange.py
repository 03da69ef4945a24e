"""What a job and the checkout that it works for hand each other through S3.

Below the storage, ``jobs/<job>/teachers/<run>/`` holds the models that the job learns from, each
with its stored targets in ``targets/``, and ``jobs/<job>/model/`` the one it made. A job is named
by all that decides its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from botocore.exceptions import BotoCoreError, ClientError

from pipeline import s3
from pipeline.errors import DataError
from pipeline.models.folder import ABOUT_FILE, WEIGHTS_FILE
from pipeline.train.run import HISTORY_FILE

NEEDED: Final = (WEIGHTS_FILE, ABOUT_FILE)
"""The files of a teacher."""
FILES: Final = (WEIGHTS_FILE, HISTORY_FILE, ABOUT_FILE)
"""The files of a model; the last makes it whole."""


def teachers_at(storage: str, job: str) -> str:
    """The address below which a job's teachers lie, each under the name of its run."""
    return f"{storage}/jobs/{job}/teachers"


def targets_at(teacher: str) -> str:
    """The address of the stored targets of the model at ``teacher``."""
    return f"{teacher}/targets"


def model_at(storage: str, job: str) -> str:
    """The address of the model that a job made."""
    return f"{storage}/jobs/{job}/model"


def objects_at(uri: str, files: Sequence[str] = FILES) -> dict[str, str]:
    """The address of every file of the folder at ``uri``."""
    return {name: f"{uri}/{name}" for name in files}


def has_model(uri: str) -> bool:
    """Whether a whole model lies there.

    Raises:
        UsageError: S3 refuses.
        StorageError: S3 cannot be reached.
    """
    bucket, prefix = s3.parse(uri)
    try:
        s3.client().head_object(Bucket=bucket, Key=f"{prefix}/{ABOUT_FILE}")
    except (BotoCoreError, ClientError) as error:
        found = s3.explained(error, f"{uri}/{ABOUT_FILE}")
        if isinstance(found, DataError):
            return False
        raise found from error
    return True


def put_files(folder: Path, uri: str, files: Sequence[str] = FILES) -> None:
    """Puts the files of a folder there.

    Raises:
        UsageError: S3 refuses.
        StorageError: S3 cannot be reached.
    """
    bucket, prefix = s3.parse(uri)
    client = s3.client()
    try:
        for name in files:
            client.put_object(
                Bucket=bucket, Key=f"{prefix}/{name}", Body=(folder / name).read_bytes()
            )
    except (BotoCoreError, ClientError) as error:
        raise s3.explained(error, uri) from error


def remove(storage: str, job: str) -> None:
    """Removes what was handed over; a versioned bucket keeps the old versions.

    Raises:
        UsageError: S3 refuses.
        StorageError: S3 cannot be reached.
    """
    uri = f"{storage}/jobs/{job}"
    bucket, prefix = s3.parse(uri)
    client = s3.client()
    try:
        for page in client.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=f"{prefix}/"
        ):
            for found in page.get("Contents", []):
                client.delete_object(Bucket=bucket, Key=found["Key"])
    except (BotoCoreError, ClientError) as error:
        raise s3.explained(error, uri) from error
