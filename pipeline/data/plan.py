"""Which image is seen when, and by whom: the epoch plan.

The order of an epoch is a function of (seed, epoch) alone. A step's global batch is a slice of that
order, and a rank's share is a slice of the global batch. So every image is seen exactly once an
epoch whatever the number of ranks and loader workers, all ranks take the same number of steps, and
training can go on from any step without replaying the ones before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pipeline.errors import UsageError

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class EpochPlan:
    """The order of one epoch, cut into steps.

    Attributes:
        order: (images, 2), a row an image: its shard's number and its place in that shard.
        steps: batches in the epoch; their sizes differ by one at most, so that no small rest is
            left at the end.
    """

    order: Places
    steps: int

    def batch(self, step: int, rank: int = 0, world_size: int = 1) -> Places:
        """The images of one rank in one step, (images, 2)."""
        images = len(self.order)
        start, stop = images * step // self.steps, images * (step + 1) // self.steps
        size = stop - start
        return self.order[
            start + size * rank // world_size : start + size * (rank + 1) // world_size
        ]

    def size(self, step: int) -> int:
        """Images in the global batch of a step."""
        images = len(self.order)
        return images * (step + 1) // self.steps - images * step // self.steps


@dataclass(frozen=True)
class Planner:
    """Makes the plan of every epoch.

    Attributes:
        samples: images in each shard.
        batch_size: the largest global batch.
        seed: of the order.
        window: shards whose images are mixed with each other; a rank needs no more of them at a
            time.
    """

    samples: tuple[int, ...]
    batch_size: int
    seed: int
    window: int

    @cached_property
    def steps(self) -> int:
        """Steps of every epoch."""
        return -(-sum(self.samples) // self.batch_size)

    def check(self, world_size: int) -> None:
        """Refuses a number of ranks that would leave one of them without an image in some step.

        Raises:
            UsageError: the smallest global batch has fewer images than there are ranks.
        """
        images = sum(self.samples)
        smallest = images // self.steps if images else 0
        if smallest < world_size:
            raise UsageError(
                f"{world_size} workers cannot share {images} images in batches of "
                f"{self.batch_size}: the smallest batch has {smallest}; use fewer workers or a "
                "larger training.batch_size"
            )

    def shuffled(self, epoch: int) -> EpochPlan:
        """The plan of a training epoch: shards shuffled, then the images within each window."""
        random = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        shards = random.permutation(len(self.samples))
        windows = [shards[at : at + self.window] for at in range(0, len(shards), self.window)]
        parts = [random.permutation(_places(self.samples, window)) for window in windows]
        return EpochPlan(np.concatenate(parts), self.steps)

    def in_order(self) -> EpochPlan:
        """The plan of a pass that does not depend on order: as the shards have it."""
        return EpochPlan(_places(self.samples, range(len(self.samples))), self.steps)


def _places(samples: Sequence[int], shards: Sequence[int] | Places) -> Places:
    rows = [
        np.stack((np.full(samples[shard], shard), np.arange(samples[shard])), axis=1)
        for shard in shards
    ]
    return np.concatenate(rows).astype(np.int64)
