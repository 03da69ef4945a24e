"""Which objects are streamed: those DVC means, of the revision that is asked for."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import dvc.api
import pytest
import webdataset
from bucket import REMOTE, without_data
from bucket import dvc as run_dvc
from proxy import Proxy
from tiny import SCRIPTS, tiny_params, tiny_shards

from cluster.seaweedfs import Credentials, Server
from pipeline.data import stream
from pipeline.data.revision import Revision, locate
from pipeline.data.shards import read_index
from pipeline.errors import UsageError
from pipeline.files import write_whole
from pipeline.prepare import prepare

SHARDS = Path("data/shards")
AUDIT = {
    **{"source": "generated", "scripts": list(SCRIPTS), "images": 84, "counts": {}, "notes": []},
    **{"official": None, "official_test": None, "differences": [], "problems": []},
    **{"duplicates": {}, "unlabelled": 0},
}


def find(rev: str | None = None, remote: str = REMOTE) -> Revision:
    return locate(SHARDS, rev, remote, patience=5)


def test_the_objects_are_those_that_dvc_names(
    pushed: Path, tmp_path: Path, s3_environment: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(without_data(pushed, tmp_path / "job"))
    found = find()
    assert found.index == read_index(pushed / SHARDS)
    assert found.objects == {
        shard.name: dvc.api.get_url(f"data/shards/{shard.name}", remote=REMOTE)
        for shard in found.index.shards
    }


def test_plain_webdataset_reads_the_objects(
    pushed: Path, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pushed)
    found = find()
    stream.register()
    names = [found.objects[shard.name] for shard in found.index.of("train")]
    keys = [sample["__key__"] for sample in webdataset.WebDataset(names, shardshuffle=False)]
    assert len(set(keys)) == len(keys) == found.index.images("train")
    assert len(proxy.requests) == 2 + len(names)
    with pytest.raises(ValueError, match="reading only"):
        webdataset.gopen(names[0], "wb")


def test_an_older_revision_is_streamed_by_its_tag(
    s3: Server, s3_environment: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    git("init", "-q")
    run_dvc(tmp_path, s3, "init", "-q")
    url = f"s3://{s3.credentials.bucket}/tagged"
    run_dvc(tmp_path, s3, "remote", "add", "-q", REMOTE, url)
    indexes = []
    for seed in (0, 1):
        indexes.append(tiny_shards(tmp_path / SHARDS, seed=seed))
        write_whole(tmp_path / "reports/audit.json", json.dumps(AUDIT))
        run_dvc(tmp_path, s3, "add", "-q", str(SHARDS), "reports/audit.json")
        run_dvc(tmp_path, s3, "push", "-q", "-r", REMOTE)
        git("add", ".")
        git("commit", "-q", "-m", f"Data {seed}")
        git("tag", f"v{seed}")
    assert find("v0").index == indexes[0]
    assert find().index == find("v1").index == indexes[1]
    assert find("v0").objects != find("v1").objects
    older = tiny_params(data={"rev": "v0"})
    audit, index = prepare(older, tmp_path / "restored", tmp_path / "audit.json")
    assert index == indexes[0] == read_index(tmp_path / "restored")
    assert audit.model_dump(mode="json") == AUDIT
    with pytest.raises(UsageError, match=r"data\.rev v2 cannot be had from DVC"):
        prepare(tiny_params(data={"rev": "v2"}), tmp_path / "restored", tmp_path / "audit.json")
    assert read_index(tmp_path / "restored") == index, "what was there stays"
    with pytest.raises(UsageError, match=r"data\.rev v2 in its .*unknown Git revision"):
        find("v2")
    with pytest.raises(UsageError, match="remote 'nowhere' doesn't exist"):
        find(remote="nowhere")
    run_dvc(tmp_path, s3, "remote", "add", "-q", "folder", str(tmp_path / "remote"))
    with pytest.raises(UsageError, match=r"keeps data/shards at .*: stream from a remote in S3"):
        find(remote="folder")


def test_without_git_only_the_lock_file_that_lies_there_can_be_streamed(
    pushed: Path, tmp_path: Path, s3_environment: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(without_data(pushed, tmp_path / "job"))
    with pytest.raises(UsageError, match=r"data\.rev v0 .*not a git repository"):
        find("v0")


def git(*arguments: str) -> None:
    someone = ("-c", "user.name=Someone", "-c", "user.email=someone@example.org")
    settings = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", *someone, *arguments], check=True, env={**os.environ, **settings})
