"""The loader beside a bare loop that only decodes and augments the same images."""

from __future__ import annotations

import time
from typing import Any

import cv2

from benchmarks.spread import spread
from pipeline.data.augment import Augmenter
from pipeline.data.loader import Loader, ViewDataset
from pipeline.data.plan import Planner
from pipeline.data.shards import Index, ShardFolder, read_shard
from pipeline.data.view import decode, fit
from pipeline.params import Params
from pipeline.train.run import SHARDS


def loader_ratio(params: Params, index: Index, pairs: int) -> dict[str, Any]:
    """Times an epoch of one loader process beside one process that only makes the views.

    Both use one core; the loader's batches are received by a process that does nothing else.
    """
    shards = index.of("train")
    # Nothing is shown from memory here: that costs no loader anything.
    view = params.view.model_copy(update={"cycle": 0})
    seed, window = params.seed, params.data.shuffle_shards
    planner = Planner(
        tuple(shard.samples for shard in shards), params.training.batch_size, seed, window
    )
    dataset = ViewDataset(ShardFolder(SHARDS), index, "train", view, seed, window)
    loader = Loader(dataset, planner, workers=1)
    samples = [sample for shard in shards for sample in read_shard(SHARDS, shard)]
    augmenter = Augmenter(view.augment, seed)
    cv2.setNumThreads(0)

    def bare(epoch: int) -> float:
        began = time.perf_counter()
        for sample in samples:
            augmenter(fit(decode(sample.jpeg, sample.key), view), sample.key, epoch)
        return len(samples) / (time.perf_counter() - began)

    def loaded(epoch: int) -> float:
        began = time.perf_counter()
        images = sum(len(batch.keys) for batch in loader.epoch(epoch))
        return images / (time.perf_counter() - began)

    # The first epoch starts the loader process and reads the shards.
    loaded(0)
    bare_rates, loader_rates = [], []
    for epoch in range(1, pairs + 1):
        bare_rates.append(bare(epoch))
        loader_rates.append(loaded(epoch))
    return {
        "ratio": spread([ours / bare for ours, bare in zip(loader_rates, bare_rates, strict=True)]),
        "bare_images_per_second": spread(bare_rates),
        "loader_images_per_second": spread(loader_rates),
    }
