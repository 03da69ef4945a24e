"""The journal: from it a search goes on, whatever ended it."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.search.journal import Journal

METRICS = {"validation_accuracy": 50.0, "validation_loss": 1.0, "latency_ms": 1.0, "images": 9}


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: what a full disk looks like to whoever writes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_was_noted_is_there_again(tmp_path: Path) -> None:
    first = Journal(tmp_path / "new/journal")
    trial = first.begin("search", 7, {"training.lr": 0.1, "teacher": "x"})
    first.epoch(trial.number, 1, trial.values, METRICS)
    first.checkpoint(trial.number, 1, "/somewhere")
    first.epoch(trial.number, 2, {"training.lr": 0.2}, {**METRICS, "validation_accuracy": 60.0})
    first.end(trial.number, "failed", "it broke")
    again = Journal(tmp_path / "new/journal")
    assert again.trials == first.trials
    assert again.trials[1].best.epoch == 2
    assert again.trials[1].epochs[1].checkpoint == "/somewhere"
    assert again.trials[1].error == "it broke"
    assert not again.trials[1].judged
    assert again.spent >= first.trials[1].epochs[2].at
    assert again.begin("best", 1, {}).number == 2
    assert [one.number for one in again.of("best")] == [2]


@pytest.mark.parametrize("cut", [1, 10, 40])
def test_a_line_that_a_kill_cut_short_is_as_if_it_had_not_been(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal"
    first = Journal(path)
    first.begin("search", 0, {})
    first.end(first.begin("search", 0, {}).number, "completed")
    path.write_bytes(path.read_bytes()[:-cut])
    again = Journal(path)
    assert again.trials[2].state == "running"
    again.end(2, "stopped")
    assert Journal(path).trials[2].state == "stopped"
    assert [json.loads(line) for line in path.read_text().splitlines()]


def test_an_epoch_that_is_trained_again_takes_the_place_of_the_first(tmp_path: Path) -> None:
    noted = Journal(tmp_path / "journal")
    noted.begin("search", 0, {})
    noted.epoch(1, 1, {}, METRICS)
    noted.epoch(1, 1, {}, {**METRICS, "validation_accuracy": 70.0})
    assert Journal(tmp_path / "journal").trials[1].accuracy == 70


def test_of_equally_accurate_epochs_the_one_with_the_smaller_loss_is_best(tmp_path: Path) -> None:
    noted = Journal(tmp_path / "journal")
    noted.begin("search", 0, {})
    for epoch, loss in ((1, 0.9), (2, 0.4), (3, 0.4)):
        noted.epoch(1, epoch, {}, {**METRICS, "validation_loss": loss})
    assert noted.trials[1].best.epoch == 2


def test_on_a_full_disk_it_goes_on_and_writes_all_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "journal"
    noted = Journal(path)
    noted.begin("search", 0, {"training.lr": 0.1})
    with full_disk(path.stat().st_size + 20):
        noted.epoch(1, 1, {}, METRICS)
        noted.end(1, "completed")
    assert "could not be written" in caplog.text
    assert noted.trials[1].state == "completed"
    assert Journal(path).trials[1].epochs == {}
    noted.begin("search", 0, {})
    assert Journal(path).trials == noted.trials
