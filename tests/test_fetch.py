"""Predictions with models from a bucket and of a revision, fetched, checked and kept."""

from __future__ import annotations

import json
import shutil
import socket
from contextlib import closing
from pathlib import Path

import boto3
import pytest
from commands import run
from tiny import tiny_jpeg, tiny_model, tiny_shards
from versions import RUN, call, environment

from cluster.seaweedfs import Credentials
from pipeline.data import stream
from pipeline.errors import DataError, StorageError, UsageError
from pipeline.fetch import model_from_bucket, model_of_revision
from pipeline.models.folder import load_model, read_info
from pipeline.predict import predict

FILES = ("model.json", "model.safetensors")
PATIENCE = 10.0


@pytest.fixture(autouse=True)
def _fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    stream.forget_clients()


@pytest.fixture
def uri(s3_environment: Credentials, tmp_path: Path) -> str:
    """A model folder in the bucket, with a prefix of its own."""
    tiny_model(tmp_path / "model", tiny_shards(tmp_path / "shards"), steps=5)
    prefix = f"models/{tmp_path.name}"
    upload(tmp_path / "model", s3_environment.bucket, prefix)
    return f"s3://{s3_environment.bucket}/{prefix}"


@pytest.fixture
def clone(versions: Path, s3_environment: Credentials, tmp_path: Path) -> Path:
    """A teammate's fresh clone, which chose the remote in S3."""
    env = environment(s3_environment)
    call(tmp_path, env, "git", "clone", "-q", str(versions), "clone")
    call(tmp_path / "clone", env, "dvc", "remote", "default", "-q", "--local", "s3")
    return tmp_path / "clone"


def upload(model: Path, bucket: str, prefix: str, files: tuple[str, ...] = FILES) -> None:
    for name in files:
        boto3.session.Session().client("s3").upload_file(
            str(model / name), bucket, f"{prefix}/{name}"
        )


def test_a_model_in_a_bucket_answers_as_the_folder_does(uri: str, tmp_path: Path) -> None:
    word = tmp_path / "word.jpg"
    word.write_bytes(tiny_jpeg("Hindi", 1))
    fetched = model_from_bucket(f"{uri}/", tmp_path / "cache", PATIENCE)
    assert predict(fetched, [word]) == predict(tmp_path / "model", [word])
    done = run(tmp_path, "predict", "--model", uri, "word.jpg", "--json",
               model_cache=tmp_path / "cache")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["script"] == predict(fetched, [word])[0].script
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [fetched.name]
    assert {path.name for path in fetched.iterdir()} == set(FILES)


