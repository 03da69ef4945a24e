"""One trial: a student trained with one setting, in a process that Ray Tune gives it."""

from __future__ import annotations

import faulthandler
import logging
import math
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from ray import tune

from pipeline.cost import count_macs, model_latency_ms
from pipeline.errors import TrainingError
from pipeline.inference import answer, asker
from pipeline.params import Section
from pipeline.search.journal import ACCURACY, LATENCY
from pipeline.search.settings import AUGMENTATION, KEYS, Value
from pipeline.search.space import Space
from pipeline.train.checkpoint import Checkpoint
from pipeline.train.device import Worker, default_device
from pipeline.train.history import Trained
from pipeline.train.job import Job
from pipeline.train.loop import Trainer
from pipeline.train.setup import make_loader, make_trainer, shards_of

NUMBER, SEED, RESUME, JUDGED = "number", "seed", "resume", "judged"
"""What a trial's configuration holds beside its setting: its number, the seed it trains with, the
checkpoint that it goes on from, and whether it is judged on the test images in the end."""
EPOCH: Final = "epoch"
BEST: Final = "best_accuracy"
"""The best validation accuracy so far: what trials are compared by."""
ENDED, FAILED, DIVERGED = "ended", "failed", "diverged"
TEST: Final = "test_accuracy"


class Work(Section):
    """What every trial of a search is told: values that travel as JSON.

    Attributes:
        space: what settings stand for.
        job: of the default run.
        targets: the folder of stored targets, by :func:`targets_of`.
        epoch_seconds: how long an epoch may take.
        notes: a folder in which a trial that hangs leaves where it did.
    """

    space: Space
    job: Job
    targets: dict[str, Path]
    epoch_seconds: float
    notes: Path


def targets_of(augmentation: float, seed: int) -> str:
    """A name for the stored targets of views that are so strong, of a seed."""
    return f"{augmentation:g}-{seed}"


def setting_of(config: Mapping[str, Any]) -> dict[str, Value]:
    """The setting in a trial's configuration."""
    return {key: config[key] for key in KEYS if config.get(key) is not None}


def train_trial(config: dict[str, Any], work: str) -> None:
    """Trains a student with one setting, and reports every epoch, with a checkpoint.

    What goes wrong is reported too: Tune would try a trial again that raised.

    Args:
        config: the setting, and what stands beside it.
        work: a :class:`Work`, as JSON.
    """
    for name in ("pipeline", "ray.train"):
        logging.getLogger(name).setLevel(logging.WARNING)
    told = Work.model_validate_json(work)
    keeper = TuneKeeper(told, tune.get_context().get_trial_id())
    try:
        keeper.look_for_hang()
        with keeper.watch():
            _train(config, told, keeper)
    except Exception as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())
        nothing = {EPOCH: 0, BEST: 0.0, ACCURACY: 0.0}
        lost = {**nothing, LATENCY: keeper.cost.get(LATENCY, math.inf)}
        tune.report({**lost, FAILED: said, DIVERGED: isinstance(error, TrainingError)})


def _train(config: dict[str, Any], told: Work, keeper: TuneKeeper) -> None:
    values = setting_of(config)
    run = told.space.run(values, f"trial-{config[NUMBER]}", config[SEED])
    targets = told.targets[targets_of(float(values.get(AUGMENTATION, 1)), run.seed)]
    job = told.job.model_copy(update={"run": run, "targets": targets})
    kept = tune.get_checkpoint()
    if kept is None and config[RESUME] is not None:
        kept = tune.Checkpoint(config[RESUME])
    checkpoint = None
    if kept is not None:
        with kept.as_directory() as folder:
            checkpoint = Checkpoint.load(Path(folder))
    trainer = make_trainer(job, Worker(device=default_device(), loaders=job.loaders), keeper)
    # Measured on the CPU, where it is now, whichever device it is trained on.
    keeper.cost = {
        "parameters": sum(weight.numel() for weight in trainer.model.parameters()),
        "macs": count_macs(trainer.model.eval(), run.view),
        LATENCY: model_latency_ms(trainer.model, run.view),
    }
    try:
        trained = trainer.run(checkpoint)
    finally:
        trainer.train.close()
    judged = {TEST: _test_accuracy(job, trainer, trained)} if config[JUDGED] else {}
    last = vars(trained.history[-1])
    best = trained.history[trained.best_epoch - 1].validation_accuracy
    tune.report({**last, **keeper.cost, **judged, BEST: best, ENDED: True})


def _test_accuracy(job: Job, trainer: Trainer, trained: Trained) -> float:
    """The accuracy of the best weights on the test images, in percent."""
    loader = make_loader(job, *shards_of(job), "test", trainer.worker, augmented=False)
    trainer.model.load_state_dict(trained.weights)
    said = answer(asker(trainer.model.eval(), trainer.worker.device), loader.all_in_order())
    return 100 * float(said.right.double().mean())


class TuneKeeper:
    """Hands checkpoints and metrics to Ray Tune, which may end the trial there.

    Args:
        told: how long an epoch may take, and where to leave a note.
        trial: Tune's name of the trial, which it keeps where it is started again.

    Attributes:
        cost: of the network; goes with every epoch's metrics.
    """

    def __init__(self, told: Work, trial: str) -> None:
        self._seconds = told.epoch_seconds
        self._note = told.notes / f"{trial}.txt"
        self._file: IO[str] | None = None
        self.cost: dict[str, float] = {}

    def keep(self, checkpoint: Checkpoint, metrics: Mapping[str, float]) -> None:
        """See :class:`pipeline.train.loop.Keeper`; only whole epochs are compared."""
        if checkpoint.step:
            return
        history = checkpoint.numbers["history"]
        best = max(row["validation_accuracy"] for row in history)
        with tempfile.TemporaryDirectory() as folder:
            checkpoint.save(Path(folder))
            # Tune decides for as long as it likes.
            faulthandler.cancel_dump_traceback_later()
            report = {**history[-1], **self.cost, BEST: best}
            tune.report(report, checkpoint=tune.Checkpoint(folder))
        self._watch()

    def asks(self, step: int) -> bool:
        """See :class:`pipeline.train.loop.Keeper`; an epoch is short."""
        return False

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Ends this process where an epoch within takes too long, wherever it hangs."""
        self._note.parent.mkdir(parents=True, exist_ok=True)
        with self._note.open("w") as self._file:
            try:
                self._watch()
                yield
            finally:
                faulthandler.cancel_dump_traceback_later()
                self._note.unlink(missing_ok=True)

    def _watch(self) -> None:
        # The watcher is a thread that needs no turn of Python's: it ends native code too.
        assert self._file is not None
        faulthandler.dump_traceback_later(self._seconds, exit=True, file=self._file)

    def look_for_hang(self) -> None:
        """Refuses to try again what hung before; a process that was killed leaves an empty note.

        Raises:
            TimeoutError: with the place where it hung.
        """
        said = self._note.read_text() if self._note.exists() else ""
        if said:
            threads = said.split("Thread 0x")
            own = next((thread for thread in threads if train_trial.__name__ in thread), said)
            places = [line.strip() for line in own.splitlines() if line.startswith("  File")]
            raise TimeoutError(
                f"an epoch took longer than search.epoch_seconds ({self._seconds:g} s), at "
                f"{'; '.join(places[:2])}"
            )
