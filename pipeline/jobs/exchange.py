"""What a job and the checkout that it works for hand each other through S3.

A job is named by all that decides what it makes. Below the storage, ``jobs/<job>/`` holds the
models that it learns from or asks in ``teachers/<run>/``, each with its stored targets in
``targets/`` where it learns from them; what it made in ``model/`` or ``targets/``; and in
``holder`` the submission id of the one that makes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
_HOLDER: Final = "holder"


def teachers_at(storage: str, job: str) -> str:
    """The address below which a job's teachers lie, each under the name of its run."""
    return f"{storage}/jobs/{job}/teachers"


def targets_at(teacher: str) -> str:
    """The address of the stored targets of the model at ``teacher``."""
    return f"{teacher}/targets"


def model_at(storage: str, job: str) -> str:
    """The address of the model that a job made."""
    return f"{storage}/jobs/{job}/model"


def answers_at(storage: str, job: str) -> str:
    """The address of the stored targets that a job makes: a file as it is finished, index last."""
    return f"{storage}/jobs/{job}/targets"


def objects_at(uri: str, files: Sequence[str] = FILES) -> dict[str, str]:
    """The address of every file of the folder at ``uri``."""
    return {name: f"{uri}/{name}" for name in files}


def has(uri: str, last: str = ABOUT_FILE) -> bool:
    """Whether a whole folder lies there: a model, or what else ``last`` is written to as the last.

    Raises:
        UsageError: S3 refuses.
        StorageError: S3 cannot be reached.
    """
    bucket, prefix = s3.parse(uri)
    try:
        with _explained(f"{uri}/{last}"):
            s3.client().head_object(Bucket=bucket, Key=f"{prefix}/{last}")
    except DataError:
        return False
    return True


def holder(storage: str, job: str) -> str | None:
    """The submission id of the job that last began to make this; it may have ended.

    Raises:
        UsageError: S3 refuses.
        StorageError: S3 cannot be reached.
    """
    uri = f"{storage}/jobs/{job}/{_HOLDER}"
    bucket, key = s3.parse(uri)
    try:
        with _explained(uri):
            content: bytes = s3.client().get_object(Bucket=bucket, Key=key)["Body"].read()
    except DataError:
        return None
    return content.decode()


def set_holder(storage: str, job: str, submission: str) -> None:
    """Tells checkouts which job makes this.

    Raises:
        UsageError: S3 refuses.
        StorageError: S3 cannot be reached.
    """
    uri = f"{storage}/jobs/{job}/{_HOLDER}"
    bucket, key = s3.parse(uri)
    with _explained(uri):
        s3.client().put_object(Bucket=bucket, Key=key, Body=submission.encode())


def put_files(folder: Path, uri: str, files: Sequence[str] = FILES) -> None:
    """Puts the files of a folder there.

    Raises:
        UsageError: S3 refuses.
        StorageError: S3 cannot be reached.
    """
    bucket, prefix = s3.parse(uri)
    client = s3.client()
    with _explained(uri):
        for name in files:
            client.put_object(
                Bucket=bucket, Key=f"{prefix}/{name}", Body=(folder / name).read_bytes()
            )


def names_at(uri: str) -> list[str]:
    """The files of the folder there, in order; none where there is no folder.

    Raises:
        UsageError: S3 refuses.
        StorageError: S3 cannot be reached.
    """
    bucket, prefix = s3.parse(uri)
    with _explained(uri):
        return [key.removeprefix(f"{prefix}/") for key in _keys(bucket, prefix)]


def remove(storage: str, job: str) -> None:
    """Removes what was handed over; a versioned bucket keeps the old versions.

    Raises:
        UsageError: S3 refuses.
        StorageError: S3 cannot be reached.
    """
    uri = f"{storage}/jobs/{job}"
    bucket, prefix = s3.parse(uri)
    client = s3.client()
    with _explained(uri):
        for key in _keys(bucket, prefix):
            client.delete_object(Bucket=bucket, Key=key)


def _keys(bucket: str, prefix: str) -> list[str]:
    pages = s3.client().get_paginator("list_objects_v2")
    return [
        found["Key"]
        for page in pages.paginate(Bucket=bucket, Prefix=f"{prefix}/")
        for found in page.get("Contents", [])
    ]


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Lets an error of S3 say what was asked of it, and what to do."""
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        raise s3.explained(error, uri) from error
