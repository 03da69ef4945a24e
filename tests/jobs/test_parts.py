"""What of jobs needs no cluster: settings, names, what is packed, and what a log says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from bucket import REMOTE, params

from pipeline.compute import Compute
from pipeline.errors import DataError, StorageError, UsageError
from pipeline.failure import FAILURE_FILE, STANDARD_ERROR, Failure, error_of, tell
from pipeline.jobs import package
from pipeline.jobs.client import JobLog
from pipeline.jobs.weights import job_name
from pipeline.jobs.where import storage_of
from pipeline.params import Params

SECRET = "the-secret-itself"  # noqa: S105 - no secret of anything


def with_weights(path: str) -> Params:
    row = {"network": {"architecture": "timm", "name": "resnet10t", "weights": path}}
    return params(models={**params().model_dump(mode="json")["models"], "cnn": row})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a DVC remote whose keys stand in its settings."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text(
        f"['remote \"{REMOTE}\"']\n  url = s3://data/dvc\n  secret_access_key = {SECRET}\n"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"storage": ".checkpoints"}, "a job on a Ray cluster needs DISTILL_STORAGE=s3://"),
        ({"stream": None}, "DISTILL_STREAM=s3, the DVC remote"),
        ({"workers": 0}, "DISTILL_WORKERS=1 or more"),
    ],
    ids=["storage", "stream", "workers"],
)
def test_a_setting_that_is_missing_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        storage_of(Compute(**{"storage": "s3://data/kept/", "stream": REMOTE, **change}))


def test_a_job_takes_keys_along_in_a_file_and_in_nothing_else(
    project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv(FAILURE_FILE, "/only/here")
    folder = tmp_path_factory.mktemp("packed")
    package.pack(folder, params(), REMOTE)
    holding = [
        path for path in folder.rglob("*") if path.is_file() and SECRET in path.read_text("latin-1")
    ]
    assert holding == [folder / ".job-keys.json"]
    assert holding[0].stat().st_mode & 0o777 == 0o600
    assert SECRET not in json.dumps(package.settings())
    assert package.settings()[FAILURE_FILE] == STANDARD_ERROR
    with pytest.raises(UsageError, match="no DVC remote nowhere"):
        package.pack(tmp_path_factory.mktemp("other"), params(), "nowhere")


def test_pretrained_weights_go_along_and_name_the_job_by_their_content(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    chosen, path = with_weights("own/resnet.safetensors"), Path("own/resnet.safetensors")
    with pytest.raises(DataError, match=f"{path} is missing"):
        job_name(chosen, "teacher-cnn", "v", project)
    path.parent.mkdir()
    names = []
    for content in ("first", "second"):
        path.write_text(content)
        names.append(job_name(chosen, "teacher-cnn", "v", project))
    assert names[0] != names[1]
    folder = tmp_path_factory.mktemp("packed")
    package.pack(folder, chosen, REMOTE, path)
    assert (folder / path).read_text() == "second"
    for outside in (path.absolute(), Path("../resnet.safetensors")):
        with pytest.raises(UsageError, match="by a path in the project"):
            package.pack(tmp_path_factory.mktemp("other"), chosen, REMOTE, outside)


def test_a_log_is_shown_once_however_often_it_is_told() -> None:
    lines: list[str] = []
    log = JobLog(lines.append)
    text = "first\nsecond\nthird"
    for end in (3, 9, len(text)):
        log.take(text[:end], 0)
    position = log.take(text[:8], 0)
    log.take(text[8:], position)
    assert lines == ["first", "second"]
    log.finish()
    assert lines == ["first", "second", "third"]


def test_a_jobs_error_arrives_with_its_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(FAILURE_FILE, STANDARD_ERROR)
    tell(StorageError("S3 is away\nfor good"))
    lines: list[str] = []
    log = JobLog(lines.append)
    log.take(f"at work\n{capsys.readouterr().err}", 0)
    assert lines == ["at work"]
    assert log.failure == Failure(error="StorageError", message="S3 is away\nfor good")
    found = error_of(log.failure)
    assert (type(found), str(found)) == (StorageError, "S3 is away\nfor good")
    assert str(error_of(Failure(error="OSError", message="full"))) == "OSError: full"
