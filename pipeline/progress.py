"""Progress of work that is counted, as log lines."""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)

SECONDS = 2.0


class Progress:
    """Logs how far something is, at most every few seconds, and once at its end.

    Args:
        what: for example ``shards``.
        unit: for example ``images``.
    """

    def __init__(self, what: str, unit: str) -> None:
        self._what, self._unit = what, unit
        self._began = self._shown = time.perf_counter()

    def __call__(self, done: int, total: int) -> None:
        """Takes note that ``done`` of ``total`` are done."""
        now = time.perf_counter()
        if done < total and now - self._shown < SECONDS:
            return
        self._shown = now
        rate = done / max(now - self._began, 1e-9)
        minutes, seconds = divmod(round((total - done) / max(rate, 1e-9)), 60)
        log.info(
            "%s  %s/%s %s  %.0f %s/s  %d:%02d left",
            *(self._what, f"{done:,}", f"{total:,}", self._unit),
            *(rate, self._unit, minutes, seconds),
        )
