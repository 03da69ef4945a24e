"""The loop on tiny data: it learns, and every parameter does what its name says."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import SCRIPTS, tiny_images, tiny_model, tiny_params, tiny_shards
from torch import nn
from training import MemoryKeeper, same_weights, train, trainer, untimed

from pipeline.compute import Compute
from pipeline.data.shards import build, read_index
from pipeline.errors import DataError, TrainingError
from pipeline.models.folder import load_model
from pipeline.params import Params
from pipeline.train.history import Trained
from pipeline.train.optimize import learning_rate
from pipeline.train.run import train_run

ALONE = "student-alone"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and a teacher that knows them well."""
    path = tmp_path_factory.mktemp("loop")
    index = tiny_shards(path / "shards")
    tiny_model(path / "models/teacher-cnn", index, run="teacher-cnn", steps=60)
    tiny_model(path / "models/assistant-cnn", index, run="assistant-cnn", steps=20, seed=5)
    return path


def params(**training: Any) -> Params:
    return tiny_params(training=training)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Trained:
    return train(params(), folder)


def test_a_tiny_student_learns_its_scripts(folder: Path) -> None:
    trained = train(params(epochs=8), folder)
    assert trained.history[0].loss > 0.9
    assert trained.history[-1].loss < 0.5 * trained.history[0].loss
    assert trained.history[trained.best_epoch - 1].validation_accuracy >= 90


def test_pretrained_weights_stay_where_they_are_at_a_share_of_nothing(folder: Path) -> None:
    settings = params(epochs=1, pretrained_lr=0.0, weight_decay=0.0)
    made = trainer(settings, ALONE, folder)
    (first, *_) = list(made.model.network.parameters())
    made.model.pretrained = (first,)
    before = {name: value.detach().clone() for name, value in made.model.named_parameters()}
    made.run()
    moved = {n for n, v in made.model.named_parameters() if not torch.equal(v, before[n])}
    (still,) = {name for name, value in made.model.named_parameters() if value is first}
    assert before.keys() - moved == {still}


def test_the_same_training_ends_with_the_same_weights(folder: Path, plain: Trained) -> None:
    again = train(params(), folder)
    assert same_weights(again.weights, plain.weights)
    assert untimed(again.history) == untimed(plain.history)


def test_another_seed_ends_with_other_weights(folder: Path, plain: Trained) -> None:
    assert not same_weights(train(tiny_params(seed=1), folder).weights, plain.weights)


def test_history_has_a_row_of_true_numbers_for_every_epoch(folder: Path, plain: Trained) -> None:
    assert [row.epoch for row in plain.history] == [1, 2]
    for row in plain.history:
        assert row.images == 48
        assert row.loss == pytest.approx(row.hard_loss)
        assert row.soft_loss == 0
        assert 0 <= row.accuracy <= 100
        assert 0 <= row.waiting <= 1
        assert row.images_per_second > 0
        assert row.lr == learning_rate(params().training, 6 * row.epoch - 1, 12)


