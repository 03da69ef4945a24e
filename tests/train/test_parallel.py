"""Two data-parallel processes, without Ray: the result does not depend on their number."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_params, tiny_shards
from torch import distributed, nn
from torch.multiprocessing.spawn import spawn
from training import MemoryKeeper, trainer, untimed

from pipeline.params import Params
from pipeline.train.checkpoint import Checkpoint
from pipeline.train.device import Worker
from pipeline.train.history import Trained

RUN = "student-alone"
FACTS = {"epochs": 2, "batch_size": 9, "optimizer": "sgd", "weight_decay": 0.01}


def params(**training: Any) -> Params:
    student = {"network": {"architecture": "cnn", "channels": [6, 8], "dropout": 0}}
    return tiny_params(training={**FACTS, **training}, models={"student": student})


def train(
    folder: Path,
    worker: Worker,
    settings: Params,
    norms: bool,
    keeper: MemoryKeeper | None = None,
    resume: Checkpoint | None = None,
) -> Trained:
    made = trainer(settings, RUN, folder, keeper, checkpoint_steps=2, worker=worker)
    if not norms:
        for block in made.model.modules():
            for name, layer in block.named_children():
                if isinstance(layer, nn.BatchNorm2d):
                    block.register_module(name, nn.Identity())
    return made.run(resume)


def work(rank: int, world_size: int, folder: Path, settings: str, norms: bool) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size
    )
    chosen, worker = Params.model_validate_json(settings), Worker(rank, world_size)
    keeper = MemoryKeeper()
    trained = train(folder, worker, chosen, norms, keeper)
    # The first worker's checkpoint in mid-epoch, which all of them go on from.
    kept: list[Checkpoint | None] = [keeper.kept[0] if rank == 0 else None]
    distributed.broadcast_object_list(kept)
    resumed = train(folder, worker, chosen, norms, resume=kept[0])
    results = [(t.weights, untimed(t.history), t.best_epoch) for t in (trained, resumed)]
    torch.save(results, folder / f"rank-{rank}.pt")
    distributed.destroy_process_group()


def in_parallel(folder: Path, settings: Params, *, norms: bool, run: int = 0) -> list[Any]:
    """What both processes ended with: undisturbed (run 0), or going on in mid-epoch (run 1)."""
    (folder / "meet").unlink(missing_ok=True)
    spawn(  # type: ignore[no-untyped-call]
        work, (2, folder, settings.model_dump_json(), norms), nprocs=2
    )
    return [torch.load(folder / f"rank-{rank}.pt", weights_only=True)[run] for rank in range(2)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("parallel")
    tiny_shards(path / "shards")
    return path


def test_two_processes_reach_the_weights_of_one(folder: Path) -> None:
    # Batches of nine: the two have unlike shares, which count by their sizes.
    alone = train(folder, Worker(), params(), norms=False)
    first, second = in_parallel(folder, params(), norms=False)
    for name, value in alone.weights.items():
        torch.testing.assert_close(first[0][name], value, rtol=1e-4, atol=1e-5)
        assert torch.equal(first[0][name], second[0][name])
    assert first[1:] == second[1:]
    for ours, theirs in zip(first[1], untimed(alone.history), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)


def test_with_batch_norm_both_processes_judge_and_keep_the_same_weights(folder: Path) -> None:
    settings = params(ema=0.5)
    first, second = in_parallel(folder, settings, norms=True)
    assert first[1:] == second[1:]
    for name, value in first[0].items():
        assert torch.equal(value, second[0][name]), name
    probe = trainer(settings, RUN, folder)
    probe.model.load_state_dict(first[0])
    probe.model.eval()
    loss = 0.0
    for batch in probe.validation.all_in_order():
        with torch.no_grad():
            logits = probe.model(batch.images.float())
        loss += float(nn.functional.cross_entropy(logits, batch.labels, reduction="sum"))
    assert loss / 12 == pytest.approx(first[1][first[2] - 1]["validation_loss"], rel=1e-6)


def test_two_processes_that_go_on_in_mid_epoch_end_the_same(folder: Path) -> None:
    settings = params(ema=0.5, mixup=0.3)
    undisturbed = in_parallel(folder, settings, norms=True)
    for whole, resumed in zip(
        undisturbed, in_parallel(folder, settings, norms=True, run=1), strict=True
    ):
        assert resumed[1:] == whole[1:]
        for name, value in whole[0].items():
            assert torch.equal(value, resumed[0][name]), name
