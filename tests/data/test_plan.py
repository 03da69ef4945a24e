"""The epoch plan, as properties that hold for any ranks, batch sizes and shards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pipeline.data.plan import EpochPlan, Planner
from pipeline.errors import UsageError

planners = st.builds(
    Planner,
    samples=st.lists(st.integers(1, 30), min_size=1, max_size=12).map(tuple),
    batch_size=st.integers(1, 64),
    seed=st.integers(0, 2**32 - 1),
    window=st.integers(1, 14),
)
ranks = st.integers(1, 9)
epochs = st.integers(0, 1000)


def everything(planner: Planner) -> set[tuple[int, int]]:
    return {(shard, at) for shard, count in enumerate(planner.samples) for at in range(count)}


def pairs(plan: EpochPlan, step: int, rank: int = 0, world_size: int = 1) -> list[tuple[int, int]]:
    return [(shard, at) for shard, at in plan.batch(step, rank, world_size).tolist()]


@given(planners, ranks, epochs)
def test_every_image_is_seen_exactly_once_an_epoch(planner: Planner, world: int, at: int) -> None:
    for plan in (planner.shuffled(at), planner.in_order()):
        seen = [
            place
            for rank in range(world)
            for step in range(plan.steps)
            for place in pairs(plan, step, rank, world)
        ]
        assert len(seen) == sum(planner.samples)
        assert set(seen) == everything(planner)


@given(planners, ranks, epochs)
def test_ranks_together_see_the_same_global_batch_whatever_their_number(
    planner: Planner, world: int, epoch: int
) -> None:
    plan = planner.shuffled(epoch)
    for step in range(plan.steps):
        together = [place for rank in range(world) for place in pairs(plan, step, rank, world)]
        assert together == pairs(plan, step)
        assert len(together) == plan.size(step)


@given(planners, ranks, epochs)
def test_every_rank_has_an_image_in_every_step_where_check_lets_it_pass(
    planner: Planner, world: int, epoch: int
) -> None:
    try:
        planner.check(world)
    except UsageError:
        smallest = min(planner.in_order().size(step) for step in range(planner.steps))
        assert smallest < world
        return
    plan = planner.shuffled(epoch)
    for step in range(plan.steps):
        shares = [len(plan.batch(step, rank, world)) for rank in range(world)]
        assert min(shares) >= 1
        assert max(shares) - min(shares) <= 1


@given(planners, epochs)
def test_batches_fill_the_batch_size_and_differ_by_one_at_most(
    planner: Planner, epoch: int
) -> None:
    plan = planner.shuffled(epoch)
    sizes = [plan.size(step) for step in range(plan.steps)]
    assert len(sizes) == planner.steps == -(-sum(planner.samples) // planner.batch_size)
    assert max(sizes) <= planner.batch_size
    assert max(sizes) - min(sizes) <= 1


@given(planners, epochs)
def test_order_is_a_function_of_seed_and_epoch(planner: Planner, epoch: int) -> None:
    again = Planner(planner.samples, planner.batch_size, planner.seed, planner.window)
    again.shuffled(epoch + 1)
    np.testing.assert_array_equal(planner.shuffled(epoch).order, again.shuffled(epoch).order)


@given(planners, epochs)
def test_order_does_not_depend_on_the_batch_size(planner: Planner, epoch: int) -> None:
    other = Planner(planner.samples, planner.batch_size + 1, planner.seed, planner.window)
    np.testing.assert_array_equal(planner.shuffled(epoch).order, other.shuffled(epoch).order)


@given(planners, epochs)
def test_order_differs_between_epochs_and_between_seeds(planner: Planner, epoch: int) -> None:
    assume(max(planner.samples) >= 20)
    order = planner.shuffled(epoch).order
    other_seed = Planner(planner.samples, planner.batch_size, planner.seed ^ 1, planner.window)
    assert not np.array_equal(order, planner.shuffled(epoch + 1).order)
    assert not np.array_equal(order, other_seed.shuffled(epoch).order)


@given(planners, epochs)
def test_a_window_holds_images_of_its_own_shards_only(planner: Planner, epoch: int) -> None:
    order = planner.shuffled(epoch).order.tolist()
    shards = list(dict.fromkeys(shard for shard, _ in order))
    last_of = {shard: at for at, (shard, _) in enumerate(order)}
    first_of = {shard: at for at, (shard, _) in reversed(list(enumerate(order)))}
    # However the images lie, no more shards than the window are open at any time.
    for at in range(len(order)):
        assert sum(first_of[s] <= at <= last_of[s] for s in shards) <= planner.window


def test_images_of_one_window_are_mixed_with_each_other() -> None:
    planner = Planner(samples=(50, 50), batch_size=10, seed=0, window=2)
    first_half = planner.shuffled(0).order[:50, 0]
    assert 10 < int((first_half == first_half[0]).sum()) < 40


def test_too_many_ranks_are_refused_with_the_numbers_to_change() -> None:
    planner = Planner(samples=(9, 8), batch_size=6, seed=0, window=2)
    planner.check(5)
    with pytest.raises(UsageError, match=r"6 workers .* 17 images .* smallest batch has 5"):
        planner.check(6)


def test_no_images_are_refused() -> None:
    with pytest.raises(UsageError, match="0 images"):
        Planner(samples=(), batch_size=6, seed=0, window=2).check(1)
