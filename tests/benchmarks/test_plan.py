"""The plan for many GPUs, beside a simulation of it and beside the project's own epoch plan."""

from __future__ import annotations

import pytest

from benchmarks.plan import Cluster, Load, limits, rate, simulate
from pipeline.data.plan import Planner

GBIT = 1e9 / 8
STUDENT, TEACHER = 4 * 192_314, 4 * 4_927_186


@pytest.mark.parametrize("gradient_bytes", [STUDENT, TEACHER])
@pytest.mark.parametrize("batch", [32, 256])
@pytest.mark.parametrize(("machines", "gpus"), [(1, 1), (8, 1), (64, 1), (8, 8)])
def test_the_formula_is_what_a_simulation_counts(
    machines: int, gpus: int, batch: int, gradient_bytes: int
) -> None:
    cluster = Cluster(machines, gpus, loaders=3, bandwidth=10 * GBIT)
    load = Load(gradient_bytes, batch)
    expected = rate(cluster, load)
    assert simulate(cluster, load, steps=300, jitter=0) == pytest.approx(expected, rel=0.03)
    # Machines wait for the slowest one: it is never faster, and not much slower.
    assert 0.85 * expected < simulate(cluster, load, steps=300, jitter=0.3) < 1.03 * expected


def test_which_link_is_full_first_hangs_on_the_images_of_a_step() -> None:
    cluster = Cluster(machines=64, gpus=1, loaders=3, bandwidth=10 * GBIT)
    for batch, first in ((32, "gradients"), (256, "shards from S3")):
        found = limits(cluster, Load(TEACHER, batch))
        assert min(found, key=lambda part: found[part]) == first
    found = limits(cluster, Load(STUDENT, 32))
    assert min(found, key=lambda part: found[part]) == "shards from S3"


def test_every_machine_needs_every_shard() -> None:
    planner = Planner(samples=(100,) * 16, batch_size=64, seed=0, window=4)
    plan = planner.shuffled(0)
    for rank in range(8):
        shards = {
            int(shard)
            for step in range(plan.steps)
            for shard, _ in plan.batch(step, rank, world_size=8)
        }
        assert shards == set(range(16))
