"""The zoo: models of trials, one for an epoch, as many as ``search.keep`` lets stay."""

from __future__ import annotations

import logging
from pathlib import Path

from pipeline.data.shards import Index
from pipeline.files import remove_folder
from pipeline.models.folder import read_info
from pipeline.runs import Run
from pipeline.search.journal import ACCURACY
from pipeline.train.checkpoint import Checkpoint
from pipeline.train.history import EpochRow, Trained
from pipeline.train.run import model_info, write_model

log = logging.getLogger(__name__)

Merit = tuple[float, str]


class Zoo:
    """A folder of model folders, the most accurate ones on validation.

    Args:
        folder: what is in it already is counted.
        keep: models at most.
        index: of the shards that they are trained on.
    """

    def __init__(self, folder: Path, keep: int, index: Index) -> None:
        self._folder, self._keep, self._index = folder, keep, index
        folder.mkdir(parents=True, exist_ok=True)
        # What a process that was killed had begun.
        for part in folder.glob(".*"):
            remove_folder(part)
        named = folder.iterdir()
        self._kept = {one.name: read_info(one).metrics[ACCURACY] for one in named}
        self._shrink()

    def wants(self, accuracy: float) -> bool:
        """Whether a model of this accuracy would stay."""
        return len(self._kept) < self._keep or (
            self._keep > 0 and accuracy > min(self._kept.values())
        )

    def put(self, name: str, run: Run, checkpoint: Checkpoint) -> None:
        """Keeps the weights that an epoch was judged by, in the place of the least accurate ones.

        Where the disk is full the search goes on without.
        """
        history = [EpochRow(**row) for row in checkpoint.numbers["history"]]
        weights = checkpoint.part("average") or checkpoint.part("model")
        trained = Trained(weights, history, len(history), checkpoint.numbers["seconds"])
        about = (self._index.source, self._index.version, self._index.scripts)
        try:
            write_model(self._folder / name, model_info(run, trained, *about), trained)
        except OSError as error:
            log.warning("%s could not be written (%s): it is not kept", self._folder / name, error)
            return
        self._kept[name] = history[-1].validation_accuracy
        self._shrink()

    def _shrink(self) -> None:
        # Of equally accurate ones the first trained stay.
        order = sorted(self._kept, key=lambda name: (-self._kept[name], name))
        for name in order[self._keep :]:
            remove_folder(self._folder / name)
            del self._kept[name]
