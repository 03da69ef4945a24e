"""What the libraries below are told by environment variables, before they are imported."""

from __future__ import annotations

import os

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
    """Makes everything quiet, offline and private, unless whoever calls says otherwise."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
