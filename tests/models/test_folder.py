"""A model folder loads with nothing else at hand, or says in a line why it cannot."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tiny import CNN, tiny_info, tiny_model, tiny_shards

from pipeline.data.shards import Index
from pipeline.errors import DataError
from pipeline.files import sha256
from pipeline.models import ocr
from pipeline.models.build import build
from pipeline.models.folder import load_model, read_info, save_model
from pipeline.params import Architecture, Cnn, Crnn, Ocr, Timm, View

VIEW = View(height=16, width=32)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return tiny_shards(tmp_path_factory.mktemp("data") / "shards")


@pytest.fixture
def folder(tmp_path: Path, index: Index) -> Path:
    tiny_model(tmp_path / "model", index)
    return tmp_path / "model"


@pytest.mark.parametrize(
    "network",
    [
        CNN,
        Crnn(architecture="crnn", channels=(4, 8), hidden=4),
        Ocr(architecture="ocr", depth=0.1, hidden=8),
        Timm(architecture="timm", name="mobilenetv3_small_050"),
    ],
    ids=lambda network: str(network.architecture),
)
def test_a_model_comes_back_as_it_was_saved(
    tmp_path: Path, index: Index, network: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Also where the package with the pretrained weights is not installed.
    monkeypatch.setattr(ocr, "weights_file", lambda: None)
    saved = tiny_model(tmp_path / "model", index, network=network)
    loaded, info = load_model(tmp_path / "model")
    weights = sha256(tmp_path / "model" / "model.safetensors")
    assert info == tiny_info(index, network=network).model_copy(update={"weights_sha256": weights})
    assert not loaded.training
    images = 255 * torch.rand(2, 1, 16, 32)
    with torch.no_grad():
        assert torch.equal(loaded(images), saved(images))


def test_a_network_that_began_from_a_file_of_weights_loads_without_it(
    tmp_path: Path, index: Index
) -> None:
    gone = Timm(architecture="timm", name="mobilenetv3_small_050", weights=tmp_path / "gone")
    plain = gone.model_copy(update={"weights": None})
    saved = tiny_model(tmp_path / "model", index, network=plain)
    save_model(tmp_path / "model", tiny_info(index, network=gone), saved.state_dict())
    loaded, _ = load_model(tmp_path / "model")
    images = 255 * torch.rand(2, 1, 16, 32)
    assert torch.equal(loaded(images), saved(images))


def test_a_model_that_normalises_otherwise_is_refused(folder: Path) -> None:
    about = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(about | {"normalisation": "none"}))
    with pytest.raises(DataError, match=r"another version.*\(none\)"):
        load_model(folder)


def test_saved_weights_are_no_pickle(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    assert "network.classifier.weight" in json.loads(content[8 : 8 + length])


def test_half_a_weight_file_is_refused_by_name(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=r"model\.safetensors cannot be loaded.*train the run"):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"garbage" * 40])
def test_a_weight_file_that_is_none_is_refused_by_name(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"model\.safetensors cannot be loaded"):
        load_model(folder)


def test_a_missing_weight_file_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model\.safetensors cannot be loaded"):
        load_model(folder)


def test_weights_of_another_network_are_refused(folder: Path, index: Index) -> None:
    other = build(Cnn(architecture="cnn", channels=(4, 4)), 3, VIEW)
    save_model(folder, tiny_info(index), other.state_dict())
    with pytest.raises(DataError, match=r"(?s)cannot be loaded.*size mismatch"):
        load_model(folder)


def test_weights_of_another_training_are_refused(
    folder: Path, tmp_path: Path, index: Index
) -> None:
    tiny_model(tmp_path / "other", index, seed=1)
    (tmp_path / "other" / "model.safetensors").replace(folder / "model.safetensors")
    with pytest.raises(DataError, match=r"is not the file that model\.json beside it describes"):
        load_model(folder)


def test_no_model_at_all_says_to_train_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no model: make one by python -m pipeline train RUN"):
        load_model(tmp_path / "nothing")


@pytest.mark.parametrize("content", [b"", b"[1]", b'{"run": "x"}', b"\xff\xfe"])
def test_a_description_that_is_none_is_refused_by_name(folder: Path, content: bytes) -> None:
    (folder / "model.json").write_bytes(content)
    with pytest.raises(DataError, match=r"model\.json does not describe a model"):
        read_info(folder)


def test_a_description_with_a_key_too_many_is_refused(folder: Path) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pickle": "x"}))
    with pytest.raises(DataError, match="pickle"):
        read_info(folder)
