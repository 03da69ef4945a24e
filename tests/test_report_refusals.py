"""What the report refuses: evidence that is missing, broken, or does not fit the rest."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import report_fakes
from report_fakes import Workspace, build, edit, write_audit

from pipeline import evaluation as evaluations
from pipeline.errors import DataError
from pipeline.report import PAGE_FILE, SUMMARY_FILE, write_report

COUNTS = {"train": 8, "validation": 3, "test": 6}


def write(workspace: Workspace) -> None:
    write_report(
        workspace.params, workspace.reports, models=workspace.models, shards=workspace.shards
    )


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return build(tmp_path)


def test_missing_evaluation_names_the_run_and_the_command(workspace: Workspace) -> None:
    (workspace.reports / "evaluations" / "student-ocr" / evaluations.METRICS_FILE).unlink()
    with pytest.raises(DataError, match=r"student-ocr.*python -m pipeline evaluate student-ocr$"):
        write(workspace)
    assert not (workspace.reports / SUMMARY_FILE).exists()
    assert not (workspace.reports / PAGE_FILE).exists()


def test_evaluation_of_other_data_is_refused(workspace: Workspace) -> None:
    metrics = workspace.reports / "evaluations" / "student-alone" / evaluations.METRICS_FILE
    data = json.loads(metrics.read_text())["data"]
    edit(metrics, data=data | {"version": "0" * 64})
    with pytest.raises(DataError, match="student-alone judges other data"):
        write(workspace)


def test_evaluation_that_contradicts_its_predictions_is_refused(workspace: Workspace) -> None:
    metrics = workspace.reports / "evaluations" / "teacher-ocr" / evaluations.METRICS_FILE
    edit(metrics, correct=1)
    with pytest.raises(DataError, match=r"teacher-ocr.*disagree.*evaluate teacher-ocr"):
        write(workspace)


def test_runs_judged_on_different_images_are_not_compared(workspace: Workspace) -> None:
    rows = workspace.reports / "evaluations" / "student-ocr" / evaluations.PREDICTIONS_FILE
    rows.write_text(rows.read_text().replace("BEN_1,", "BEN_901,"))
    with pytest.raises(DataError, match="teacher-ocr and student-ocr were judged on different"):
        write(workspace)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("model.json", {"data_version": "other"}, "trained on other data.*train student-ocr"),
        ("model.json", {"metrics": {}}, "model.json.*train student-ocr"),
        ("model.json", None, "model.json is missing: run python -m pipeline train student-ocr"),
        ("history.csv", None, "history.csv is missing: run python -m pipeline train student-ocr"),
    ],
)
def test_models_that_do_not_fit_are_refused(
    workspace: Workspace, file: str, changes: dict[str, Any] | None, message: str
) -> None:
    path = workspace.models / "student-ocr" / file
    if changes is None:
        path.unlink()
    else:
        edit(path, **changes)
    with pytest.raises(DataError, match=re.compile(message, re.DOTALL)):
        write(workspace)


@pytest.mark.parametrize("text", ["epoch\n1\n", "epoch,validation_loss,validation_accuracy\n1,x,2"])
def test_a_broken_history_is_refused(workspace: Workspace, text: str) -> None:
    (workspace.models / "student-ocr" / "history.csv").write_text(text)
    with pytest.raises(DataError, match="no history of a training"):
        write(workspace)


def test_a_history_without_the_best_epoch_is_refused(workspace: Workspace) -> None:
    history = workspace.models / "student-ocr" / "history.csv"
    history.write_text(history.read_text().splitlines()[0])
    with pytest.raises(DataError, match="has no epoch"):
        write(workspace)


@pytest.mark.parametrize("folder", ["reports/audit.json", "data/shards/index.json"])
def test_missing_files_of_the_data_name_the_command(workspace: Workspace, folder: str) -> None:
    (workspace.root / folder).unlink()
    with pytest.raises(DataError, match=r"is missing: .* shards"):
        write(workspace)


@pytest.mark.parametrize("folder", ["reports/audit.json", "data/shards/index.json"])
def test_broken_files_of_the_data_are_named(workspace: Workspace, folder: str) -> None:
    (workspace.root / folder).write_text("{}")
    with pytest.raises(DataError, match=folder):
        write(workspace)


def test_an_audit_of_other_data_is_refused(workspace: Workspace) -> None:
    write_audit(workspace, COUNTS, source="cvsi")
    with pytest.raises(DataError, match="tells of other data"):
        write(workspace)


def test_a_truncated_shard_is_named(workspace: Workspace) -> None:
    shard = workspace.shards / "train" / "train-000000.tar"
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"train-000000\.tar"):
        write(workspace)


def test_an_image_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_fakes, "draw", lambda script, number, seed: b"no image")
    with pytest.raises(DataError, match=r"_\d+ in shard test/test-000000.tar is no image"):
        write(build(tmp_path))
