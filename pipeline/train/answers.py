"""What a trained model says of training views: one worker's part in making stored targets."""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np
import torch

from pipeline.data.loader import Place, ViewDataset
from pipeline.distill.store import Logits
from pipeline.errors import DistillError, TrainingError
from pipeline.train.device import autocast_dtype, default_device
from pipeline.train.job import Job
from pipeline.train.setup import load_teacher, shards_of

_BATCH: Final = 128


class Answerer:
    """The model of a run, and the training views that it is asked about.

    Args:
        job: of the run; of its loader processes none is started: views cost little beside a
            teacher's answers.
        device: where the model is asked; null takes a GPU if there is one.
    """

    def __init__(self, job: Job, device: torch.device | None = None) -> None:
        torch.set_num_threads(job.threads)
        source, self._index = shards_of(job)
        self._job, self._device = job, device or default_device()
        run = job.run
        self._dtype = autocast_dtype(run.training.precision, self._device)
        self._dataset = ViewDataset(source, self._index, "train", run.view, run.seed, window=1)

    @cached_property
    def _model(self) -> torch.nn.Module:
        model = load_teacher(self._job, self._job.run.name, self._index)
        return model.to(self._device).to(memory_format=torch.channels_last)

    def answers(self, shard: int) -> Logits:
        """The logits of every view of a shard's images, (samples, views, classes).

        Raises:
            DistillError: the shard or the model is missing or damaged, or the logits are not
                finite.
        """
        samples, views = self._dataset.shards[shard].samples, self._job.run.view.cycle
        places = [(view, shard, place) for place in range(samples) for view in range(views)]
        batches = [places[at : at + _BATCH] for at in range(0, len(places), _BATCH)]
        logits = np.concatenate([self._ask(batch) for batch in batches])
        return logits.reshape(samples, views, -1)

    @torch.inference_mode()
    def _ask(self, places: list[Place]) -> Logits:
        made = self._dataset.__getitems__(places)
        if isinstance(made, DistillError):
            raise made
        images = torch.from_numpy(made.images).to(self._device, torch.float32)
        with torch.autocast(
            self._device.type, self._dtype or torch.bfloat16, enabled=self._dtype is not None
        ):
            logits = self._model(images).half()
        if not logits.isfinite().all():
            row = int(logits.isfinite().all(dim=1).int().argmin())
            raise TrainingError(
                f"{self._job.run.name} says of the image {made.keys[row]} what is not finite in "
                "half precision: train it again with a smaller rate or more weight decay, or take "
                "distillation.targets: live"
            )
        said: Logits = logits.cpu().numpy()
        return said
