"""Projects whose shards lie in a bucket, pushed there by DVC, and trainings of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tiny import tiny_params, tiny_shards

from cluster.seaweedfs import Server
from pipeline.compute import Compute
from pipeline.data.shards import Index
from pipeline.models.folder import WEIGHTS_FILE
from pipeline.params import Params
from pipeline.train.run import train_run

REMOTE = "bucket"
RUN = "student-alone"
STAGE = {"stages": {"shards": {"cmd": "true", "outs": ["data/shards"]}}}


def params(**overrides: Any) -> Params:
    """Parameters with which a shard is needed again and again."""
    return tiny_params(**{"data": {"shuffle_shards": 1}, "training": {"epochs": 3}, **overrides})


def push(project: Path, server: Server, prefix: str) -> Index:
    """Makes a project with tiny shards and pushes them below ``prefix``.

    Args:
        project: the folder; it is no git repository, and has dvc.lock.
        server: in whose bucket.
        prefix: of the DVC remote.
    """
    index = tiny_shards(project / "data/shards")
    (project / "dvc.yaml").write_text(json.dumps(STAGE))
    (project / "params.yaml").write_text(json.dumps(params().model_dump(mode="json")))
    url = f"s3://{server.credentials.bucket}/{prefix}"
    dvc(project, server, "init", "--no-scm", "-q")
    dvc(project, server, "remote", "add", "-q", REMOTE, url)
    dvc(project, server, "commit", "-q", "-f")
    dvc(project, server, "push", "-q", "-r", REMOTE)
    return index


def dvc(project: Path, server: Server, *arguments: str) -> None:
    """Runs DVC to its end."""
    subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=project,
        env={**os.environ, **server.credentials.environment(), "DVC_NO_ANALYTICS": "1"},
        check=True,
        timeout=120,
    )


def without_data(project: Path, path: Path) -> Path:
    """A copy as a Ray job's working folder has it: no data, no cache of DVC's, no git."""
    (path / ".dvc").mkdir(parents=True)
    for name in ("dvc.yaml", "dvc.lock", "params.yaml", ".dvc/config"):
        shutil.copy(project / name, path / name)
    # Nothing may say that there is no git: a working folder's config comes from a git repository.
    config = path / ".dvc/config"
    config.write_text(config.read_text().replace("no_scm = True", ""))
    return path


def train(
    folder: Path, compute: dict[str, Any], settings: Params | None = None, run: str = RUN
) -> bytes:
    """Trains in this process, whose folder is the project's.

    Returns:
        The weights.
    """
    chosen = Compute(
        workers=0, storage=str(folder / "kept"), **{"loaders": 0, "threads": 1, **compute}
    )
    train_run(settings or params(), run, chosen, models=folder / "models")
    return (folder / "models" / run / WEIGHTS_FILE).read_bytes()


def own_copy(project: Path, path: Path, server: Server, prefix: str) -> Path:
    """The same project with its objects copied below another prefix, for a test to harm them."""
    client, bucket = server.client(), server.credentials.bucket
    listed = client.list_objects_v2(Bucket=bucket, Prefix="streamed/")["Contents"]
    for found in listed:
        key = prefix + found["Key"].removeprefix("streamed")
        client.copy_object(
            Bucket=bucket, Key=key, CopySource={"Bucket": bucket, "Key": found["Key"]}
        )
    copy = without_data(project, path)
    config = copy / ".dvc/config"
    config.write_text(config.read_text().replace(f"{bucket}/streamed", f"{bucket}/{prefix}"))
    return copy


def object_key(project: Path, prefix: str, name: str) -> str:
    """The key of a shard's object."""
    md5 = hashlib.md5(
        (project / "data/shards" / name).read_bytes(), usedforsecurity=False
    ).hexdigest()
    return f"{prefix}/files/md5/{md5[:2]}/{md5[2:]}"
