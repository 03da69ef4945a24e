"""What Ray's own processes need not say: run first in each of them. It imports no library."""

from __future__ import annotations

import logging

# It asks the dashboard's server, and warns every second where there is none.
_CLEANER = "ray.train.v2._internal.execution.controller.placement_group_cleaner"


def quiet_ray() -> None:
    """Leaves only errors of the part of Ray Train that cleans up placement groups."""
    logging.getLogger(_CLEANER).setLevel(logging.ERROR)
