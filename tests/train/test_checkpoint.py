from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pipeline.errors import DataError
from pipeline.train.checkpoint import Checkpoint
from pipeline.train.local import FolderKeeper


def checkpoint(epoch: int = 2) -> Checkpoint:
    tensors = {
        "model.0.weight": torch.arange(6.0).reshape(2, 3).T,
        "model.steps": torch.tensor(7),
        "optimizer.0.exp_avg": torch.tensor([1e-38, float("inf")]),
        "best.x": torch.zeros(0),
    }
    return Checkpoint(epoch, 5, tensors, {"history": [], "sums": {"loss": 0.1 + 0.2}})


def test_a_checkpoint_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    checkpoint().save(tmp_path)
    found = Checkpoint.load(tmp_path)
    assert (found.epoch, found.step, found.numbers) == (2, 5, checkpoint().numbers)
    assert found.tensors.keys() == checkpoint().tensors.keys()
    for name, value in checkpoint().tensors.items():
        assert torch.equal(found.tensors[name], value)
        assert found.tensors[name].dtype == value.dtype


def test_a_part_is_named_without_its_prefix() -> None:
    assert set(checkpoint().part("model")) == {"0.weight", "steps"}
    assert checkpoint().part("average") == {}


@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "other"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path: Path, file: str, damage: str) -> None:
    checkpoint().save(tmp_path)
    path = tmp_path / file
    content = path.read_bytes()
    path.write_bytes({"half": content[: len(content) // 2], "other": b"[1]"}.get(damage, b""))
    if damage == "missing":
        path.unlink()
    with pytest.raises(DataError, match=rf"{tmp_path.name} is no whole checkpoint.*remove it"):
        Checkpoint.load(tmp_path)


def test_a_keeper_keeps_the_last_checkpoint_and_nothing_beside_it(tmp_path: Path) -> None:
    keeper = FolderKeeper(tmp_path / "job")
    keeper.keep(checkpoint(1), {})
    keeper.keep(checkpoint(2), {})
    assert Checkpoint.load(tmp_path / "job").epoch == 2
    assert [path.name for path in tmp_path.iterdir()] == ["job"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    keeper = FolderKeeper(tmp_path / "job")
    keeper.keep(checkpoint(1), {})
    broken = Checkpoint(2, 0, {}, {"not for JSON": object()})
    with pytest.raises(TypeError):
        keeper.keep(broken, {})
    assert Checkpoint.load(tmp_path / "job").epoch == 1
    assert [path.name for path in tmp_path.iterdir()] == ["job"]


def test_the_numbers_are_plain_json(tmp_path: Path) -> None:
    checkpoint().save(tmp_path)
    assert json.loads((tmp_path / "state.json").read_text())["numbers"]["sums"]["loss"] == 0.1 + 0.2
