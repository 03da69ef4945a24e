"""Where this command is: beside a cluster that it submits to, in a job on one, or neither."""

from __future__ import annotations

import json
import os
from typing import Final

from pipeline import s3
from pipeline.compute import Compute
from pipeline.errors import UsageError

_JOB: Final = "RAY_JOB_CONFIG_JSON_ENV_VAR"


def job_server() -> str | None:
    """The address of the cluster's job server, where RAY_ADDRESS names one."""
    address = os.environ.get("RAY_ADDRESS", "")
    return address.rstrip("/") if address.startswith(("http://", "https://")) else None


def submission_id() -> str | None:
    """The name of the job whose command this is; None where it is no job's."""
    told = os.environ.get(_JOB)
    if told is None:
        return None
    return str(json.loads(told)["metadata"]["job_submission_id"])


def storage_of(compute: Compute) -> str:
    """The address in S3 below which a cluster's jobs keep what they make.

    Raises:
        UsageError: a setting that a job needs is missing.
    """
    lacking = []
    if not s3.is_uri(compute.storage):
        lacking.append(
            "DISTILL_STORAGE=s3://BUCKET/checkpoints, where all its machines keep theirs"
        )
    if not compute.stream:
        lacking.append("DISTILL_STREAM=s3, the DVC remote that its shards are streamed from")
    if compute.workers == 0:
        lacking.append("DISTILL_WORKERS=1 or more")
    if lacking:
        raise UsageError("a job on a Ray cluster needs " + ", and ".join(lacking))
    return compute.storage.split("?")[0].rstrip("/")
