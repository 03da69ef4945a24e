"""What one machine has: Python, packages, room, GPUs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import torch
from packaging.requirements import InvalidRequirement, Requirement
from pydantic import BaseModel, ConfigDict

from pipeline.compute import cores
from pipeline.train.device import autocast_dtype

LOCK_FILE: Final = "requirements.lock"
INSTALL: Final = f"pip install --no-deps -r {LOCK_FILE}"
_GIB = 2**30
_NAMED = 5


@dataclass(frozen=True)
class Needs:
    """The least that a training needs of its machine, in GiB.

    Attributes:
        memory: of the machine or the container; a machine sold with 16 GB shows 15.
        shared: free in /dev/shm beside Ray's object store, for the batches of loader processes.
        disk: free beside what is installed, for the cache of shards and checkpoints on their way.
    """

    memory: float
    shared: float
    disk: float


WITHOUT_GPU: Final = Needs(memory=4, shared=1, disk=5)
WITH_GPU: Final = Needs(memory=14, shared=2, disk=10)


class Check(BaseModel):
    """One thing that was looked at.

    Attributes:
        ok: whether everything can go on as it is.
        detail: what was found.
        advice: what to do; empty where nothing needs doing.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    ok: bool
    detail: str
    advice: str = ""


def examine(root: Path, *, store: int = 0) -> list[Check]:
    """Looks at the machine that this process runs on; nothing is changed.

    Args:
        root: the folder whose requirements.lock and whose disk are meant.
        store: bytes of shared memory that Ray's object store here may come to take.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    needs = WITH_GPU if gpus else WITHOUT_GPU
    return [_python(), _packages(root / LOCK_FILE), *_machine(root, needs, store), _gpu(gpus)]


def shared_memory(place: Path, least: float, store: int) -> Check:
    """Whether there is room for loader processes' batches where processes share memory.

    Args:
        place: the folder that stands for it.
        least: what has to be there, in GiB.
        store: bytes that Ray's object store may take of it; it takes them as it fills.
    """
    usage = shutil.disk_usage(place)
    free = max(0, min(usage.free, usage.total - store))
    size = least * _GIB + store
    advice = f"loaders and Ray need it: in a container, start it with --shm-size={size / _GIB:.1f}g"
    return _room("shared memory", free, least, advice)


def precision(device: torch.device) -> str:
    """What ``precision: auto`` computes in on a device, for example ``bf16``."""
    names = {torch.bfloat16: "bf16", torch.float16: "fp16", None: "fp32"}
    return names[autocast_dtype("auto", device)]


def _python() -> Check:
    found = ".".join(str(part) for part in sys.version_info[:3])
    ok = sys.version_info[:2] == (3, 11)
    return Check(
        name="python",
        ok=ok,
        detail=found,
        advice="" if ok else "make the virtual environment with Python 3.11",
    )


def _packages(lock: Path) -> Check:
    name = "packages"
    if not lock.exists():
        return Check(
            name=name, ok=False, detail=f"{lock} is missing", advice="restore it: git checkout"
        )
    wanted = [*_pins(lock.read_text())]
    differ = [
        f"{package} {found or 'missing'}, not {pin}"
        for package, pin in wanted
        if (found := _installed(package)) != pin
    ]
    if differ:
        more = [f"and {len(differ) - _NAMED} more"] * (len(differ) > _NAMED)
        detail = "; ".join([*differ[:_NAMED], *more])
        return Check(name=name, ok=False, detail=detail, advice=INSTALL)
    return Check(name=name, ok=True, detail=f"all {len(wanted)} as in {LOCK_FILE}")


def _pins(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        try:
            pin = Requirement(line.split(" #")[0].split("--hash")[0].rstrip(" \\"))
        except InvalidRequirement:
            continue  # a comment, an option, a checksum
        if pin.marker is None or pin.marker.evaluate():
            yield pin.name, str(pin.specifier).removeprefix("==")


def _installed(package: str) -> str | None:
    # What follows the plus is the build, for example the CUDA version: a matter of the machine.
    try:
        return version(package).split("+")[0]
    except PackageNotFoundError:
        return None


def _machine(root: Path, needs: Needs, store: int) -> Iterator[Check]:
    count = cores()
    yield Check(name="cores", ok=True, detail=f"{count} for this process")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()) != "max":
        memory = min(memory, int(text))
    yield _room("memory", memory, needs.memory, "close other programs, or use a larger machine")
    free = shutil.disk_usage(root).free
    yield _room("disk", free, needs.disk, "make room where the project lies")
    shared = Path("/dev/shm")  # noqa: S108 - no file is made there
    if shared.exists():
        yield shared_memory(shared, needs.shared, store)


def _room(name: str, size: int, least: float, advice: str) -> Check:
    ok = size >= least * _GIB
    detail = f"{size / _GIB:.1f} GiB" + ("" if ok else f", less than {least:g}")
    return Check(name=name, ok=ok, detail=detail, advice="" if ok else advice)


def _gpu(count: int) -> Check:
    if not count:
        return Check(name="gpu", ok=True, detail="none; models are trained on the CPU")
    device = torch.device("cuda")
    kinds = ", ".join(sorted({torch.cuda.get_device_name(place) for place in range(count)}))
    return Check(
        name="gpu",
        ok=True,
        detail=f"{count} x {kinds}; precision auto computes in {precision(device)}",
    )
