"""Stored targets: what a teacher says of every view, once, and who may learn from it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import tiny_images, tiny_model, tiny_params, tiny_shards
from torch import Tensor
from training import MemoryKeeper, make_job, same_weights, trainer, untimed

from pipeline.compute import Compute
from pipeline.data.shards import read_index
from pipeline.distill.target_index import TargetIndex
from pipeline.errors import DataError, TrainingError
from pipeline.models.folder import load_model, read_info, save_model
from pipeline.params import Params
from pipeline.train.device import Worker
from pipeline.train.run import train_run
from pipeline.train.setup import make_trainer
from pipeline.train.targets import make_targets

TEACHER, ASSISTANT, STUDENT = "teacher-cnn", "assistant-cnn", "student-cnn"
AUGMENT = {"shear": 10, "noise": 0.5, "shrink": 0.3}
VIEW = {"height": 16, "width": 32, "augment": AUGMENT, "cycle": 3}
ENSEMBLE = {"model": "student", "teachers": {TEACHER: 1, ASSISTANT: 3}, "distillation": {}}


def params(targets: str = "stored", **changes: Any) -> Params:
    chain = {"assistant": {}, "student": {"temperature": 2.0}, "targets": targets}
    settings = {"view": VIEW, "distillation": chain, "runs": {"ensemble": ENSEMBLE}, **changes}
    return tiny_params(**settings)


def make(folder: Path, name: str = TEACHER, settings: Params | None = None) -> TargetIndex:
    """The targets of a run on the shards and models in ``folder``, made in this process."""
    compute = Compute(workers=0, threads=1, storage=str(folder / "kept"))
    shards, models, targets = (folder / place for place in ("shards", "models", "targets"))
    chosen = settings or params()
    return make_targets(chosen, name, compute, shards=shards, models=models, targets=targets)


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, two models that teach, and what they say."""
    path = tmp_path_factory.mktemp("targets")
    index = tiny_shards(path / "shards")
    tiny_model(path / "models" / TEACHER, index, run=TEACHER, steps=40)
    tiny_model(path / "models" / ASSISTANT, index, run=ASSISTANT, steps=20, seed=5)
    make(path, TEACHER)
    make(path, ASSISTANT)
    return path


@pytest.fixture
def folder(ready: Path, tmp_path: Path) -> Path:
    """The same, for a test to harm."""
    return Path(shutil.copytree(ready, tmp_path / "own"))


