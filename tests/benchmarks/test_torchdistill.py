"""Both sides of the comparison with torchdistill teach the same lesson."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import CNN, tiny_model, tiny_params, tiny_shards
from training import make_job, train

from benchmarks import torchdistill
from benchmarks.taught import Taught
from pipeline.data.shards import read_shard
from pipeline.errors import UsageError
from pipeline.models.build import build
from pipeline.train.job import Job

ByTorchdistill = Callable[[Job, Path, Path], Taught]


@pytest.fixture
def by_torchdistill(monkeypatch: pytest.MonkeyPatch) -> ByTorchdistill:
    monkeypatch.setattr(sys, "path", [*sys.path])
    try:
        return torchdistill.find_torchdistill()
    except UsageError as error:
        pytest.skip(str(error))


def test_one_step_of_all_images_is_the_same_on_both_sides(
    by_torchdistill: ByTorchdistill, tmp_path: Path
) -> None:
    # All images in one step leave nothing to their order, and SGD nothing to the sign of a rest.
    params = tiny_params(
        training={"epochs": 1, "batch_size": 48, "optimizer": "sgd", "ema": 0.0, "warmup": 0.0},
        distillation={"targets": "live", "student": {"temperature": 3.0, "weight": 0.6}},
        view={"augment": {"rotate": 5, "noise": 0.5}},
    )
    index = tiny_shards(tmp_path / "shards")
    network = params.models["cnn"].network
    tiny_model(tmp_path / "models/teacher-cnn", index, run="teacher-cnn", network=network, steps=20)
    for shard in index.shards:
        for sample in read_shard(tmp_path / "shards", shard):
            file = tmp_path / "images" / shard.split / sample.script / f"{sample.key}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(sample.jpeg)

    job = make_job(params, "student-cnn", tmp_path)
    theirs = by_torchdistill(job, tmp_path / "images", tmp_path / "theirs")
    ours = train(params, tmp_path, "student-cnn").weights

    assert len(theirs.rates) == 1
    assert [len(theirs.right[split]) for split in ("validation", "test")] == [12, 24]
    torch.manual_seed(params.seed)
    before = build(CNN, len(index.scripts), params.view).state_dict()
    for name, weight in load_file(tmp_path / "theirs/best.safetensors").items():
        torch.testing.assert_close(weight, ours[name].contiguous(), atol=1e-6, rtol=1e-3)
        assert "running" in name or not weight.equal(before[name])


def test_where_it_is_not_there_the_way_to_get_it_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(torchdistill, "FOLDER", tmp_path / "nothing")
    monkeypatch.setattr(torchdistill, "VERSION", "0.0")
    with pytest.raises(UsageError, match=r"pip install --no-deps --target .*torchdistill==0\.0"):
        torchdistill.find_torchdistill()
