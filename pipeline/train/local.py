"""Training in this process, without Ray: one worker, checkpoints in a folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.files import folder_there, whole_folder
from pipeline.train.checkpoint import Checkpoint
from pipeline.train.device import Worker, default_device
from pipeline.train.history import Trained
from pipeline.train.job import Job
from pipeline.train.setup import make_trainer


class FolderKeeper:
    """Keeps the last checkpoint in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, checkpoint: Checkpoint, metrics: Mapping[str, float]) -> None:
        """See :class:`pipeline.train.loop.Keeper`."""
        with whole_folder(self._folder) as part:
            checkpoint.save(part)

    def asks(self, step: int) -> bool:
        """See :class:`pipeline.train.loop.Keeper`; nobody warns this process before its end."""
        return False


def train_here(job: Job, folder: Path) -> Trained:
    """Trains a run in this process, or goes on from the checkpoint in ``folder``."""
    worker = Worker(device=default_device(), loaders=job.loaders)
    trainer = make_trainer(job, worker, FolderKeeper(folder))
    return trainer.run(Checkpoint.load(folder) if folder_there(folder) else None)
