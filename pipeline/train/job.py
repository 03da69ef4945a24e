"""What a worker is asked to do, wherever it runs."""

from __future__ import annotations

from pathlib import Path

from pipeline.data.streamed import Streaming
from pipeline.params import Section
from pipeline.runs import Run


class Job(Section):
    """What a worker needs to train a run: values that travel as JSON.

    Attributes:
        run: the run.
        shards: the folder of shards, absolute.
        models: the folder of model folders, absolute: teachers are read from there.
        targets: the folder of stored targets, absolute.
        checkpoint_steps: see :class:`pipeline.train.loop.Trainer`.
        loaders: loader processes of a worker.
        threads: CPU threads of a worker.
        streaming: how shards are streamed, instead of read from their folder.
    """

    run: Run
    shards: Path
    models: Path
    targets: Path
    checkpoint_steps: int
    loaders: int
    threads: int
    streaming: Streaming | None = None
