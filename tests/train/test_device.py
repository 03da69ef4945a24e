"""What hangs on the device: the precision that is computed in, and where batches lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_params, tiny_shards
from torch import Tensor, nn
from training import make_job, trainer

from pipeline.data.shards import ShardFolder, read_index
from pipeline.errors import UsageError
from pipeline.train.device import Worker, autocast_dtype
from pipeline.train.setup import make_loader

ALONE = "student-alone"
CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("device")
    tiny_shards(path / "shards")
    return path


@pytest.mark.parametrize("device", [CPU, GPU])
def test_a_precision_that_is_named_is_computed_in(device: torch.device) -> None:
    assert autocast_dtype("fp32", device) is None
    assert autocast_dtype("bf16", device) is torch.bfloat16


def test_half_precision_needs_a_gpu() -> None:
    assert autocast_dtype("fp16", GPU) is torch.float16
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        autocast_dtype("fp16", CPU)


def test_the_device_chooses_where_nothing_is_named() -> None:
    newer = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    assert autocast_dtype("auto", GPU) is (torch.bfloat16 if newer else torch.float16)
    assert autocast_dtype("auto", CPU) in {None, torch.bfloat16}


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_a_training_computes_in_it(folder: Path, precision: str, dtype: torch.dtype) -> None:
    made = trainer(tiny_params(training={"epochs": 1, "precision": precision}), ALONE, folder)
    seen: set[torch.dtype] = set()

    def note(_: nn.Module, __: Any, made: Tensor) -> None:
        seen.add(made.dtype)

    convolution = next(one for one in made.model.network.modules() if isinstance(one, nn.Conv2d))
    convolution.register_forward_hook(note)
    made.run()
    assert seen == {dtype}
    assert convolution.weight.dtype == torch.float32


def test_batches_lie_in_pinned_memory_beside_a_gpu_only(folder: Path) -> None:
    job, index = make_job(tiny_params(), ALONE, folder), read_index(folder / "shards")
    source = ShardFolder(folder / "shards")

    def first(device: torch.device) -> Any:
        worker = Worker(device=device)
        loader = make_loader(job, source, index, "validation", worker, augmented=False)
        return next(loader.all_in_order())

    assert not first(CPU).images.is_pinned()
    if torch.cuda.is_available():
        batch = first(GPU)
        assert batch.images.is_pinned()
        assert batch.labels.is_pinned()
    else:
        # Without a GPU there is nothing to pin memory for, and torch says so.
        with pytest.raises(RuntimeError, match=r"NVIDIA|CUDA|accelerator"):
            first(GPU)
