"""Exports of tiny models, and the check that an export is the model."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from tiny import CNN, SCRIPTS, VIEW, tiny_info, tiny_jpeg, tiny_model, tiny_params, tiny_shards

from pipeline import export
from pipeline.data.loader import Batch
from pipeline.data.shards import read_index
from pipeline.errors import DataError
from pipeline.evaluate import evaluate_run
from pipeline.export import ExportError, export_run, largest_difference
from pipeline.exported import Exported
from pipeline.inference import Answers, load_as_they_are
from pipeline.models.build import build
from pipeline.models.folder import load_model
from pipeline.onnx_model import onnx_asker, to_int8, to_onnx
from pipeline.params import Architecture, Crnn, Ocr, Timm, View
from pipeline.predict import predict

RUN = "student-alone"
FILES = {
    *("model.safetensors", "model.json", "history.csv"),
    *("model.onnx", "model.int8.onnx", "README.md", "export.json"),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose one run is judged and exported; tests change copies of it."""
    root = tmp_path_factory.mktemp("export")
    tiny_model(root / "models" / RUN, tiny_shards(root / "shards"), steps=20)
    evaluate_run(
        tiny_params(),
        RUN,
        models=root / "models",
        shards=root / "shards",
        folder=root / "reports" / "evaluations",
    )
    run_export(root)
    return root


def judged_accuracy(root: Path) -> float:
    metrics = root / "reports" / "evaluations" / RUN / "metrics.json"
    accuracy: float = json.loads(metrics.read_text())["accuracy"]
    return accuracy


def run_export(root: Path) -> Exported:
    return export_run(
        RUN,
        models=root / "models",
        shards=root / "shards",
        reports=root / "reports",
        out=root / "exports",
    )


def test_an_export_holds_everything_and_says_how_near_it_is(exported: Path) -> None:
    index = read_index(exported / "shards")
    folder = exported / "exports" / RUN
    assert {path.name for path in folder.iterdir()} == FILES
    found = Exported.model_validate_json((folder / "export.json").read_text())
    assert found.decisions_equal == found.test_images == 24
    assert found.largest_difference < 1e-4
    assert found.onnx_bytes == (folder / "model.onnx").stat().st_size
    assert found.latency_ms_onnx > 0
    for name in ("model.safetensors", "model.json", "history.csv"):
        assert (folder / name).read_bytes() == (exported / "models" / RUN / name).read_bytes()

    assert found.int8.bytes == (folder / "model.int8.onnx").stat().st_size
    assert found.int8.decisions_equal >= 22
    assert abs(found.int8.accuracy - judged_accuracy(exported)) <= 100 * 2 / 24

    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (given,), (answered,) = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type) == ("images", "tensor(float)")
    assert (given.shape, answered.shape) == (["batch", 1, 16, 32], ["batch", 3])
    assert answered.name == "logits"
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["scripts"]) == list(SCRIPTS)
    assert (about["run"], about["data_version"]) == (RUN, index.version)
    assert (about["data_source"], about["generated"]) == ("generated", "true")

    model, _ = load_model(folder)
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 16, 32)).astype(np.float32)
    with torch.inference_mode():
        expected = model(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(session.run(None, {"images": images})[0], expected, atol=1e-4)

    _, front, card = (folder / "README.md").read_text().split("---\n", 2)
    assert yaml.safe_load(front)["model-index"][0]["name"] == RUN
    assert "Generated words, not CVSI-2015" in card


@pytest.mark.parametrize("number", [1, 2])
def test_the_card_says_how_to_ask_it_without_this_project(exported: Path, number: int) -> None:
    folder = exported / "exports" / RUN
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    word = folder / "word.jpg"
    word.write_bytes(tiny_jpeg("Hindi", number))
    (expected,) = predict(folder, [word])
    asked = f"{code}print(logits.tolist())"
    done = subprocess.run(
        [sys.executable, "-c", asked], cwd=folder, capture_output=True, text=True, check=True
    )
    word.unlink()
    script, logits = done.stdout.splitlines()
    assert script == expected.script
    odds = np.exp(json.loads(logits)[0])
    assert odds.max() / odds.sum() == pytest.approx(expected.probability, abs=1e-4)


def test_one_model_gives_the_same_bytes_and_no_trace_of_the_machine(tmp_path: Path) -> None:
    index = tiny_shards(tmp_path / "shards")
    model = tiny_model(tmp_path / "model", index, steps=1)
    first, second = (
        to_onnx(model, tiny_info(index)).SerializeToString(deterministic=True) for _ in range(2)
    )
    assert hashlib.sha256(first).digest() == hashlib.sha256(second).digest()
    proto = onnx.load_from_string(first)
    texts = str(proto.graph.node) + str(proto.graph.input) + str(proto.graph.value_info)
    for trace in ("stack_trace", ".py", "metadata_props", "doc_string", str(Path.cwd())):
        assert trace not in texts
    assert not proto.graph.metadata_props
    assert b".py" not in first
    assert str(Path.cwd()).encode() not in first
    assert not any(item.external_data for item in proto.graph.initializer)


@pytest.mark.parametrize(
    ("network", "view"),
    [
        pytest.param(
            Crnn(architecture="crnn", channels=(8, 16), hidden=8, layers=2), VIEW, id="crnn"
        ),
        pytest.param(Ocr(architecture="ocr", depth=0.25, hidden=8), View(), id="ocr"),
        pytest.param(Timm(architecture="timm", name="test_resnet", reduction=8), View(), id="timm"),
    ],
)
def test_other_networks_export_too(network: Architecture, view: View, tmp_path: Path) -> None:
    index = tiny_shards(tmp_path / "shards")
    info = tiny_info(index, network=network, view=view)
    torch.manual_seed(0)
    model = build(network, 3, view, pretrained=False).eval()
    ask = onnx_asker(to_onnx(model, info).SerializeToString(), threads=1)
    for count in (1, 3):
        images = torch.rand(count, 1, view.height, view.width) * 255
        with torch.inference_mode():
            torch.testing.assert_close(ask(images), model(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(CNN, id="cnn"),
        pytest.param(Crnn(architecture="crnn", channels=(8, 16), hidden=8, layers=2), id="crnn"),
        pytest.param(Timm(architecture="timm", name="test_resnet", reduction=8), id="timm"),
    ],
)
def test_in_8_bits_it_says_nearly_the_same_and_has_the_same_bytes(
    network: Architecture, tmp_path: Path
) -> None:
    index = tiny_shards(tmp_path / "shards")
    model = tiny_model(tmp_path / "model", index, network=network, steps=30)
    content = to_onnx(model, tiny_info(index, network=network)).SerializeToString()
    images = [batch.images.float() for batch in every_image(tmp_path / "shards")]
    first, second = (to_int8(content, images) for _ in range(2))
    assert first == second
    proto = onnx.load_from_string(first)
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in proto.graph.node}
    kinds = {item.data_type for item in proto.graph.initializer if len(item.dims) == 4}
    assert kinds == {onnx.TensorProto.INT8}, "every convolution's weights"
    said, before = (
        torch.cat([onnx_asker(model, threads=1)(batch) for batch in images])
        for model in (first, content)
    )
    assert (said.argmax(1) == before.argmax(1)).float().mean() >= 0.9
    assert onnxruntime.InferenceSession(first).get_modelmeta().custom_metadata_map["scripts"]


