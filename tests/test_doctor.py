"""What the doctor finds in made-up projects."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_params, tiny_shards

from cluster.seaweedfs import Credentials
from pipeline import doctor
from pipeline.doctor import available, diagnose
from pipeline.machine import Check
from pipeline.params import Params


def checks(root: Path, params: Params | None = None) -> dict[str, Check]:
    found = diagnose(params or tiny_params(), root=root, shards=Path("shards"))
    assert len({check.name for check in found}) == len(found)
    return {check.name: check for check in found}


def with_network(network: dict[str, Any]) -> Params:
    models = tiny_params().model_dump(mode="json")["models"] | {"cnn": {"network": network}}
    return tiny_params(models=models)


def test_a_failure_always_comes_with_advice(tmp_path: Path) -> None:
    failed = [check for check in checks(tmp_path).values() if not check.ok]
    assert "packages" in {check.name for check in failed}
    assert all(check.advice for check in failed)


def test_packages_are_held_against_the_lock(tmp_path: Path) -> None:
    torch_version = version("torch").split("+")[0]
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "# made by a tool\n--extra-index-url https://example.org\n"
        f"torch=={torch_version} \\\n    --hash=sha256:0123\n"
        f"pydantic[email]=={version('pydantic')}  # via this\n"
        'pywin32==300 ; sys_platform == "win32"\n'
    )
    assert checks(tmp_path)["packages"].detail == "all 2 as in requirements.lock"
    lock.write_text("torch==0.0.1\nno-such-package-here==2.0\n")
    found = checks(tmp_path)["packages"]
    assert not found.ok
    assert f"torch {torch_version}, not 0.0.1" in found.detail
    assert "no-such-package-here missing, not 2.0" in found.detail
    assert "requirements.lock" in found.advice


def test_shards_are_read_and_their_checksums_compared(tmp_path: Path) -> None:
    assert checks(tmp_path)["shards"].ok
    assert checks(tmp_path)["shards"].advice
    index = tiny_shards(tmp_path / "shards")
    assert "84 images in 10 shards" in checks(tmp_path)["shards"].detail
    path = tmp_path / "shards" / index.shards[0].name
    path.write_bytes(path.read_bytes()[:-1])
    found = checks(tmp_path)["shards"]
    assert not found.ok
    assert path.name in found.detail


def test_generated_data_is_made_but_real_data_must_be_there(tmp_path: Path) -> None:
    assert checks(tmp_path)["data"].ok
    real = tiny_params(data={"source": "cvsi"})
    assert not checks(tmp_path, real)["data"].ok
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "tiny.zip").write_bytes(b"")
    assert checks(tmp_path, real)["data"].ok


def test_fonts_are_wanted_for_generated_words_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package.json").write_text('{"dependencies": {"@fontsource/lato": "5.0.0"}}')
    monkeypatch.setattr("pipeline.data.packages.FOLDER", tmp_path)
    missing = checks(tmp_path)["fonts"]
    assert not missing.ok
    assert missing.advice.startswith("npm ci")
    assert checks(tmp_path, tiny_params(data={"source": "cvsi"}))["fonts"].ok
    lato = tmp_path / "node_modules" / "@fontsource" / "lato"
    lato.mkdir(parents=True)
    (lato / "package.json").write_text('{"version": "0.0.1"}')
    assert not checks(tmp_path)["fonts"].ok, "another release than the one that is named"
    wanted = json.loads((tmp_path / "package.json").read_text())["dependencies"]["@fontsource/lato"]
    (lato / "package.json").write_text(json.dumps({"version": wanted}))
    assert checks(tmp_path)["fonts"].ok


def test_ocr_weights_are_wanted_where_a_model_uses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "weights_file", lambda: None)
    assert checks(tmp_path)["ocr weights"].ok
    assert not checks(tmp_path, with_network({"architecture": "ocr"}))["ocr weights"].ok


def test_networks_that_timm_does_not_have_are_named(tmp_path: Path) -> None:
    assert checks(tmp_path, with_network({"architecture": "timm", "name": "resnet18"}))["timm"].ok
    network = {"architecture": "timm", "name": "resnet181", "weights": "nowhere.safetensors"}
    found = checks(tmp_path, with_network(network))["timm"]
    assert not found.ok
    assert "models.cnn.network.name: timm has no resnet181" in found.detail
    assert "nowhere.safetensors is missing" in found.detail


def test_the_remote_is_shown_without_its_password(tmp_path: Path) -> None:
    assert checks(tmp_path)["dvc remote"].advice
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text(
        "[core]\n    remote = store\n['remote \"store\"']\n    url = https://me:secret@host/data\n"
    )
    assert checks(tmp_path)["dvc remote"].detail == "store: https://host/data"
    (tmp_path / ".dvc" / "config").write_text("remote = store\n")
    assert not checks(tmp_path)["dvc remote"].ok


def test_the_place_of_the_computing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert "this machine" in checks(tmp_path)["ray"].detail
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    assert checks(tmp_path)["ray"].detail == "ray://head:10001"


def test_the_bucket_is_asked_where_one_is_named(
    tmp_path: Path, s3_environment: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = checks(tmp_path)["s3"]
    assert found.ok
    assert found.detail == f"bucket {s3_environment.bucket} at {s3_environment.endpoint} answers"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    refused = checks(tmp_path)["s3"]
    assert not refused.ok
    assert "is refused (SignatureDoesNotMatch" in refused.detail
    assert refused.advice.startswith("check that the key and its secret belong to this endpoint")
    monkeypatch.delenv("S3_BUCKET")
    assert checks(tmp_path)["s3"].ok


def test_what_is_available() -> None:
    found = available(tiny_params())
    assert found["architectures"] == ["timm", "ocr", "crnn", "cnn"]
    assert found["losses"] == ["hinton", "dkd", "dist"]
    assert found["optimizers"] == ["adamw", "sgd"]
    assert "1-Tamil" in found["tasks"]
    assert len(found["scripts"]) == 10
    assert "student-cnn-assisted" in found["runs"]
