"""The search as a command, on a real Ray: what it leaves, and that no fault or kill ends it."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import run, start, wait_until
from pyarrow import parquet
from searching import ASSISTANT, EPOCHS, GOOD, OTHER, journal, project

from pipeline.models.folder import load_model

FAULTY: dict[str, Any] = {
    "trials": 9,
    "algorithm": "random",
    "scheduler": "none",
    # The first four trials: good, damaged, diverging, hanging. None is the default.
    "seed": 33,
    # More than an epoch takes on a busy machine, with a process's first work before it.
    "epoch_seconds": 15,
    "space": {
        "teacher": {"choice": [GOOD, {GOOD: 2}, {GOOD: 3}, OTHER, ASSISTANT]},
        "training.lr": {"choice": [0.02, 0.03, 1e30]},
        "distillation.weight": {"uniform": [0.3, 1]},
    },
}
"""Whoever learns from OTHER meets a damaged file, and from ASSISTANT one that is never there."""


def ends(folder: Path) -> list[dict[str, Any]]:
    return [event for event in journal(folder) if "state" in event]


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose search met faults, and was killed once."""
    folder = project(tmp_path_factory.mktemp("search") / "project", **FAULTY)
    damaged = folder / "targets" / OTHER / "train-000002.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    # Who opens it waits for somebody to write.
    waiting = folder / "targets" / ASSISTANT / "train-000000.safetensors"
    waiting.unlink()
    os.mkfifo(waiting)
    process = start(folder, "search")
    try:
        wait_until(lambda: len(ends(folder)) >= 3, process)
    finally:
        process.kill()
        process.wait()
    (folder / "before.json").write_text(json.dumps(journal(folder)))
    done = run(folder, "search", "--json")
    (folder / "said.txt").write_text(done.stderr)
    assert done.returncode == 0, done.stderr
    (folder / "found.json").write_text(done.stdout)
    return folder


@pytest.mark.slow
def test_what_ended_before_a_kill_is_not_run_again(searched: Path) -> None:
    before = json.loads((searched / "before.json").read_text())
    ended = {event["trial"] for event in before if "state" in event}
    assert len(ended) >= 3
    after = journal(searched)[len(before) :]
    assert not ended & {event["trial"] for event in after}
    begun = [event["trial"] for event in journal(searched) if "role" in event]
    assert begun == [*range(1, FAULTY["trials"] + 5)]
    epochs = Counter(
        (event["trial"], event["epoch"]) for event in journal(searched) if "metrics" in event
    )
    trials = {event["trial"] for event in before if "role" in event}
    for trial in trials - ended:
        kept = {e["epoch"] for e in before if e["trial"] == trial and "checkpoint" in e}
        assert all(epochs[trial, epoch] == 1 for epoch in kept), "it went on from its checkpoint"


@pytest.mark.slow
def test_trials_that_fail_are_recorded_and_the_others_go_on(searched: Path) -> None:
    rows = parquet.read_table(searched / "search/trials.parquet").to_pylist()
    assert {row["trial"] for row in rows if row["role"] == "search"} == {*range(1, 10)}
    kinds: Counter[str] = Counter()
    for row in (row for row in rows if row["role"] == "search"):
        if row["teacher"] == ASSISTANT:
            kinds["hangs"] += 1
            assert row["state"] == "failed"
            assert "longer than search.epoch_seconds (15 s), at File" in row["error"]
            assert "store.py" in row["error"] or "pathlib" in row["error"]
        elif row["teacher"] == OTHER:
            kinds["raises"] += 1
            assert row["state"] == "failed"
            assert "DataError: " in row["error"]
            assert "train-000002.safetensors does not match its checksum" in row["error"]
        elif row["training.lr"] > 1:
            kinds["diverges"] += 1
            assert row["state"] == "failed"
            assert "TrainingError: " in row["error"]
            assert "lower training.lr" in row["error"]
        else:
            kinds["learns"] += 1
            assert (row["state"], row["error"]) == ("completed", None)
    assert min(kinds[kind] for kind in ("hangs", "raises", "diverges")) >= 1
    assert kinds["learns"] >= 2 * EPOCHS


