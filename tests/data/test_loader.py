"""Batches: the same ones from any number of loader processes, ranks and restarts."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tiny import SCRIPTS, tiny_images, tiny_shards

from pipeline.data.loader import Batch, Loader, Stored, ViewDataset
from pipeline.data.plan import Planner
from pipeline.data.shards import Index, ShardFolder, read_index
from pipeline.errors import DataError, UsageError
from pipeline.params import Augment, View

AUGMENT = Augment(rotate=8, shear=12, noise=0.5, occlude=0.3)
VIEW = View(height=16, width=32, augment=AUGMENT)
KEYS = {image.key for image in tiny_images() if image.split == "train"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "shards"
    tiny_shards(path)
    return path


def loader(
    folder: Path,
    *,
    rank: int = 0,
    world_size: int = 1,
    workers: int = 0,
    seed: int | None = 3,
    batch_size: int = 10,
    cycle: int = 0,
    stored: Mapping[str, Stored] | None = None,
) -> Loader:
    index = Index.model_validate_json((folder / "index.json").read_text())
    planner = Planner(
        tuple(shard.samples for shard in index.of("train")), batch_size, seed=3, window=2
    )
    view = VIEW.model_copy(update={"cycle": cycle})
    dataset = ViewDataset(ShardFolder(folder), index, "train", view, seed, window=2)
    return Loader(
        dataset, planner, rank=rank, world_size=world_size, workers=workers, stored=stored
    )


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert [batch.keys for batch in first] == [batch.keys for batch in second]
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def digest(folder: Path) -> str:
    parts = [batch.images.numpy().tobytes() for batch in loader(folder).epoch(1)]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_a_batch_holds_the_views_and_labels_of_its_keys(folder: Path) -> None:
    batches = list(loader(folder).epoch(0))
    scripts = {image.key: image.script for image in tiny_images()}
    assert sorted(key for batch in batches for key in batch.keys) == sorted(KEYS)
    for batch in batches:
        assert batch.images.shape == (len(batch.keys), 1, 16, 32)
        assert batch.images.dtype == torch.uint8
        assert [SCRIPTS[label] for label in batch.labels] == [scripts[k] for k in batch.keys]


@pytest.mark.parametrize("workers", [1, 3])
def test_loader_processes_do_not_change_the_batches(folder: Path, workers: int) -> None:
    several = loader(folder, workers=workers)
    alone = loader(folder)
    for epoch in (0, 1):
        assert_same(list(several.epoch(epoch)), list(alone.epoch(epoch)))


def test_batches_are_the_same_in_another_process(folder: Path) -> None:
    paths = [str(Path(__file__).parent), *sys.path]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, pathlib, test_loader as t; print(t.digest(pathlib.Path(sys.argv[1])))",
            str(folder),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "11"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == digest(folder)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_goes_on_from_any_step(folder: Path, workers: int) -> None:
    whole = list(loader(folder).epoch(1))
    resumed = loader(folder, workers=workers)
    for step in range(len(whole) + 1):
        assert_same(list(resumed.epoch(1, first_step=step)), whole[step:])


def test_ranks_share_out_the_batches_of_one_rank(folder: Path) -> None:
    whole = list(loader(folder).epoch(0))
    shares = [list(loader(folder, rank=rank, world_size=3).epoch(0)) for rank in range(3)]
    for step, batch in enumerate(whole):
        images = torch.cat([share[step].images for share in shares])
        assert torch.equal(images, batch.images)
        assert [key for share in shares for key in share[step].keys] == batch.keys


def test_fewer_shards_than_ranks_times_loader_processes_still_shows_every_image_once(
    tmp_path: Path,
) -> None:
    index = tiny_shards(tmp_path, shard_images=1000)
    assert len(index.of("train")) == 1
    seen: Counter[str] = Counter()
    for rank in range(4):
        for batch in loader(tmp_path, rank=rank, world_size=4, workers=2).epoch(0):
            seen.update(batch.keys)
    assert seen == Counter(KEYS)


def test_more_ranks_than_images_in_a_batch_are_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="11 workers"):
        loader(folder, rank=0, world_size=11)


def test_views_change_from_epoch_to_epoch(folder: Path) -> None:
    def views(epoch: int) -> dict[str, bytes]:
        return {
            key: image.numpy().tobytes()
            for batch in loader(folder).epoch(epoch)
            for key, image in zip(batch.keys, batch.images, strict=True)
        }

    first, second = views(0), views(1)
    assert sum(first[key] != second[key] for key in KEYS) > len(KEYS) * 0.9


def test_views_that_are_shown_again_are_the_ones_that_were_made(folder: Path) -> None:
    remembering = loader(folder, cycle=2)
    fresh = loader(folder)

    def views(batches: list[Batch]) -> dict[str, bytes]:
        return {
            key: image.numpy().tobytes()
            for batch in batches
            for key, image in zip(batch.keys, batch.images, strict=True)
        }

    for epoch in range(5):
        shown = list(remembering.epoch(epoch))
        assert views(shown) == views(list(fresh.epoch(epoch % 2)))
        # The order is the epoch's own, not the remembered one's.
        assert [batch.keys for batch in shown] == [batch.keys for batch in fresh.epoch(epoch)]
        # Neither who made a view nor where an epoch was entered changes it.
        for other in (loader(folder, cycle=2), loader(folder, cycle=2, workers=1)):
            assert_same(list(other.epoch(epoch, first_step=2)), shown[2:])
    shares = [list(loader(folder, rank=r, world_size=2, cycle=2).epoch(3)) for r in range(2)]
    assert views([batch for share in shares for batch in share]) == views(list(fresh.epoch(1)))


def test_views_that_are_shown_again_are_not_read_again(tmp_path: Path) -> None:
    index = tiny_shards(tmp_path)
    remembering = loader(tmp_path, cycle=1)
    first = list(remembering.epoch(0))
    for shard in index.shards:
        (tmp_path / shard.name).unlink()
    again = list(remembering.epoch(7))
    assert sorted(k for b in again for k in b.keys) == sorted(k for b in first for k in b.keys)


class Telling:
    """Stored answers that say of which view they are."""

    def at(self, number: int, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        return np.stack([np.array([number, *place], np.float16) for place in places.tolist()])


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_stored_of_a_view_comes_with_it_also_from_memory(
    folder: Path, workers: int
) -> None:
    in_order = [key for batch in loader(folder).all_in_order() for key in batch.keys]
    first = np.cumsum([0, *(s.samples for s in read_index(folder).of("train"))])
    stored = {"a": Telling(), "b": Telling()}
    for world_size in (1, 2):
        shown = loader(folder, workers=workers, world_size=world_size, cycle=2, stored=stored)
        for epoch in range(4):
            for batch in shown.epoch(epoch):
                assert list(batch.logits) == ["a", "b"]
                for key, (number, shard, place) in zip(
                    batch.keys, batch.logits["b"].int().tolist(), strict=True
                ):
                    assert number == epoch % 2
                    assert in_order[first[shard] + place] == key


def test_a_pass_in_order_follows_the_shards_and_shows_plain_images(folder: Path) -> None:
    plain = loader(folder, seed=None)
    first, second = list(plain.all_in_order()), list(plain.epoch(4))
    by_key = {key: image for b in second for key, image in zip(b.keys, b.images, strict=True)}
    for batch in first:
        for key, image in zip(batch.keys, batch.images, strict=True):
            assert torch.equal(image, by_key[key])
    index = Index.model_validate_json((folder / "index.json").read_text())
    assert [len(b.keys) for b in first] == [9, 10, 9, 10, 10]
    assert sum(len(b.keys) for b in first) == index.images("train")


def test_all_ranks_in_order_cover_the_split_once(folder: Path) -> None:
    seen = Counter(
        key
        for rank in range(3)
        for batch in loader(folder, rank=rank, world_size=3, seed=None).all_in_order()
        for key in batch.keys
    )
    assert seen == Counter(KEYS)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_shard_stops_the_epoch_with_one_clear_line(tmp_path: Path, workers: int) -> None:
    index = tiny_shards(tmp_path)
    path = tmp_path / index.of("train")[0].name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(DataError, match=r"train-000000\.tar does not match") as caught:
        list(loader(tmp_path, workers=workers).epoch(0))
    assert "Traceback" not in str(caught.value)
    assert "\n" not in str(caught.value)