def said(folder: Path, name: str, images: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = load_model(folder / "models" / name)[0](images.float())
    return logits


@pytest.mark.parametrize(("world_size", "loaders"), [(1, 0), (2, 1), (3, 2)])
def test_stored_is_live_within_half_precision_for_every_key_and_view(
    ready: Path, world_size: int, loaders: int
) -> None:
    job = make_job(params(), "ensemble", ready).model_copy(update={"loaders": loaders})
    seen = set()
    for rank in range(world_size):
        worker = Worker(rank, world_size, loaders=loaders)
        made = make_trainer(job, worker, MemoryKeeper())
        assert made.teachers == {}, "a student does not load what it need not ask"
        for epoch in range(4):
            for batch in made.train.epoch(epoch):
                seen |= {(key, epoch) for key in batch.keys}
                for name in (TEACHER, ASSISTANT):
                    live = said(ready, name, batch.images)
                    torch.testing.assert_close(
                        batch.logits[name].float(), live, rtol=2**-10, atol=2e-4
                    )
    assert len(seen) == 4 * read_index(ready / "shards").images("train")


def test_views_of_one_image_have_answers_of_their_own(ready: Path) -> None:
    train = trainer(params(), STUDENT, ready).train
    by_view = [
        {k: a for b in train.epoch(e) for k, a in zip(b.keys, b.logits[TEACHER], strict=True)}
        for e in range(4)
    ]
    assert all(torch.equal(by_view[0][key], by_view[3][key]) for key in by_view[0])
    assert not any(torch.equal(by_view[0][key], by_view[1][key]) for key in by_view[0])


@pytest.mark.parametrize("run", [STUDENT, "student-cnn-assisted", "ensemble"])
def test_a_student_learns_the_same_from_stored_as_from_live_targets(ready: Path, run: str) -> None:
    training = {"epochs": 4}
    stored = trainer(params(training=training), run, ready).run()
    live = trainer(params("live", training=training), run, ready).run()
    for ours, theirs in zip(stored.history, live.history, strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=5e-3)
        assert ours.soft_loss == pytest.approx(theirs.soft_loss, rel=5e-3)
    assert not same_weights(stored.weights, live.weights), "rounded targets are other targets"
    for name, value in live.weights.items():
        torch.testing.assert_close(stored.weights[name], value, rtol=0.02, atol=0.02)


def test_going_on_from_any_checkpoint_ends_bit_for_bit_the_same(ready: Path) -> None:
    settings, keeper = params(training={"epochs": 4, "ema": 0.9}), MemoryKeeper()
    whole = trainer(settings, STUDENT, ready, keeper, checkpoint_steps=2).run()
    assert not any(name.startswith("method.") for name in keeper.kept[0].tensors)
    for checkpoint in keeper.kept:
        resumed = trainer(settings, STUDENT, ready).run(checkpoint)
        assert same_weights(resumed.weights, whole.weights)
        assert untimed(resumed.history) == untimed(whole.history)


def test_the_index_says_what_is_there_and_what_it_is_made_of(ready: Path) -> None:
    index = TargetIndex.model_validate_json(
        (ready / "targets" / TEACHER / "index.json").read_text()
    )
    shards = read_index(ready / "shards")
    assert (index.targets, index.views, index.dtype) == ("stored", 3, "float16")
    assert index.classes == shards.scripts
    assert [file.samples for file in index.files] == [s.samples for s in shards.of("train")]
    assert index.origin is not None
    assert (index.origin.run, index.origin.data_version) == (TEACHER, shards.version)
    assert sorted(path.name for path in (ready / "targets" / TEACHER).iterdir()) == sorted(
        ["index.json", *(file.name for file in index.files)]
    )
    assert list((ready / "kept").iterdir()) == [], "what waited for its end is removed"


def other_weights(folder: Path) -> Params:
    tiny_model(folder / "models" / TEACHER, read_index(folder / "shards"), run=TEACHER, seed=9)
    return params()


def other_data(folder: Path) -> Params:
    tiny_shards(folder / "shards", seed=1)
    return params()


def other_augmentation(_: Path) -> Params:
    return params(view={**VIEW, "augment": {**AUGMENT, "noise": 0.4}, "cycle": 2})


def other_seed(_: Path) -> Params:
    return params(seed=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_weights, r"weights_sha256 was \w{12} and is now \w{12}: make"),
        (other_data, r"data_version was \w{12} and is now \w{12}: make"),
        (
            other_augmentation,
            r"view\.augment\.noise was 0\.5 and is now 0\.4; view\.cycle was 3 and is now 2: make",
        ),
        (other_seed, "seed was 0 and is now 1: make"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_targets_that_were_made_of_something_else_are_refused_with_what_differs(
    folder: Path, change: Callable[[Path], Params], message: str
) -> None:
    settings = change(folder)
    with pytest.raises(DataError, match=message + " them by python -m pipeline targets teacher"):
        trainer(settings, STUDENT, folder)
    make(folder, settings=settings)
    assert trainer(settings, STUDENT, folder).run().history


def test_targets_that_are_not_there_or_of_another_run_are_refused(folder: Path) -> None:
    shutil.rmtree(folder / "targets" / TEACHER)
    compute = Compute(workers=0, loaders=0, threads=1, storage=str(folder / "kept"))
    train = partial(
        train_run,
        shards=folder / "shards",
        models=folder / "models",
        targets=folder / "targets",
    )
    with pytest.raises(DataError, match="holds no stored targets of teacher-cnn: make them by"):
        train(params(), STUDENT, compute)
    shutil.copytree(folder / "targets" / ASSISTANT, folder / "targets" / TEACHER)
    with pytest.raises(DataError, match="run was assistant-cnn and is now teacher-cnn; weights"):
        train(params(), STUDENT, compute)
    make(folder)
    assert train(params(), STUDENT, compute).parameters["targets"] == "stored"


def test_where_targets_are_live_an_index_says_so_and_no_model_is_needed(tmp_path: Path) -> None:
    index = make(tmp_path, settings=params("live"))
    assert index == TargetIndex(targets="live")
    path = tmp_path / "targets" / TEACHER / "index.json"
    assert json.loads(path.read_text())["targets"] == "live"
    tiny_model(tmp_path / "models" / TEACHER, tiny_shards(tmp_path / "shards"), run=TEACHER)
    with pytest.raises(DataError, match=r"targets was live when it was written: make them by"):
        trainer(params(), STUDENT, tmp_path)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda content: content[:-7], r"train-000001\.safetensors has \d+ bytes where"),
        (lambda content: content[:-1] + b"!", r"train-000001\.safetensors does not match"),
        (lambda content: b"", r"train-000001\.safetensors has 0 bytes where the index says"),
        (None, r"train-000001\.safetensors cannot be read"),
    ],
    ids=["truncated", "changed", "empty", "missing"],
)
def test_a_damaged_file_is_one_error_that_names_it(
    folder: Path, harm: Callable[[bytes], bytes] | None, message: str
) -> None:
    path = folder / "targets" / TEACHER / "train-000001.safetensors"
    if harm is None:
        path.unlink()
    else:
        path.write_bytes(harm(path.read_bytes()))
    with pytest.raises(DataError, match=message + ".*run dvc checkout, or python -m") as caught:
        trainer(params(), STUDENT, folder).run()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{}", '{"targets": "stored", "files": 7}', "garbage"])
