"""The policies of docs/s3.md, put to a real server: who may do what, and that it is enough."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from commands import ROOT
from pyarrow.fs import FileSelector, FileSystem
from versions import RUN, call, environment

from cluster.seaweedfs import Credentials, Server
from pipeline.data import stream
from pipeline.fetch import model_from_bucket
from pipeline.models.folder import read_info

ROLES = ("trainer", "consumer")
KEYS = ("dvc/files/md5/aa/bb", "checkpoints/run/1", "models/run/model.json", "other/file")


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows both roles besides its owner, and holds an object in every place."""
    server = Server(tmp_path_factory.mktemp("roles"))
    server.start()
    server.kill()
    path = server.folder / "identities.json"
    known = json.loads(path.read_text())
    known["policies"] = [
        {
            "name": role,
            "content": (ROOT / f"cluster/policies/{role}.json")
            .read_text()
            .replace("BUCKET", server.credentials.bucket),
        }
        for role in ROLES
    ]
    for role in ROLES:
        keys = {"accessKey": as_role(server, role).access_key, "secretKey": role * 4}
        known["identities"].append(
            {"name": role, "credentials": [keys], "actions": [], "policyNames": [role]}
        )
    path.write_text(json.dumps(known))
    with server:
        for key in KEYS:
            server.client().put_object(Bucket=server.credentials.bucket, Key=key, Body=b"x")
        yield server


def as_role(server: Server, role: str) -> Credentials:
    keys = {"access_key": role.upper() * 3, "secret_key": role * 4}
    return server.credentials.model_copy(update=keys)


def allowed(server: Server, role: str) -> set[str]:
    """What a role may do, as ``verb place``."""
    known = as_role(server, role)
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=known.endpoint,
        aws_access_key_id=known.access_key,
        aws_secret_access_key=known.secret_key,
        region_name=known.region,
    )
    bucket = {"Bucket": known.bucket}
    tries = {
        "list": partial(client.list_objects_v2, **bucket),
        "unversion": partial(
            client.put_bucket_versioning, **bucket, VersioningConfiguration={"Status": "Suspended"}
        ),
        "remove": partial(client.delete_bucket, **bucket),
    }
    for key in KEYS:
        top, version = key.split("/")[0], server.client().head_object(**bucket, Key=key)
        tries |= {
            f"read {top}": partial(client.get_object, **bucket, Key=key),
            f"write {top}": partial(client.put_object, **bucket, Key=key, Body=b"y"),
            f"delete {top}": partial(client.delete_object, **bucket, Key=f"{key}-none"),
            f"erase {top}": partial(
                client.delete_object, **bucket, Key=key, VersionId=version["VersionId"]
            ),
        }
    done = set()
    for name, attempt in tries.items():
        try:
            attempt()
            done.add(name)
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 403, name
    return done


def test_a_trainer_reads_data_and_writes_checkpoints_and_nothing_else(owner: Server) -> None:
    assert allowed(owner, "trainer") == {
        *("list", "read dvc"),
        *("read checkpoints", "write checkpoints", "delete checkpoints"),
    }


def test_a_consumer_reads_models_and_nothing_else(owner: Server) -> None:
    assert allowed(owner, "consumer") == {"read models"}


def test_the_rules_for_old_versions_are_taken(owner: Server) -> None:
    rules = json.loads((ROOT / "cluster/policies/lifecycle.json").read_text())
    bucket = owner.credentials.bucket
    owner.client().put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration=rules)
    taken = owner.client().get_bucket_lifecycle_configuration(Bucket=bucket)["Rules"]
    assert {rule["ID"] for rule in taken} == {rule["ID"] for rule in rules["Rules"]}
    for rule in taken:
        assert rule in rules["Rules"]


def test_a_trainer_can_pull_and_keep_checkpoints_and_a_consumer_can_predict(
    versions: Path,
    s3_environment: Credentials,
    owner: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = str(tmp_path / "site")
    trainer, consumer = (as_role(owner, role) for role in ROLES)
    call(tmp_path, environment(s3_environment), "git", "clone", "-q", str(versions), "clone")
    clone = tmp_path / "clone"
    theirs = environment(s3_environment, DVC_SITE_CACHE_DIR=site)
    call(clone, theirs, "dvc", "pull", "-q", "--remote", "s3")
    ours = environment(owner.credentials, DVC_SITE_CACHE_DIR=site)
    call(clone, ours, "dvc", "push", "-q", "--remote", "s3")
    # As docs/s3.md says to publish a model.
    call(clone, ours, "dvc", "remote", "add", "-q", "published", f"s3://{trainer.bucket}")
    call(clone, ours, "dvc", "remote", "modify", "published", "version_aware", "true")
    call(clone, ours, "dvc", "push", "-q", "--remote", "published", f"models/{RUN}")
    call(clone, ours, "git", "commit", "-qam", "publish")

    other = environment(trainer, DVC_SITE_CACHE_DIR=str(tmp_path / "other-site"))
    call(tmp_path, other, "git", "clone", "-q", "clone", "trainers")
    call(tmp_path / "trainers", other, "dvc", "pull", "-q", "--remote", "s3")
    assert read_info(tmp_path / "trainers/models" / RUN).run == RUN

    for name, value in trainer.environment().items():
        monkeypatch.setenv(name, value)
    # What Ray keeps checkpoints with.
    storage, path = FileSystem.from_uri(
        f"s3://{trainer.bucket}/checkpoints?endpoint_override={trainer.endpoint}"
    )
    storage.create_dir(f"{path}/run")
    with storage.open_output_stream(f"{path}/run/file") as file:
        file.write(b"checkpoint")
    assert len(storage.get_file_info(FileSelector(f"{path}/run"))) == 2
    storage.delete_dir(f"{path}/run")

    for name, value in consumer.environment().items():
        monkeypatch.setenv(name, value)
    stream.forget_clients()
    fetched = model_from_bucket(f"s3://{consumer.bucket}/models/{RUN}", tmp_path / "cache", 10)
    assert read_info(fetched) == read_info(clone / "models" / RUN)
    stream.forget_clients()
