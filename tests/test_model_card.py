"""The model card, from seeded fakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from report_fakes import Workspace, build

from pipeline import evaluation as evaluations
from pipeline.data.shards import Index, read_index
from pipeline.evaluation import Evaluation
from pipeline.exported import Exported, Int8
from pipeline.model_card import model_card

EXPORTED = Exported(
    run="student-ocr",
    largest_difference=1e-6,
    decisions_equal=100,
    test_images=100,
    onnx_bytes=773_086,
    latency_ms_onnx=0.15,
    opset=20,
    int8=Int8(accuracy=90.25, decisions_equal=99, bytes=211_257, latency_ms=0.10),
)


def parts(workspace: Workspace, run: str) -> tuple[dict[str, Any], Evaluation, Index]:
    model: dict[str, Any] = json.loads((workspace.models / run / "model.json").read_text())
    evaluation, _ = evaluations.read(workspace.reports / "evaluations" / run)
    return model, evaluation, read_index(workspace.shards)


def card_of(workspace: Workspace, run: str) -> str:
    model, evaluation, index = parts(workspace, run)
    return model_card(model, evaluation, EXPORTED, index=index)


def test_card_of_generated_data_says_so(tmp_path: Path) -> None:
    card = card_of(build(tmp_path), "student-ocr-assisted")
    assert "**Generated words, not CVSI-2015.**" in card
    assert "has seen generated words only" in card
    assert "may not be redistributed" not in card
    assert "taught by assistant-ocr" in card


def test_card_of_real_data_says_what_may_not_be_done(tmp_path: Path) -> None:
    card = card_of(build(tmp_path, source="cvsi"), "student-alone")
    assert "Generated" not in card
    assert "generated" not in card
    assert "may not be redistributed" in card
    assert "trained on labels alone" in card


def test_front_matter_is_what_hubs_read(tmp_path: Path) -> None:
    workspace = build(tmp_path)
    _, evaluation, _ = parts(workspace, "student-ocr")
    _, front, _ = card_of(workspace, "student-ocr").split("---\n", 2)
    content = yaml.safe_load(front)
    assert content["license"] == "other"
    assert content["language"][:3] == ["ar", "bn", "en"]
    result = content["model-index"][0]["results"][0]
    assert result["dataset"]["name"] == "generated words (not CVSI-2015)"
    assert result["metrics"][0]["value"] == pytest.approx(evaluation.accuracy / 100, abs=1e-6)


def test_card_has_every_script_and_its_interval(tmp_path: Path) -> None:
    workspace = build(tmp_path)
    _, evaluation, _ = parts(workspace, "student-ocr")
    card = card_of(workspace, "student-ocr")
    low, high = evaluation.accuracy_low, evaluation.accuracy_high
    assert f"Wilson 95 % interval {low:.2f} to {high:.2f}" in card
    assert "calibration error on the test images is 3.25 points, and 0.75 where" in card
    assert "| `model.int8.onnx` | accuracy 90.25 %, 0.10 ms; " in card
    for script, score in evaluation.per_script.items():
        assert f"| {script} | {score.images} | {score.accuracy:.2f} |" in card


def test_a_strange_folder_does_not_break_the_card(tmp_path: Path) -> None:
    model, evaluation, index = parts(build(tmp_path), "student-ocr")
    data = evaluation.data.model_copy(update={"source": "my|folder\n# Head: [x]", "split": "all"})
    strange = evaluation.model_copy(update={"data": data})
    card = model_card(model, strange, EXPORTED, index=index)
    assert "the images in my\\|folder # Head: [x]" in card
    _, front, _ = card.split("---\n", 2)
    assert yaml.safe_load(front)["model-index"][0]["results"][0]["dataset"]["split"] == "all"


def test_card_refuses_another_models_evaluation(tmp_path: Path) -> None:
    workspace = build(tmp_path)
    model, _, index = parts(workspace, "student-ocr")
    _, evaluation, _ = parts(workspace, "student-alone")
    with pytest.raises(ValueError, match="student-ocr, the evaluation is of student-alone"):
        model_card(model, evaluation, EXPORTED, index=index)
