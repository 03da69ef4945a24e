"""What a machine is found to have, and what it needs."""

from __future__ import annotations

import shutil
from pathlib import Path

from pipeline.machine import WITHOUT_GPU, examine, shared_memory


def test_shared_memory_that_rays_store_may_take_is_not_the_loaders(tmp_path: Path) -> None:
    total, least = shutil.disk_usage(tmp_path).total, 1 / 2**20
    assert shared_memory(tmp_path, least, store=0).ok
    taken = shared_memory(tmp_path, least, store=total)
    assert not taken.ok
    assert taken.detail.startswith("0.0 GiB, less than")
    assert f"--shm-size={total / 2**30:.1f}g" in taken.advice
    assert not shared_memory(tmp_path, total / 2**30 + 1, store=0).ok


def test_a_machine_that_lacks_room_is_told_how_much(tmp_path: Path) -> None:
    before, after = (
        {check.name: check for check in examine(tmp_path, store=store)} for store in (0, 2**60)
    )
    assert before["memory"].ok
    assert not after["shared memory"].ok
    assert f"less than {WITHOUT_GPU.shared:g}" in after["shared memory"].detail
