"""One trial: a student trained with one setting, in a process that Ray Tune gives it."""

from __future__ import annotations

import faulthandler
import json
import logging
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from ray import tune

from pipeline.cost import count_macs, model_latency_ms
from pipeline.search.space import Space
from pipeline.train.checkpoint import Checkpoint
from pipeline.train.device import Worker, default_device
from pipeline.train.job import Job
from pipeline.train.setup import make_trainer

SEED = "seed"
"""The key of a trial's configuration that holds the seed it trains with; the others are settings.
"""


class Work(BaseModel):
    """What every trial of a search is told: values that travel as JSON.

    Attributes:
        space: what settings stand for.
        job: of the default run.
        epoch_seconds: how long an epoch may take.
        resume: the checkpoints of trials that were interrupted, by :func:`key_of` their settings.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    space: Space
    job: Job
    epoch_seconds: float
    resume: dict[str, str] = {}


def key_of(config: Mapping[str, Any]) -> str:
    """A name for a setting: equal exactly where all of its values are."""
    return json.dumps(dict(sorted(config.items())))


def train_trial(config: dict[str, Any], work: str) -> None:
    """Trains a student with one setting, and reports every epoch, with a checkpoint.

    Args:
        config: the setting, and the seed.
        work: a :class:`Work`, as JSON.
    """
    logging.getLogger("pipeline").setLevel(logging.WARNING)
    told = Work.model_validate_json(work)
    _watch(told.epoch_seconds)
    try:
        _train(config, told)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _train(config: dict[str, Any], told: Work) -> None:
    values = dict(config)
    run = told.space.run(values, f"trial {tune.get_context().get_trial_id()}", values.pop(SEED))
    kept = tune.get_checkpoint()
    if kept is None and (address := told.resume.get(key_of(config))):
        kept = tune.Checkpoint(address)
    checkpoint = None
    if kept is not None:
        with kept.as_directory() as folder:
            checkpoint = Checkpoint.load(Path(folder))
    job = told.job.model_copy(update={"run": run})
    worker = Worker(device=default_device(), loaders=job.loaders)
    keeper = TuneKeeper(told.epoch_seconds)
    trainer = make_trainer(job, worker, keeper)
    # It is measured on the CPU, whichever device the model is trained on.
    keeper.cost = {
        "parameters": sum(weight.numel() for weight in trainer.model.parameters()),
        "macs": count_macs(trainer.model.eval(), run.view),
        "latency_ms": model_latency_ms(trainer.model, run.view),
    }
    try:
        trainer.run(checkpoint)
    finally:
        trainer.train.close()


class TuneKeeper:
    """Hands checkpoints and metrics to Ray Tune, which may end the trial there.

    Args:
        epoch_seconds: how long the next epoch may take.
    """

    def __init__(self, epoch_seconds: float) -> None:
        self._epoch_seconds = epoch_seconds
        self.cost: dict[str, float] = {}

    def keep(self, checkpoint: Checkpoint, metrics: Mapping[str, float]) -> None:
        """See :class:`pipeline.train.loop.Keeper`; only whole epochs are compared."""
        if checkpoint.step:
            return
        row = checkpoint.numbers["history"][-1]
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(Path(folder))
            # Tune decides for as long as it likes.
            faulthandler.cancel_dump_traceback_later()
            tune.report({**row, **self.cost}, checkpoint=tune.Checkpoint(folder))
        _watch(self._epoch_seconds)

    def asks(self, step: int) -> bool:
        """See :class:`pipeline.train.loop.Keeper`; an epoch is short."""
        return False


def _watch(seconds: float) -> None:
    """Ends this process after so many seconds, wherever it hangs, and says where that was.

    The watcher is a thread that needs no turn of Python's: it ends native code too.
    """
    faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__)