def test_what_is_kept_is_not_fetched_again_and_a_new_version_is(
    uri: str, s3_environment: Credentials, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    fetched = model_from_bucket(uri, cache, PATIENCE)
    time = (fetched / "model.safetensors").stat().st_mtime_ns
    assert model_from_bucket(uri, cache, PATIENCE) == fetched
    assert (fetched / "model.safetensors").stat().st_mtime_ns == time
    tiny_model(tmp_path / "newer", tiny_shards(tmp_path / "shards"), seed=3)
    prefix = uri.split("/", 3)[3]
    upload(tmp_path / "newer", s3_environment.bucket, prefix)
    newer = model_from_bucket(uri, cache, PATIENCE)
    assert newer != fetched
    assert read_info(newer) == read_info(tmp_path / "newer")
    load_model(fetched)


def test_a_model_of_two_trainings_or_half_a_one_is_never_kept(
    uri: str, s3_environment: Credentials, tmp_path: Path
) -> None:
    prefix, cache = uri.split("/", 3)[3], tmp_path / "cache"
    tiny_model(tmp_path / "newer", tiny_shards(tmp_path / "shards"), seed=3)
    upload(tmp_path / "newer", s3_environment.bucket, prefix, ("model.safetensors",))
    with pytest.raises(DataError, match=r"no whole model, push it again.*not the file that"):
        model_from_bucket(uri, cache, PATIENCE)
    half = (tmp_path / "newer" / "model.safetensors").read_bytes()[:500]
    client = boto3.session.Session().client("s3")
    client.put_object(Bucket=s3_environment.bucket, Key=f"{prefix}/{FILES[1]}", Body=half)
    with pytest.raises(DataError, match=r"no whole model.*cannot be loaded"):
        model_from_bucket(uri, cache, PATIENCE)
    client.delete_object(Bucket=s3_environment.bucket, Key=f"{prefix}/{FILES[1]}")
    with pytest.raises(DataError, match=r"there is no s3://.*/model\.safetensors"):
        model_from_bucket(uri, cache, PATIENCE)
    assert not [*cache.glob("**/*")]


def test_what_is_not_there_and_who_is_refused_is_said(
    uri: str, s3_environment: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, known = tmp_path / "cache", s3_environment
    with pytest.raises(DataError, match=r"there is no s3://.*/none/model\.json at http://127"):
        model_from_bucket(f"s3://{known.bucket}/none", cache, PATIENCE)
    with pytest.raises(DataError, match="there is no bucket not-made at http://127"):
        model_from_bucket("s3://not-made/model", cache, PATIENCE)
    with pytest.raises(UsageError, match="no address in S3"):
        model_from_bucket("s3:///model", cache, PATIENCE)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    stream.forget_clients()
    refused = rf"bucket {known.bucket}, access key \.\.\.{known.access_key[-4:]} from env"
    with pytest.raises(UsageError, match=refused) as said:
        model_from_bucket(uri, cache, PATIENCE)
    assert known.access_key not in str(said.value)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    stream.forget_clients()
    with pytest.raises(UsageError, match=r"no credentials.*source \.s3/env"):
        model_from_bucket(uri, cache, PATIENCE)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("AWS_ENDPOINT_URL", "127.0.0.1:1", "Invalid endpoint.*write http://HOST:PORT"),
        ("AWS_PROFILE", "nobody", r"profile \(nobody\).*mend the AWS settings"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    s3_environment: Credentials,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    value: str,
    said: str,
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=said):
        model_from_bucket(f"s3://{s3_environment.bucket}/model", tmp_path, PATIENCE)


def test_a_server_that_is_away_is_waited_for_as_long_as_asked(
    s3_environment: Credentials, tmp_path: Path
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        done = run(tmp_path, "predict", "--model", "s3://bucket/model", "word.jpg", patience=1)
    assert done.returncode == 1
    assert f"http://127.0.0.1:{port} gave nothing for 1 s, in " in " ".join(done.stderr.split())


def test_models_of_two_revisions_come_through_dvc(
    clone: Path, s3_environment: Credentials, tmp_path: Path
) -> None:
    cache, env = tmp_path / "cache", environment(s3_environment)
    found = [model_of_revision(RUN, rev, cache, clone) for rev in ("v1.0", "v1.1", "HEAD")]
    assert found[0] != found[1] == found[2]
    (clone / "word.jpg").write_bytes(tiny_jpeg("Bengali", 1))
    done = run(clone, "predict", "--run", RUN, "--rev", "v1.0", "word.jpg", model_cache=cache)
    assert done.returncode == 0, done.stderr
    assert "fetching" not in done.stderr, "it is kept"
    assert not (clone / "models" / RUN).exists(), "the checkout stays as it is"
    call(clone, env, "git", "checkout", "-q", "v1.0")
    call(clone, env, "dvc", "pull", "-q", f"models/{RUN}")
    assert read_info(found[0]) == read_info(clone / "models" / RUN) != read_info(found[1])


def test_revisions_runs_and_remotes_that_are_not_there_are_named(
    clone: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(UsageError, match=r"unknown Git revision 'v9'; git tag lists"):
        model_of_revision(RUN, "v9", cache, clone)
    with pytest.raises(UsageError, match=rf"v1\.0 has no model of student-x; it has {RUN}"):
        model_of_revision("student-x", "v1.0", cache, clone)
    with pytest.raises(UsageError, match="is not a git repository"):
        model_of_revision(RUN, "v1.0", cache, tmp_path)
    (clone / ".dvc/config.local").unlink()
    with pytest.raises(UsageError, match=r"not in the DVC remote .*remote default --local NAME"):
        model_of_revision(RUN, "v1.0", cache, clone)
    done = run(clone, "predict", "--rev", "v1.0", "--model", "x", "word.jpg")
    assert done.returncode == 2
    assert "--rev takes the model of a run" in done.stderr


def test_a_remote_that_refuses_or_is_away_is_explained(
    clone: Path, s3_environment: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    with pytest.raises(UsageError, match=rf"s3://{s3_environment.bucket}/dvc .* is refused"):
        model_of_revision(RUN, "v1.0", cache, clone)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(StorageError, match="cannot be reached"):
        model_of_revision(RUN, "v1.0", cache, clone)
    assert not [*cache.glob("**/*")]


def test_a_model_that_was_changed_in_the_remote_is_refused(
    clone: Path, s3_environment: Credentials, tmp_path: Path
) -> None:
    # A remote of its own: others would meet the damage.
    client, bucket, prefix = boto3.session.Session().client("s3"), s3_environment.bucket, "damaged"
    env = environment(s3_environment)
    call(clone, env, "dvc", "pull", "-q", f"models/{RUN}")
    call(clone, env, *("dvc", "remote", "add", "-q", "--local", "-d", "own"),
         f"s3://{bucket}/{prefix}")  # fmt: skip
    call(clone, env, "dvc", "push", "-q", f"models/{RUN}")
    shutil.rmtree(clone / ".dvc/cache")
    for listed in client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]:
        content = client.get_object(Bucket=bucket, Key=listed["Key"])["Body"].read()
        if b"network.classifier.weight" in content:
            damaged = content[:-1] + bytes([content[-1] ^ 1])
            client.put_object(Bucket=bucket, Key=listed["Key"], Body=damaged)
    with pytest.raises(DataError, match=r"model\.safetensors of HEAD is not what DVC knows it as"):
        model_of_revision(RUN, "HEAD", tmp_path / "cache", clone)
    assert not [*(tmp_path / "cache").glob("**/*")]
