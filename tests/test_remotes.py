"""DVC's remotes, as a team uses them: pushed here, pulled from there, by version."""

from __future__ import annotations

import subprocess
from pathlib import Path

import boto3
import pytest
import yaml
from commands import ROOT
from tiny import tiny_shards
from versions import RUN, VERSIONS, call, environment

from cluster.seaweedfs import Credentials, Server
from pipeline import params
from pipeline.data.shards import read_index
from pipeline.models.folder import ModelInfo, read_info
from pipeline.runs import all_runs


@pytest.fixture
def env(s3: Server, tmp_path: Path) -> dict[str, str]:
    return environment(s3.credentials, DVC_SITE_CACHE_DIR=str(tmp_path / "site"))


@pytest.fixture
def clone(versions: Path, env: dict[str, str], tmp_path: Path) -> Path:
    call(tmp_path, env, "git", "clone", "-q", str(versions), "clone")
    return tmp_path / "clone"


@pytest.mark.parametrize("version", VERSIONS)
def test_a_fresh_clone_pulls_data_models_and_reports_of_any_tag(
    clone: Path, env: dict[str, str], version: str, tmp_path: Path
) -> None:
    call(clone, env, "git", "checkout", "-q", version)
    call(clone, env, "dvc", "pull", "-q", "--remote", "s3")
    seed = VERSIONS.index(version)
    wanted = tiny_shards(tmp_path / "wanted", seed=seed)
    assert read_index(clone / "data/shards") == wanted
    assert read_info(clone / "models" / RUN).data_version == wanted.version
    assert version in (clone / "reports/index.html").read_text()


def test_a_clone_that_chose_s3_needs_no_option(clone: Path, env: dict[str, str]) -> None:
    call(clone, env, "make", "-o", "setup", "s3-remote")
    call(clone, env, "dvc", "pull", "-q", f"models/{RUN}")
    assert read_info(clone / "models" / RUN).run == RUN
    assert call(clone, env, "git", "status", "--porcelain").strip() == ""
    refused = subprocess.run(
        ["make", "-o", "setup", "s3-remote"],
        cwd=clone,
        env={name: value for name, value in env.items() if name != "S3_BUCKET"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode != 0
    assert "S3_BUCKET is not set: source .s3/env" in refused.stderr


def test_a_single_model_is_got_imported_and_found_by_its_version(
    clone: Path, env: dict[str, str], tmp_path: Path
) -> None:
    # A repository as it lies on a git server: with nothing in DVC's cache.
    model, project = f"models/{RUN}", str(clone)
    call(tmp_path, env, *("dvc", "get", "-q", "--remote", "s3", "--rev", "v1.0"), project, model)
    # The way that names a version of this one model, by a tag MODEL@VERSION.
    call(tmp_path, env, *("dvc", "artifacts", "get", "-q", "--remote", "s3"), project, RUN,
         "--rev", "v1.1.0", "-o", "newer")  # fmt: skip
    other = tmp_path / "other"
    other.mkdir()
    call(other, env, "git", "init", "-q")
    call(other, env, "dvc", "init", "-q")
    call(other, env, *("dvc", "import", "-q", "--remote", "s3", "--rev", "v1.0"), project, model)
    got, newer, imported = (read_info(tmp_path / name) for name in (RUN, "newer", f"other/{RUN}"))
    assert got == imported != newer


def test_no_key_and_no_endpoint_is_in_a_file_of_the_project(
    versions: Path, s3_environment: Credentials
) -> None:
    known = s3_environment
    secrets = (known.access_key, known.secret_key, known.endpoint)
    for file in versions.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not any(secret.encode() in content for secret in secrets), file


def test_a_version_aware_remote_keeps_versions_under_plain_names(
    clone: Path, env: dict[str, str], s3_environment: Credentials
) -> None:
    bucket, prefix, model = s3_environment.bucket, "versions-test", f"models/{RUN}"
    seen: list[ModelInfo] = []
    call(clone, env, *("dvc", "remote", "add", "-q", "plain", f"s3://{bucket}/{prefix}"))
    call(clone, env, *("dvc", "remote", "modify", "plain", "version_aware", "true"))
    for version in VERSIONS:
        call(clone, env, "git", "checkout", "-q", version, "--", "dvc.lock", "params.yaml")
        call(clone, env, "dvc", "pull", "-q", "--remote", "s3", model)
        seen.append(read_info(clone / model))
        # Before the commit: a push notes the versions' names in dvc.lock.
        call(clone, env, "dvc", "push", "-q", "--remote", "plain", model)
        assert "version_id" in (clone / "dvc.lock").read_text()
        call(clone, env, "git", "commit", "-qam", f"push {version}")
    listed = (
        boto3.session.Session()
        .client("s3")
        .list_object_versions(Bucket=bucket, Prefix=f"{prefix}/{model}/model.json")
    )
    assert len(listed["Versions"]) == 2
    other = clone.with_name("other")
    call(clone, env, "git", "clone", "-q", ".", str(other))
    call(other, env, "git", "checkout", "-q", "origin/HEAD~1")
    call(other, env, "dvc", "pull", "-q", "--remote", "plain", model)
    assert read_info(other / model) == seen[0] != seen[1]


def test_every_run_of_the_matrix_is_declared_as_an_artifact() -> None:
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text())["artifacts"]
    runs = all_runs(params.load(ROOT / "params.yaml"))
    assert {run.name for run in runs} == set(declared)
    for run in runs:
        artifact = declared[run.name]
        assert artifact["path"] == f"models/{run.name}"
        assert artifact["type"] == "model"
        assert artifact["desc"]
        assert run.role in artifact["labels"]
