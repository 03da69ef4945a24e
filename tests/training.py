"""Trainings of tiny models, in this process."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import DistillError
from pipeline.params import Params
from pipeline.runs import find
from pipeline.train.checkpoint import Checkpoint
from pipeline.train.device import Worker
from pipeline.train.history import EpochRow, Trained
from pipeline.train.job import Job
from pipeline.train.loop import Keeper, Trainer
from pipeline.train.setup import make_trainer


class MemoryKeeper:
    """Keeps every checkpoint, as it would come back from a disk.

    Args:
        asked: steps of an epoch after which one is wanted, beyond the regular ones.
    """

    def __init__(self, asked: Collection[int] = ()) -> None:
        self._asked = asked
        self.kept: list[Checkpoint] = []
        self.metrics: list[dict[str, float]] = []

    def keep(self, checkpoint: Checkpoint, metrics: Mapping[str, float]) -> None:
        tensors = {
            name: value.detach().clone(memory_format=torch.contiguous_format)
            for name, value in checkpoint.tensors.items()
        }
        self.kept.append(replace(checkpoint, tensors=tensors))
        self.metrics.append(dict(metrics))

    def asks(self, step: int) -> bool:
        return step in self._asked


class Interrupted(DistillError):
    """Stands for whatever ends a process."""


def make_job(params: Params, run: str, folder: Path, checkpoint_steps: int = 0) -> Job:
    """A job on the shards and models in ``folder``."""
    return Job(
        run=find(params, run),
        shards=folder / "shards",
        models=folder / "models",
        targets=folder / "targets",
        checkpoint_steps=checkpoint_steps,
        loaders=0,
        threads=1,
    )


def trainer(
    params: Params,
    run: str,
    folder: Path,
    keeper: Keeper | None = None,
    *,
    checkpoint_steps: int = 0,
    worker: Worker | None = None,
) -> Trainer:
    """A trainer of one run on the shards and models in ``folder``."""
    job = make_job(params, run, folder, checkpoint_steps)
    return make_trainer(job, worker or Worker(), keeper or MemoryKeeper())


def train(params: Params, folder: Path, run: str = "student-alone") -> Trained:
    """Trains a run from its start to its end."""
    return trainer(params, run, folder).run()


def same_weights(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether two states are equal, bit for bit."""
    return first.keys() == second.keys() and all(
        torch.equal(value, second[name]) for name, value in first.items()
    )


def untimed(history: list[EpochRow]) -> list[dict[str, Any]]:
    """The rows of a history without what hangs on the clock."""
    clock = {"seconds", "images_per_second", "waiting"}
    return [{key: value for key, value in vars(row).items() if key not in clock} for row in history]
