"""What a search has done, a line an event: from it a search that was interrupted goes on."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pipeline.search.settings import Value

log = logging.getLogger(__name__)

Role = Literal["search", "best", "default"]
State = Literal["running", "completed", "stopped", "failed"]

ACCURACY: Final = "validation_accuracy"
LATENCY: Final = "latency_ms"


def model_name(trial: int, epoch: int) -> str:
    """The folder of an epoch's model in the zoo."""
    return f"trial-{trial:04d}-epoch-{epoch:03d}"


@dataclass
class Epoch:
    """An epoch of a trial.

    Attributes:
        epoch: from 1.
        at: seconds that the search had taken, over all attempts.
        values: the trial's setting in this epoch; pbt changes it.
        metrics: a row of history.csv, and what the network costs.
        checkpoint: where its trainer's checkpoint lay.
    """

    epoch: int
    at: float
    values: dict[str, Value]
    metrics: dict[str, float]
    checkpoint: str | None = None


@dataclass
class Tried:
    """A trial.

    Attributes:
        number: from 1, in the order of their begin.
        role: ``search``, or what was trained again with another seed.
        seed: that it trains with.
        values: its setting.
        state: ``completed`` trained every epoch, ``stopped`` was ended by the scheduler or the
            budget.
        error: why it failed.
        diverged: whether it failed because its loss was no number any more.
        epochs: by number.
    """

    number: int
    role: Role
    seed: int
    values: dict[str, Value]
    state: State = "running"
    error: str = ""
    diverged: bool = False
    epochs: dict[int, Epoch] = field(default_factory=dict)

    @property
    def best(self) -> Epoch:
        """Its most accurate epoch on validation, as training chooses it."""
        return max(
            self.epochs.values(),
            key=lambda one: (one.metrics[ACCURACY], -one.metrics["validation_loss"], -one.epoch),
        )

    @property
    def judged(self) -> bool:
        """Whether it counts: it has an epoch, and did not fail."""
        return bool(self.epochs) and self.state != "failed"

    @property
    def accuracy(self) -> float:
        """Of its best epoch, in percent."""
        return self.best.metrics[ACCURACY]


class Journal:
    """The trials of a search, in memory and in a file. One process at a time writes it.

    Where the disk is full the search goes on: what could not be written is written with the next.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.trials: dict[int, Tried] = {}
        self._spent = 0.0
        self._waiting = b""
        content = path.read_bytes() if path.exists() else b""
        # The last line may have been cut by whatever ended the search.
        self._size = content.rfind(b"\n") + 1
        for line in content[: self._size].splitlines():
            event = json.loads(line)
            self._spent = event["at"]
            self._take(event)
        self._began = time.monotonic()

    @property
    def spent(self) -> float:
        """Seconds that the search has taken, over all attempts."""
        return self._spent + time.monotonic() - self._began

    def of(self, role: Role) -> list[Tried]:
        """The trials in a role, in order."""
        return [trial for trial in self.trials.values() if trial.role == role]

    def begin(self, role: Role, seed: int, values: Mapping[str, Value]) -> Tried:
        """Takes note of a new trial."""
        number = len(self.trials) + 1
        self._note({"trial": number, "role": role, "seed": seed, "values": dict(values)})
        return self.trials[number]

    def epoch(
        self, number: int, epoch: int, values: Mapping[str, Value], metrics: Mapping[str, float]
    ) -> None:
        """Takes note of an epoch; one that was trained again takes the place of the first."""
        self._note(
            {"trial": number, "epoch": epoch, "values": dict(values), "metrics": dict(metrics)}
        )

    def checkpoint(self, number: int, epoch: int, address: str) -> None:
        """Takes note of where an epoch's checkpoint lies."""
        self._note({"trial": number, "epoch": epoch, "checkpoint": address})

    def end(self, number: int, state: State, error: str = "", *, diverged: bool = False) -> None:
        """Takes note of a trial's end."""
        self._note({"trial": number, "state": state, "error": error, "diverged": diverged})

    def _note(self, event: dict[str, Any]) -> None:
        event["at"] = round(self.spent, 3)
        self._take(event)
        self._waiting += json.dumps(event).encode() + b"\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab") as file:
                file.truncate(self._size)
                file.write(self._waiting)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            log.warning("%s could not be written (%s): it is tried again", self._path, error)
            return
        self._size += len(self._waiting)
        self._waiting = b""

    def _take(self, event: Mapping[str, Any]) -> None:
        number = event["trial"]
        if "role" in event:
            self.trials[number] = Tried(number, event["role"], event["seed"], event["values"])
        elif "metrics" in event:
            self.trials[number].epochs[event["epoch"]] = Epoch(
                event["epoch"], event["at"], event["values"], event["metrics"]
            )
        elif "checkpoint" in event:
            self.trials[number].epochs[event["epoch"]].checkpoint = event["checkpoint"]
        else:
            self.trials[number].state = event["state"]
            self.trials[number].error = event["error"]
            self.trials[number].diverged = event["diverged"]
