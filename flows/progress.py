"""How far a stage is, as its log says: see pipeline.progress and the training loop."""

from __future__ import annotations

import re

_EPOCH = re.compile(r"\bepoch (?P<epoch>\d+)/(?P<epochs>\d+)  (?: *(?P<percent>\d+) %)?")
_COUNT = re.compile(r"  (?P<done>[\d,]+)/(?P<total>[\d,]+) \w+  ")


def share_done(line: str) -> float | None:
    """The share of a stage's work that is done, in percent; None where a line does not tell it."""
    if found := _EPOCH.search(line):
        epoch, epochs = int(found["epoch"]), int(found["epochs"])
        whole = epoch if found["percent"] is None else epoch - 1 + int(found["percent"]) / 100
        return 100 * whole / epochs
    if found := _COUNT.search(line):
        done, total = (int(found[name].replace(",", "")) for name in ("done", "total"))
        return 100 * done / total if total else None
    return None