def test_a_garbled_index_is_one_error_that_names_it(folder: Path, content: str) -> None:
    (folder / "targets" / TEACHER / "index.json").write_text(content)
    with pytest.raises(DataError, match=r"targets/teacher-cnn/index\.json is no index of stored"):
        trainer(params(), STUDENT, folder)


def test_what_was_interrupted_goes_on_without_making_anything_again(
    folder: Path, ready: Path
) -> None:
    shutil.rmtree(folder / "targets" / TEACHER)
    first, _, third, *_ = (folder / "shards" / s.name for s in read_index(folder / "shards").shards)
    whole = third.read_bytes()
    third.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="truncated"):
        make(folder)
    assert not (folder / "targets" / TEACHER).exists()
    third.write_bytes(whole)
    # It cannot be asked about again.
    first.unlink()
    make(folder)
    for path in (ready / "targets" / TEACHER).iterdir():
        assert (folder / "targets" / TEACHER / path.name).read_bytes() == path.read_bytes()


def test_what_was_interrupted_is_of_no_use_to_another_model(folder: Path) -> None:
    shutil.rmtree(folder / "targets" / TEACHER)
    _, second, *_ = (folder / "shards" / s.name for s in read_index(folder / "shards").shards)
    whole = second.read_bytes()
    second.write_bytes(whole[:-1])
    with pytest.raises(DataError, match="truncated"):
        make(folder)
    second.write_bytes(whole)
    other_weights(folder)
    make(folder)
    made = trainer(params(), STUDENT, folder).train
    batch = next(iter(made.epoch(0)))
    live = said(folder, TEACHER, batch.images)
    torch.testing.assert_close(batch.logits[TEACHER].float(), live, rtol=2**-10, atol=2e-4)


def test_a_model_whose_answers_half_precision_cannot_hold_is_refused(folder: Path) -> None:
    model = tiny_model(folder / "models" / TEACHER, read_index(folder / "shards"), run=TEACHER)
    *_, last = model.parameters()
    torch.nn.init.constant_(last, 1e6)
    save_model(
        folder / "models" / TEACHER, read_info(folder / "models" / TEACHER), model.state_dict()
    )
    keys = "|".join(image.key for image in tiny_images() if image.split == "train")
    with pytest.raises(TrainingError, match=rf"teacher-cnn says of the image ({keys}) what is not"):
        make(folder)
