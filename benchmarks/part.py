"""A part of the data as shards of their own, for what would take too long on all of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from pipeline.data.shards import Index, build, read_index, read_shard
from pipeline.data.source import WordImage
from pipeline.train.run import SHARDS


def some_shards(folder: Path, train: int) -> Index:
    """Builds shards from the first ones of each split.

    Args:
        folder: where to.
        train: how many of the training split; of the other two it is one.
    """
    whole = read_index(SHARDS)
    taken = [*whole.of("train")[:train], *whole.of("validation")[:1], *whole.of("test")[:1]]
    images = [
        WordImage(sample.key, shard.split, sample.script, shard.name, partial(bytes, sample.jpeg))
        for shard in taken
        for sample in read_shard(SHARDS, shard)
    ]
    size = max(shard.samples for shard in taken)
    return build(images, folder, source=whole.source, scripts=whole.scripts, shard_images=size)