def test_validation_numbers_are_those_of_the_weights_that_are_kept(
    folder: Path, plain: Trained
) -> None:
    probe = trainer(params(), ALONE, folder)
    probe.model.load_state_dict(plain.weights)
    probe.model.eval()
    batches = list(probe.validation.all_in_order())
    with torch.no_grad():
        logits = torch.cat([probe.model(batch.images.float()) for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    best = plain.history[plain.best_epoch - 1]
    assert float(nn.functional.cross_entropy(logits, labels)) == pytest.approx(best.validation_loss)
    accuracy = 100 * float((logits.argmax(1) == labels).double().mean())
    assert accuracy == pytest.approx(best.validation_accuracy)


def test_the_kept_weights_are_those_of_the_best_epoch(folder: Path) -> None:
    keeper = MemoryKeeper()
    # So high a rate makes the accuracy go up and down.
    trained = trainer(params(epochs=6, lr=0.3, ema=0), ALONE, folder, keeper).run()
    merits = [(row.validation_accuracy, -row.validation_loss) for row in trained.history]
    assert trained.best_epoch == merits.index(max(merits)) + 1
    assert same_weights(trained.weights, keeper.kept[trained.best_epoch - 1].part("model"))


def test_patience_ends_a_training_that_gets_no_better(folder: Path) -> None:
    # A rate of almost nothing leaves the batch norms' statistics alone to change.
    settings = {"epochs": 12, "lr": 1.0, "clip_norm": 0, "warmup": 0}
    long = train(params(**settings, patience=0), folder)
    short = train(params(**settings, patience=2), folder)
    assert len(long.history) == 12
    assert len(short.history) < 12
    assert len(short.history) - short.best_epoch == 2
    assert untimed(short.history) == untimed(long.history)[: len(short.history)]


@pytest.mark.parametrize(
    "changes",
    [
        {"mixup": 0.4},
        {"label_smoothing": 0.2},
        {"ema": 0.9},
        {"clip_norm": 0.05},
        {"optimizer": "sgd"},
        {"weight_decay": 0.9},
        {"warmup": 0.9},
        {"batch_size": 16},
        {"lr": 0.02},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_parameter_of_training_changes_the_weights(
    folder: Path, plain: Trained, changes: dict[str, Any]
) -> None:
    assert not same_weights(train(params(**changes), folder).weights, plain.weights)


def test_clipping_bounds_what_a_step_can_do(folder: Path) -> None:
    settings = {"epochs": 1, "optimizer": "sgd", "momentum": 0, "weight_decay": 0, "lr": 1.0}
    start = trainer(params(**settings), ALONE, folder).model.state_dict()
    keeper = MemoryKeeper()
    clipped = trainer(
        params(**settings, clip_norm=1e-3, warmup=0), ALONE, folder, keeper, checkpoint_steps=1
    )
    clipped.run()
    after = keeper.kept[0].part("model")
    names = [name for name, _ in clipped.model.named_parameters()]
    moved = sum(float((after[name] - start[name]).square().sum()) for name in names) ** 0.5
    assert moved == pytest.approx(1e-3, rel=1e-2)


def test_label_smoothing_keeps_the_student_from_being_sure(folder: Path) -> None:
    sure, unsure = (
        train(params(epochs=8, label_smoothing=share), folder).history[-1].hard_loss
        for share in (0.0, 0.3)
    )
    assert sure < unsure
    # No student can go below the entropy of the smoothed targets, (0.8, 0.1, 0.1).
    assert unsure > 0.639


def test_the_average_of_the_weights_is_what_is_judged_and_kept(folder: Path) -> None:
    keeper = MemoryKeeper()
    trained = trainer(params(ema=0.9), ALONE, folder, keeper).run()
    last = keeper.kept[trained.best_epoch - 1]
    assert same_weights(trained.weights, last.part("average"))
    assert not same_weights(trained.weights, last.part("model"))


def test_a_student_with_a_teacher_learns_from_its_soft_targets(
    folder: Path, plain: Trained
) -> None:
    taught = train(params(), folder, "student-cnn")
    for row in taught.history:
        assert row.soft_loss > 0
        assert row.loss == pytest.approx(0.1 * row.hard_loss + 0.9 * row.soft_loss, rel=1e-4)
    assert not same_weights(taught.weights, plain.weights)


def test_a_student_comes_to_agree_with_its_teacher(folder: Path) -> None:
    history = train(params(epochs=8), folder, "student-cnn").history
    assert history[-1].soft_loss < 0.5 * history[0].soft_loss


@pytest.mark.parametrize("loss", ["hinton", "dkd", "dist"])
def test_every_loss_trains_a_student(folder: Path, loss: str) -> None:
    chain = {"assistant": {}, "student": {"loss": loss, "temperature": 2.0}}
    history = train(tiny_params(distillation=chain), folder, "student-cnn").history
    assert history[1].soft_loss < history[0].soft_loss


def test_several_teachers_teach_by_their_weights(folder: Path) -> None:
    def taught_by(**teachers: float) -> Trained:
        names = {f"{name}-cnn": weight for name, weight in teachers.items()}
        row = {"model": "student", "teachers": names, "distillation": {}}
        return train(tiny_params(runs={"ensemble": row}), folder, "ensemble")

    one, both = taught_by(teacher=1.0), taught_by(teacher=0.5, assistant=0.5)
    assert not same_weights(one.weights, both.weights)
    assert same_weights(both.weights, taught_by(teacher=3.0, assistant=3.0).weights)
    assert not same_weights(both.weights, taught_by(teacher=3.0, assistant=1.0).weights)


def test_teachers_are_not_changed_by_teaching(folder: Path) -> None:
    before = (folder / "models/teacher-cnn/model.safetensors").read_bytes()
    taught = trainer(params(), "student-cnn", folder)
    state = {k: v.clone() for k, v in taught.teachers["teacher-cnn"].state_dict().items()}
    taught.run()
    assert same_weights(taught.teachers["teacher-cnn"].state_dict(), state)
    assert (folder / "models/teacher-cnn/model.safetensors").read_bytes() == before


def test_a_teacher_of_other_scripts_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(folder / "models")
    scripts = (*SCRIPTS, "Tamil")
    build(tiny_images(), tmp_path / "shards", source="cvsi", scripts=scripts, shard_images=50)
    with pytest.raises(DataError, match=r"teacher-cnn tells Bengali.*Tamil; train it again"):
        trainer(params(), "student-cnn", tmp_path)


def test_a_loss_that_is_not_finite_ends_training_and_names_step_and_images(folder: Path) -> None:
    broken = trainer(params(), ALONE, folder)
    calls = 0

    def break_the_ninth(_: nn.Module, __: object, logits: torch.Tensor) -> torch.Tensor | None:
        nonlocal calls
        calls += broken.model.training
        return logits * float("nan") if calls == 9 else None

    broken.model.register_forward_hook(break_the_ninth)
    plan = broken.train.planner.shuffled(1)
    keys = [batch.keys for batch in broken.train.epoch(1)][2]
    with pytest.raises(TrainingError) as caught:
        broken.run()
    message = str(caught.value)
    assert plan.steps == 6
    assert "student-alone: the loss is nan at epoch 2, step 3, rank 0" in message
    assert all(key in message for key in keys)
    assert "training.lr" in message


def test_a_trained_run_leaves_a_whole_model_folder_and_no_checkpoints(
    folder: Path, tmp_path: Path
) -> None:
    compute = Compute(workers=0, loaders=0, threads=1, storage=str(tmp_path / "kept"))
    info = train_run(
        params(), "student-alone", compute, shards=folder / "shards", models=tmp_path / "models"
    )
    path = tmp_path / "models/student-alone"
    assert sorted(file.name for file in path.iterdir()) == [
        "history.csv",
        "model.json",
        "model.safetensors",
    ]
    _, found = load_model(path)
    index = read_index(folder / "shards")
    assert found == info
    assert (info.run, info.role, info.scripts) == (ALONE, "student", SCRIPTS)
    assert (info.data_source, info.data_version) == ("generated", index.version)
    rows = list(csv.DictReader((path / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    best = rows[int(info.metrics["best_epoch"]) - 1]
    assert float(best["validation_accuracy"]) == pytest.approx(info.metrics["validation_accuracy"])
    assert list((tmp_path / "kept").iterdir()) == []


def test_a_run_before_its_teacher_is_refused(folder: Path, tmp_path: Path) -> None:
    compute = Compute(workers=0, storage=str(tmp_path / "kept"))
    with pytest.raises(
        DataError, match="student-cnn learns from teacher-cnn, which is not trained"
    ):
        train_run(
            params(), "student-cnn", compute, shards=folder / "shards", models=tmp_path / "models"
        )