@pytest.mark.slow
def test_a_row_holds_trial_epoch_seed_setting_metrics_and_checkpoint(searched: Path) -> None:
    rows = parquet.read_table(searched / "search/trials.parquet").to_pylist()
    learnt = [row for row in rows if row["state"] == "completed"]
    assert Counter((row["trial"], row["epoch"]) for row in learnt).most_common(1)[0][1] == 1
    assert {row["epoch"] for row in learnt} == {*range(1, EPOCHS + 1)}
    assert {row["seed"] for row in learnt if row["role"] == "search"} == {0}
    for role in ("best", "default"):
        assert {row["seed"] for row in learnt if row["role"] == role} == {1, 2}
    for row in learnt:
        assert 0 <= row["validation_accuracy"] <= 100
        assert row["latency_ms"] > 0
        assert row["images"] == 48
    kept = [row for row in learnt if row["checkpoint"]]
    assert len(kept) == 5, "as search.keep says"
    worst = min(row["validation_accuracy"] for row in kept)
    left_out = [row["validation_accuracy"] for row in learnt if not row["checkpoint"]]
    assert max(left_out) <= worst
    for row in kept:
        _, info = load_model(searched / "search" / row["checkpoint"])
        assert info.metrics["validation_accuracy"] == row["validation_accuracy"]
        assert info.metrics["best_epoch"] == row["epoch"]
        assert info.parameters["seed"] == row["seed"]
        history = (searched / "search" / row["checkpoint"] / "history.csv").read_text()
        assert len(history.splitlines()) == row["epoch"] + 1
    assert len([*(searched / "search/zoo").iterdir()]) == 5


@pytest.mark.slow
def test_the_best_is_chosen_on_validation_and_trained_again_beside_the_default(
    searched: Path,
) -> None:
    best = yaml.safe_load((searched / "search/best.yaml").read_text())
    assert best == json.loads((searched / "found.json").read_text())
    rows = parquet.read_table(searched / "search/trials.parquet").to_pylist()
    good = [row for row in rows if row["role"] == "search" and row["state"] == "completed"]
    assert best["found"]["validation_accuracy"] == max(row["validation_accuracy"] for row in good)
    (row,) = [
        row
        for row in good
        if (row["trial"], row["epoch"]) == (best["found"]["trial"], best["found"]["epoch"])
    ]
    assert {key: row[key] for key in best["settings"]} == best["settings"]
    assert best["teachers"] == {GOOD: 1.0}
    compared = best["comparison"]
    assert compared["seeds"] == [1, 2]
    ours, theirs = compared["best"]["test_accuracy"], compared["default"]["test_accuracy"]
    assert compared["difference"] == pytest.approx((sum(ours) - sum(theirs)) / 2)
    assert compared["low"] <= compared["difference"] <= compared["high"]
    assert best["verdict"].startswith("The search was ")
    for row in (row for row in rows if row["role"] == "default"):
        assert (row["teacher"], row["distillation.weight"]) == (GOOD, 0.9)
        assert row["training.lr"] is None, "the space does not hold it"
    again = [row for row in rows if row["role"] == "best"]
    assert {row["training.lr"] for row in again} == {best["settings"]["training.lr"]}


@pytest.mark.slow
def test_the_table_on_the_way_has_a_row_for_every_epoch_and_end(searched: Path) -> None:
    said = (searched / "said.txt").read_text()
    assert "6 trials, 2 at once, after 3 that have ended" in said
    assert "trial                      accuracy     best  setting" in said
    last = [line for line in said.splitlines() if f"epoch {EPOCHS} of {EPOCHS}" in line]
    assert len(last) >= 4
    assert "failed" in said
    assert re.search(r"the process of trial \d+ died: it goes on", said)
    assert "Traceback" not in said
    page = (searched / "search/index.html").read_text()
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.slow
def test_a_search_that_has_ended_is_not_run_again(searched: Path) -> None:
    before, page = journal(searched), (searched / "search/index.html").read_text()
    done = run(searched, "search")
    assert done.returncode == 0, done.stderr
    assert journal(searched) == before
    assert (searched / "search/index.html").read_text() == page
    assert "epoch" not in done.stderr


@pytest.mark.slow
def test_where_no_trial_beats_the_default_there_is_nothing_to_compare(tmp_path: Path) -> None:
    folder = project(tmp_path / "project", trials=1)
    done = run(folder, "search", "--json")
    assert done.returncode == 0, done.stderr
    best = json.loads(done.stdout)
    assert best["settings"] == {"teacher": GOOD, "distillation.weight": 0.9, "training.lr": 0.01}
    assert best["comparison"] is None
    assert best["verdict"].startswith("The search was not worth it: no trial read better")
    rows = parquet.read_table(folder / "search/trials.parquet").to_pylist()
    assert {row["role"] for row in rows} == {"search"}
