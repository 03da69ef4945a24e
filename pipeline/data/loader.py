"""Batches of views, in the order of the epoch plan; made by loader processes, or remembered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.data.augment import Augmenter
from pipeline.data.plan import EpochPlan, Places, Planner
from pipeline.data.shards import Index, Sample, ShardSource
from pipeline.data.view import decode, fit
from pipeline.errors import DistillError
from pipeline.params import View

Place = tuple[int, int, int]
"""Number of the view, shard, place in the shard."""

MEMORY: Final = 2**31
"""Bytes of views that are remembered at most; where they are more, they are made again."""


class Batch(NamedTuple):
    """One rank's images of one step.

    Attributes:
        images: uint8 (N, 1, height, width), grey values.
        labels: int64 (N,), places in the index's ``scripts``.
        keys: N official names.
        logits: float16 (N, classes), what each teacher whose answers are stored said of the images.
    """

    images: Tensor
    labels: Tensor
    keys: list[str]
    logits: dict[str, Tensor]


class Stored(Protocol):
    """What one teacher said of every view of a split."""

    def at(self, number: int, places: Places) -> npt.NDArray[np.float16]:
        """The logits (N, classes) of the images at these places, in the view of this number."""


class _Made(NamedTuple):
    """A batch as a loader process makes it.

    Handing over a tensor costs such a process a message for each; an array goes in one piece.
    """

    images: npt.NDArray[np.uint8]
    labels: list[int]
    keys: list[str]


class ViewDataset(Dataset[_Made | DistillError]):
    """The views of one split. An element is asked for by (view, shard, place), a batch at a time.

    Args:
        source: where the shards are read from.
        index: what they hold.
        split: which of them.
        view: what is shown of an image.
        seed: of the augmentation; None shows the image as it is.
        window: shards kept in memory, as many as the epoch plan mixes.
    """

    def __init__(
        self,
        source: ShardSource,
        index: Index,
        split: str,
        view: View,
        seed: int | None,
        window: int,
    ) -> None:
        self._labels = {script: label for label, script in enumerate(index.scripts)}
        self.source = source
        self.shards = index.of(split)
        self.view = view
        self.window = window
        self._augmenter = None if seed is None else Augmenter(view.augment, seed)
        self._samples = lru_cache(maxsize=window + 1)(self._read)

    def __getitems__(self, places: list[Place]) -> _Made | DistillError:
        """The batch of views at these places, or what is wrong with one of them.

        PyTorch would put the trace of a loader process into the message of an error it raises.
        """
        try:
            return self._batch(places)
        except DistillError as error:
            return error

    def _batch(self, places: list[Place]) -> _Made:
        images = np.empty((len(places), 1, self.view.height, self.view.width), np.uint8)
        labels, keys = [], []
        for row, (number, shard, place) in enumerate(places):
            sample = self._samples(shard)[place]
            origin = f"{self.shards[shard].name}!{sample.key}.jpg"
            grey = fit(decode(sample.jpeg, origin), self.view)
            if self._augmenter is not None:
                grey = self._augmenter(grey, sample.key, number)
            images[row, 0] = grey
            labels.append(self._labels[sample.script])
            keys.append(sample.key)
        return _Made(images, labels, keys)

    def _read(self, shard: int) -> list[Sample]:
        return self.source.read(self.shards[shard])


class _Places(Sampler[list[Place]]):
    """The places of one rank's batches in one epoch, from one step on."""

    def __init__(self) -> None:
        self.ask: tuple[int, list[Places]] = (0, [])

    def __iter__(self) -> Iterator[list[Place]]:
        number, batches = self.ask
        return ([(number, shard, place) for shard, place in places.tolist()] for places in batches)


class _ReadAhead:
    """Announces the shards of an epoch, in the order of first need, a window before they are."""

    def __init__(self, dataset: ViewDataset, batches: list[Places]) -> None:
        self._dataset = dataset
        needed = np.concatenate([places[:, 0] for places in batches] or [np.empty(0, np.int64)])
        shards, first = np.unique(needed, return_index=True)
        self._order = shards[np.argsort(first)].tolist()
        self._rank = {shard: rank for rank, shard in enumerate(self._order)}
        self._announced = 0

    def reached(self, rank: int) -> None:
        """Announces what comes within a window behind the shard of this rank."""
        end = rank + 1 + self._dataset.window
        wanted = [self._dataset.shards[shard] for shard in self._order[self._announced : end]]
        if wanted:
            self._announced = end
            self._dataset.source.prefetch(wanted)

    def used(self, places: Places) -> None:
        """Is told of every batch when it came."""
        self.reached(max(self._rank[shard] for shard in set(places[:, 0].tolist())))