def every_image(shards: Path) -> list[Batch]:
    return [*load_as_they_are(shards, read_index(shards), "train", VIEW)]


def answers(*logits: list[float]) -> Answers:
    keys = tuple(str(place) for place in range(len(logits)))
    return Answers(keys, torch.zeros(len(logits), dtype=torch.int64), torch.tensor(logits))


def test_a_twin_that_decides_otherwise_is_refused() -> None:
    trained = answers([1.0, 0.9995], [2.0, 0.0])
    assert largest_difference("x", trained, trained) == 0
    with pytest.raises(ExportError, match="decides 1 of 2"):
        largest_difference("x", trained, answers([0.9997, 0.9999], [2.0, 0.0]))


def test_a_tie_may_fall_either_way() -> None:
    found = largest_difference("x", answers([1.0, 0.99999]), answers([0.99999, 1.0]))
    assert found == pytest.approx(1e-5, rel=0.1)


def test_logits_that_are_far_off_are_refused() -> None:
    with pytest.raises(ExportError, match=r"allowed 0\.001"):
        largest_difference("x", answers([2.0, 0.0]), answers([2.01, 0.0]))


def test_a_refused_export_leaves_the_old_one(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (exported / "exports" / RUN / "export.json").read_bytes()

    def wrong(name: str, trained: Answers, twin: Answers) -> float:
        return largest_difference(name, trained, replace(twin, logits=-twin.logits))

    monkeypatch.setattr(export, "largest_difference", wrong)
    with pytest.raises(ExportError, match="nothing was exported"):
        run_export(exported)
    assert (exported / "exports" / RUN / "export.json").read_bytes() == before
    assert [path.name for path in (exported / "exports").iterdir()] == [RUN]


def test_a_card_is_not_written_from_another_models_evaluation(
    exported: Path, tmp_path: Path
) -> None:
    for name in ("shards", "reports"):
        shutil.copytree(exported / name, tmp_path / name)
    tiny_model(tmp_path / "models" / RUN, read_index(tmp_path / "shards"), steps=1, seed=5)
    with pytest.raises(DataError, match="evaluate student-alone"):
        run_export(tmp_path)
    assert not (tmp_path / "exports").exists()


def test_a_model_without_evaluation_or_history_is_refused(tmp_path: Path) -> None:
    index = tiny_shards(tmp_path / "shards")
    tiny_model(tmp_path / "models" / RUN, index, network=CNN)
    with pytest.raises(DataError, match="holds no evaluation"):
        run_export(tmp_path)
    (tmp_path / "models" / RUN / "history.csv").unlink()
    with pytest.raises(DataError, match=r"history\.csv is missing"):
        run_export(tmp_path)
