"""Kill anything, any time: what goes on from a checkpoint ends as if nothing had happened."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import run, start, wait_until, write_project
from tiny import tiny_model, tiny_params, tiny_shards
from torch import Tensor, nn
from training import Interrupted, MemoryKeeper, make_job, same_weights, trainer, untimed

from pipeline.distill.methods import Losses, SoftTargets, StepBatch
from pipeline.params import Params
from pipeline.train.checkpoint import Checkpoint
from pipeline.train.local import FolderKeeper, train_here

TAUGHT = "student-cnn"
EVERYTHING: dict[str, Any] = {
    "epochs": 3, "batch_size": 10, "ema": 0.9, "mixup": 0.3, "label_smoothing": 0.1, "lr": 0.02,
}  # fmt: skip


def params(optimizer: str = "adamw", precision: str = "fp32", **network: Any) -> Params:
    """Everything on that has a state: dropout, mixup, the average, augmentation."""
    student = {"architecture": "cnn", "channels": [8, 12], "dropout": 0.4, **network}
    view = {"height": 16, "width": 32, "augment": {"shear": 10, "noise": 0.5, "shrink": 0.3}}
    return tiny_params(
        training={**EVERYTHING, "optimizer": optimizer, "precision": precision},
        models={"student": {"network": student}},
        view=view,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("resume")
    index = tiny_shards(path / "shards")
    tiny_model(path / "models/teacher-cnn", index, run="teacher-cnn", steps=30)
    return path


class DyingKeeper(FolderKeeper):
    """Keeps so many checkpoints in a folder; then the process ends."""

    def __init__(self, folder: Path, checkpoints: int) -> None:
        super().__init__(folder)
        self.left = checkpoints

    def keep(self, checkpoint: Checkpoint, metrics: Mapping[str, float]) -> None:
        super().keep(checkpoint, metrics)
        self.left -= 1
        if not self.left:
            raise Interrupted


def test_a_checkpoint_that_was_asked_for_is_one_to_go_on_from(folder: Path) -> None:
    keeper = MemoryKeeper(asked={3})
    expected = trainer(params(), TAUGHT, folder, keeper).run()
    places = [(kept.epoch, kept.step) for kept in keeper.kept]
    assert places == [(0, 4), (1, 0), (1, 4), (2, 0), (2, 4), (3, 0)]
    resumed = trainer(params(), TAUGHT, folder).run(keeper.kept[2])
    assert same_weights(resumed.weights, expected.weights)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_going_on_from_any_checkpoint_ends_bit_for_bit_the_same(
    folder: Path, optimizer: str, precision: str
) -> None:
    settings, keeper = params(optimizer, precision), MemoryKeeper()
    whole = trainer(settings, TAUGHT, folder, keeper, checkpoint_steps=2).run()
    places = [(checkpoint.epoch, checkpoint.step) for checkpoint in keeper.kept]
    # Five steps an epoch: two checkpoints within it, one at its end.
    assert places == [(0, 2), (0, 4), (1, 0), (1, 2), (1, 4), (2, 0), (2, 2), (2, 4), (3, 0)]
    for checkpoint in keeper.kept:
        torch.manual_seed(time.monotonic_ns())
        resumed = trainer(settings, TAUGHT, folder).run(checkpoint)
        assert same_weights(resumed.weights, whole.weights)
        assert untimed(resumed.history) == untimed(whole.history)
        assert resumed.best_epoch == whole.best_epoch


def test_what_is_remembered_of_views_changes_nothing_when_going_on(folder: Path) -> None:
    settings = tiny_params(
        training={**EVERYTHING, "mixup": 0, "epochs": 4},
        view={"height": 16, "width": 32, "augment": {"shear": 10, "noise": 0.5}, "cycle": 2},
    )
    keeper = MemoryKeeper()
    whole = trainer(settings, TAUGHT, folder, keeper, checkpoint_steps=3).run()
    for checkpoint in keeper.kept:
        resumed = trainer(settings, TAUGHT, folder).run(checkpoint)
        assert same_weights(resumed.weights, whole.weights)
        assert untimed(resumed.history) == untimed(whole.history)


def test_a_checkpoint_at_an_epochs_last_step_ends_the_same_too(folder: Path) -> None:
    settings, keeper = params(), MemoryKeeper()
    whole = trainer(settings, TAUGHT, folder, keeper, checkpoint_steps=5).run()
    assert (keeper.kept[0].epoch, keeper.kept[0].step) == (0, 5)
    resumed = trainer(settings, TAUGHT, folder).run(keeper.kept[0])
    assert same_weights(resumed.weights, whole.weights)
    assert untimed(resumed.history) == untimed(whole.history)


def test_how_often_checkpoints_are_kept_does_not_change_the_weights(folder: Path) -> None:
    seldom = trainer(params(), TAUGHT, folder).run()
    often = trainer(params(), TAUGHT, folder, checkpoint_steps=1).run()
    assert same_weights(seldom.weights, often.weights)


@pytest.mark.parametrize("network", [{}, {"architecture": "crnn", "hidden": 6}])
def test_a_training_that_dies_after_every_checkpoint_ends_the_same(
    folder: Path, tmp_path: Path, network: dict[str, Any]
) -> None:
    settings = params(**network)
    whole = trainer(settings, TAUGHT, folder).run()
    kept = tmp_path / "kept"
    deaths = 0
    for _ in range(20):
        try:
            resume = Checkpoint.load(kept) if kept.exists() else None
            keeper = DyingKeeper(kept, 1)
            trained = trainer(settings, TAUGHT, folder, keeper, checkpoint_steps=3).run(resume)
            break
        except Interrupted:
            deaths += 1
    assert deaths == 6
    assert same_weights(trained.weights, whole.weights)
    assert untimed(trained.history) == untimed(whole.history)


def test_train_here_goes_on_from_the_folder_it_is_given(folder: Path, tmp_path: Path) -> None:
    job = make_job(params(), TAUGHT, folder, checkpoint_steps=2)
    whole = train_here(job, tmp_path / "undisturbed")
    with pytest.raises(Interrupted):
        trainer(
            params(), TAUGHT, folder, DyingKeeper(tmp_path / "kept", 4), checkpoint_steps=2
        ).run()
    assert Checkpoint.load(tmp_path / "kept").epoch == 1
    assert same_weights(train_here(job, tmp_path / "kept").weights, whole.weights)


def test_train_here_goes_on_where_its_checkpoint_was_being_replaced(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        trainer(
            params(), TAUGHT, folder, DyingKeeper(tmp_path / "kept", 2), checkpoint_steps=0
        ).run()
    before = Checkpoint.load(tmp_path / "kept").numbers["history"]
    (tmp_path / "kept").rename(tmp_path / ".kept.old")  # a kill between two renames leaves this
    trained = train_here(make_job(params(), TAUGHT, folder), tmp_path / "kept")
    assert [vars(row) for row in trained.history[:2]] == before, "not trained a second time"
    assert len(trained.history) == 3


def test_a_training_that_is_finished_is_not_trained_again(folder: Path, tmp_path: Path) -> None:
    job = make_job(params(), TAUGHT, folder)
    first = train_here(job, tmp_path / "kept")
    second = train_here(job, tmp_path / "kept")
    assert same_weights(first.weights, second.weights)
    assert second.history == first.history, "its clock readings included"


class Counting(SoftTargets):
    """A method with a state of its own, on which its loss depends."""

    def __init__(self) -> None:
        super().__init__({}, None)
        self.scale = torch.ones(())

    def loss(self, batch: StepBatch) -> Losses:
        losses = super().loss(batch)
        self.scale = self.scale * 1.1
        return Losses(losses.total * self.scale, losses.hard, losses.soft, losses.logits)

    def state_dict(self) -> dict[str, Tensor]:
        return {"scale": self.scale}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.scale = state["scale"]


def test_the_state_of_a_method_is_part_of_a_checkpoint(folder: Path) -> None:
    def student(keeper: MemoryKeeper) -> Any:
        made = trainer(params("sgd"), "student-alone", folder, keeper, checkpoint_steps=2)
        made.method = Counting()
        return made

    keeper = MemoryKeeper()
    whole = student(keeper).run()
    assert float(keeper.kept[0].tensors["method.scale"]) == pytest.approx(1.1**2)
    resumed = student(MemoryKeeper()).run(keeper.kept[1])
    assert same_weights(resumed.weights, whole.weights)


def test_dropout_is_on_and_drawn_anew_in_every_step(folder: Path) -> None:
    """What the tests above rely on: the random state matters to the result."""
    seen: list[Tensor] = []
    watched = trainer(params(), "student-alone", folder)
    for layer in watched.model.modules():
        if isinstance(layer, nn.Dropout):
            layer.register_forward_hook(lambda _, __, out: seen.append(out == 0))
    watched.run()
    same_size = [mask for mask in seen if mask.shape == seen[0].shape and mask.any()]
    assert len(same_size) > 3
    assert not any(torch.equal(same_size[0], other) for other in same_size[1:])


def settings_of_a_command() -> dict[str, Any]:
    return {
        "training": {**EVERYTHING, "epochs": 40},
        "models": {
            "student": {"network": {"architecture": "cnn", "channels": [8, 12], "dropout": 0.4}}
        },
    }


def test_a_process_killed_in_mid_epoch_goes_on_when_run_again(tmp_path: Path) -> None:
    command = ("train", "student-alone")
    project = write_project(tmp_path / "killed", **settings_of_a_command())
    undisturbed = write_project(tmp_path / "undisturbed", **settings_of_a_command())
    process = start(project, *command, checkpoint_steps=2)
    try:
        kept = project / ".checkpoints"
        wait_until(lambda: any(kept.glob("student-alone-*-here/state.json")), process)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (project / "models").exists()

    again = run(project, *command, checkpoint_steps=2)
    assert again.returncode == 0, again.stderr
    assert "student-alone goes on from epoch" in again.stderr
    whole = run(undisturbed, *command)
    assert whole.returncode == 0, whole.stderr
    weights = [
        (folder / "models/student-alone/model.safetensors").read_bytes()
        for folder in (project, undisturbed)
    ]
    assert weights[0] == weights[1]
    assert list(kept.iterdir()) == []