class _Memory:
    """The views of one number, by row."""

    def __init__(self, images: int, height: int, width: int) -> None:
        self._images = np.empty((images, 1, height, width), np.uint8)
        self._labels = np.empty(images, np.int64)
        self._keys = [""] * images

    def put(self, rows: npt.NDArray[np.int64], made: _Made) -> None:
        """Remembers a batch."""
        self._images[rows], self._labels[rows] = made.images, made.labels
        for row, key in zip(rows.tolist(), made.keys, strict=True):
            self._keys[row] = key

    def complete(self) -> bool:
        """Whether all views are there."""
        return all(self._keys)

    def get(self, rows: npt.NDArray[np.int64]) -> _Made:
        """A batch that was put, in any order."""
        keys = [self._keys[row] for row in rows.tolist()]
        return _Made(self._images[rows], self._labels[rows].tolist(), keys)


class Loader:
    """Loads one split for one rank, with loader processes that live as long as it does.

    Args:
        dataset: where views come from.
        planner: what comes when.
        rank: which share of each batch.
        world_size: how many shares there are.
        workers: loader processes; 0 loads in this one.
        pin_memory: make copying to a GPU faster.
        stored: by run name, the teachers whose logits come with the images.
    """

    def __init__(
        self,
        dataset: ViewDataset,
        planner: Planner,
        *,
        rank: int = 0,
        world_size: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
        stored: Mapping[str, Stored] | None = None,
    ) -> None:
        planner.check(world_size)
        self.planner = planner
        self.view = dataset.view
        self._dataset = dataset
        self._rank, self._world_size = rank, world_size
        self._pin_memory = pin_memory
        self._stored = dict(stored or {})
        self._first_rows = np.cumsum((0, *planner.samples))
        images = sum(planner.samples)
        size = self.view.cycle * images * self.view.height * self.view.width
        # A rank of several is shown other images every epoch, so its memory would stay incomplete.
        self._remembers = 0 < size <= MEMORY and world_size == 1
        self._memories: dict[int, _Memory] = {}
        self._places = _Places()
        self._loader: DataLoader[_Made | DistillError] = DataLoader(
            dataset,
            batch_sampler=self._places,
            collate_fn=_as_it_is,
            num_workers=workers,
            persistent_workers=workers > 0,
            prefetch_factor=4 if workers else None,
            worker_init_fn=_one_thread,
        )

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """This rank's batches of a shuffled epoch, from ``first_step`` on.

        Loader processes begin with the call, not with the first batch that is asked for.

        Raises:
            DistillError: when the batch comes that holds what is missing, damaged or out of reach.
        """
        number = self.view.number(epoch)
        batches = self._cut(self.planner.shuffled(epoch), first_step)
        if not self._remembers:
            return self._load(number, batches)
        if number not in self._memories:
            images = int(self._first_rows[-1])
            self._memories[number] = _Memory(images, self.view.height, self.view.width)
        memory = self._memories[number]
        if memory.complete():
            return (
                self._batch(memory.get(self._rows(places)), number, places) for places in batches
            )
        return self._load(number, batches, memory)

    def all_in_order(self) -> Iterator[Batch]:
        """This rank's batches of one pass in the shards' order."""
        return self._load(0, self._cut(self.planner.in_order(), 0))

    def close(self) -> None:
        """Tells where the shards come from that no more is read."""
        self._dataset.source.close()

    def _cut(self, plan: EpochPlan, first_step: int) -> list[Places]:
        steps = range(first_step, plan.steps)
        return [plan.batch(step, self._rank, self._world_size) for step in steps]

    def _rows(self, places: Places) -> Places:
        return self._first_rows[places[:, 0]] + places[:, 1]

    def _load(
        self, number: int, batches: list[Places], memory: _Memory | None = None
    ) -> Iterator[Batch]:
        self._places.ask = (number, batches)
        # Loader processes are copies of this one, which is best copied before it has threads.
        made_batches = iter(self._loader)
        ahead = _ReadAhead(self._dataset, batches)
        ahead.reached(-1)

        def finish(made: _Made | DistillError, places: Places) -> Batch:
            if isinstance(made, DistillError):
                raise made
            ahead.used(places)
            if memory is not None:
                memory.put(self._rows(places), made)
            return self._batch(made, number, places)

        return map(finish, made_batches, batches)

    def _batch(self, made: _Made, number: int, places: Places) -> Batch:
        images, labels = torch.from_numpy(made.images), torch.tensor(made.labels)
        # Here, not in a loader process: they are few bytes, and are there for remembered views too.
        logits = {
            name: torch.from_numpy(stored.at(number, places))
            for name, stored in self._stored.items()
        }
        if self._pin_memory:
            images, labels = images.pin_memory(), labels.pin_memory()
            logits = {name: said.pin_memory() for name, said in logits.items()}
        return Batch(images, labels, made.keys, logits)


def _as_it_is(batch: Any) -> Any:
    return batch


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
