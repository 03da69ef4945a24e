"""What a worker takes of a machine, and when there is room for too few of them."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.compute import Compute
from pipeline.errors import UsageError
from pipeline.train.placement import place, room_for

GPUS = [{"CPU": 4.0, "GPU": 1.0}] * 3
HEAD = {"CPU": 2.0}


def compute(**settings: Any) -> Compute:
    return Compute(**{"threads": 1, **settings})


def test_without_gpus_a_worker_takes_its_threads() -> None:
    placed = place(compute(workers=2, threads=2, loaders=3), [{"CPU": 4.0}])
    assert (placed.gpu, placed.share, placed.loaders) == (False, {"CPU": 2}, 3)


def test_beside_a_gpu_a_worker_takes_cores_for_its_loaders_too() -> None:
    placed = place(compute(workers=3, loaders=2), [HEAD, *GPUS])
    assert (placed.gpu, placed.share, placed.loaders) == (True, {"GPU": 1, "CPU": 3}, 2)


@pytest.mark.parametrize(("cpus", "gpus", "loaders"), [(4, 1, 3), (8, 4, 1), (1, 1, 0), (96, 2, 8)])
def test_loaders_are_made_of_the_cores_beside_each_gpu(cpus: int, gpus: int, loaders: int) -> None:
    machines = [HEAD, {"CPU": float(cpus), "GPU": float(gpus)}]
    assert place(compute(workers=gpus), machines).loaders == loaders


def test_the_smallest_machine_decides() -> None:
    assert place(compute(workers=2), [*GPUS, {"CPU": 2.0, "GPU": 1.0}]).loaders == 1


def test_workers_leave_gpus_alone_where_that_is_asked() -> None:
    placed = place(compute(workers=4, gpu=False), [HEAD, *GPUS])
    assert (placed.gpu, placed.share) == (False, {"CPU": 1})
    with pytest.raises(UsageError, match=r"room for 0: each takes 1 GPU .*DISTILL_GPU=0"):
        place(compute(workers=1, gpu=True), [HEAD])


def test_no_worker_is_spread_over_two_machines() -> None:
    assert room_for({"CPU": 2}, [{"CPU": 3.0}, {"CPU": 1.0}, {"CPU": 4.0}, {}]) == 3
    assert room_for({"CPU": 1, "GPU": 0.2}, [{"CPU": 16.0, "GPU": 1.0}]) == 5


@pytest.mark.parametrize(
    ("settings", "machines", "message"),
    [
        ({"workers": 3}, [HEAD], r"WORKERS=3, but Ray has room for 2: each takes 1 CPU of one"),
        ({"workers": 1, "threads": 4}, [HEAD, HEAD], r"room for 0: each takes 4 CPU .*THREADS"),
        ({"workers": 4}, GPUS, r"room for 3: each takes 1 GPU and 4 CPU .*DISTILL_GPU=0"),
        ({"workers": 1, "loaders": 4}, GPUS, r"room for 0: each takes 1 GPU and 5 CPU .*LOADERS"),
        ({"workers": 8, "min_workers": 4}, GPUS, r"WORKERS=8 \(at least 4\), but .* room for 3"),
    ],
)
def test_too_little_room_is_refused_with_what_to_set(
    settings: dict[str, Any], machines: list[dict[str, float]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        place(compute(**settings), machines)


def test_fewer_workers_than_wanted_have_room_where_that_is_allowed() -> None:
    assert place(compute(workers=8, min_workers=2), GPUS).gpu
