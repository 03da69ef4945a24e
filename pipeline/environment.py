"""What the libraries below are told by environment variables, before they are imported."""

from __future__ import annotations

import ctypes
import os
from typing import Final

_ALLOCATOR: Final = {
    # Parameters of glibc's mallopt, and bytes. By itself it gives a feature map's memory back when
    # it is freed, and the kernel clears every page of the next one: a tenth of a student's step, up
    # to almost half of the time of a large batch. A process keeps up to this much instead.
    "MALLOC_MMAP_THRESHOLD_": (-3, 2**25),
    "MALLOC_TRIM_THRESHOLD_": (-1, 2**28),
}

_DEFAULTS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # A thread that waits for another gives its core away: loader processes need it. Threads that
    # spin instead made training several times slower on two busy cores.
    "OMP_WAIT_POLICY": "PASSIVE",
    # How often the controller asks its workers for reports: what they wait for at an epoch's end.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "DO_NOT_TRACK": "1",
    "NO_ALBUMENTATIONS_UPDATE": "1",
}


def set_defaults() -> None:
    """Makes everything quiet, offline, private and thrifty, unless whoever calls says otherwise."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if not _ALLOCATOR.keys() & os.environ.keys():
        # The variables are for processes started from here: this one has read them already.
        libc = ctypes.CDLL(None)
        for name, (parameter, size) in _ALLOCATOR.items():
            os.environ[name] = str(size)
            libc.mallopt(parameter, size)
