"""What Tune asks: the next setting, which trial goes on, and what was known before."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.tune.schedulers import PopulationBasedTraining
from searching import GOOD, SPACE, params, tried

from pipeline.runs import find
from pipeline.search.asking import Asker, configuration, scheduler_of
from pipeline.search.journal import Journal
from pipeline.search.space import space_of
from pipeline.search.trial import BEST, DIVERGED, EPOCH, FAILED, NUMBER

LATENCY = "latency_ms"


def asker(folder: Path, **search: Any) -> Asker:
    chosen = params(**search)
    journal = Journal(folder / "journal.jsonl")
    return Asker(chosen.search, space_of(chosen), 0, journal)


def values(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key in SPACE}


def test_settings_lie_in_the_space_and_are_the_same_for_a_seed(tmp_path: Path) -> None:
    first, configs, other = (
        [drawn.suggest(f"{number}") for number in range(20)]
        for drawn in (
            asker(tmp_path / "a", algorithm="random"),
            asker(tmp_path / "b", algorithm="random"),
            asker(tmp_path / "c", algorithm="random", seed=5),
        )
    )
    assert [*map(values, configs)] == [*map(values, first)]
    assert all(values(one) != values(two) for one, two in zip(configs[1:], other[1:], strict=True))
    for config in configs:
        assert 0.3 <= config["distillation.weight"] <= 1
        assert 0.003 <= config["training.lr"] <= 0.05
    assert {config["teacher"] for config in configs} == {
        GOOD,
        "assistant-cnn",
        "teacher-cnn:3+teacher-other:1",
    }
    assert [config["number"] for config in configs] == [*range(1, 21)]
    assert {config["seed"] for config in configs} == {0}


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_the_first_trial_is_the_default_as_far_as_the_space_holds_it(
    tmp_path: Path, algorithm: str
) -> None:
    drawn = asker(
        tmp_path,
        algorithm=algorithm,
        space={
            **SPACE,
            "distillation.temperature": {"log": [5, 8]},
            "width": {"choice": [0.5, 1]},
        },
    )
    config = drawn.suggest("0")
    default = find(params(), "student-cnn")
    assert default.distillation is not None
    assert config["teacher"] == GOOD
    assert config["width"] == 1
    assert config["training.lr"] == default.training.lr
    assert config["distillation.weight"] == default.distillation.weight
    assert 5 <= config["distillation.temperature"] <= 8, "drawn, for it is 2 by default"
    assert values(drawn.suggest("1")) != values(config)


@pytest.mark.parametrize("algorithm", ["random", "tpe"])
def test_a_search_that_goes_on_draws_nothing_twice(tmp_path: Path, algorithm: str) -> None:
    drawn = asker(tmp_path, algorithm=algorithm)
    first = [values(drawn.suggest(f"{number}")) for number in range(3)]
    for number in range(1, 4):
        drawn._journal.end(number, "failed")
    again = asker(tmp_path, algorithm=algorithm)
    assert all(values(again.suggest(f"{number}")) not in first for number in range(3))


def test_interrupted_trials_go_on_first_each_from_its_checkpoint(tmp_path: Path) -> None:
    drawn = asker(tmp_path)
    first = [drawn.suggest(f"{number}") for number in range(3)]
    metrics = {"validation_accuracy": 1.0, "validation_loss": 1.0, LATENCY: 1.0}
    for epoch in (1, 2):
        drawn._journal.epoch(3, epoch, values(first[2]), metrics)
        drawn._journal.checkpoint(3, epoch, f"/kept/{epoch}")
    drawn._journal.epoch(3, 3, values(first[2]), metrics)
    drawn._journal.end(1, "stopped")
    again = asker(tmp_path)
    second, third, fourth = (again.suggest(f"again-{number}") for number in range(3))
    assert (second["number"], second["resume"]) == (2, None)
    assert values(second) == values(first[1])
    assert (third["number"], third["resume"]) == (3, "/kept/2")
    assert values(third) == values(first[2])
    assert fourth["number"] == 4


def test_what_pbt_changed_goes_on_as_it_was_with_its_last_checkpoint(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    trial = journal.begin("search", 0, {"training.lr": 0.01})
    metrics = {"validation_accuracy": 1.0, "validation_loss": 1.0}
    for epoch, rate in ((1, 0.01), (2, 0.02), (3, 0.03)):
        journal.epoch(1, epoch, {"training.lr": rate}, metrics)
    journal.checkpoint(1, 2, "/kept")
    config = configuration(trial)
    assert (config["training.lr"], config["resume"]) == (0.02, "/kept")


def test_tpe_learns_from_the_trials_before(tmp_path: Path) -> None:
    """Where a small weight was always better, small weights are proposed."""
    rows = [
        ({"teacher": GOOD, "distillation.weight": 0.3 + n / 50, "training.lr": 0.01}, [90.0 - n])
        for n in range(30)
    ]
    means = {}
    for algorithm in ("tpe", "random"):
        weights = []
        for seed in range(8):
            folder = tmp_path / f"{algorithm}-{seed}"
            tried(folder, *rows)
            config = asker(folder, algorithm=algorithm, seed=seed).suggest("x")
            weights.append(config["distillation.weight"])
        means[algorithm] = sum(weights) / len(weights)
    assert means["tpe"] < 0.5 < 0.55 < means["random"]


def test_a_diverged_training_counts_as_worthless_and_another_failure_not_at_all(
    tmp_path: Path,
) -> None:
    drawn = asker(tmp_path)
    for name in ("diverged", "broken"):
        drawn.suggest(name)
        failed = {BEST: 0.0, FAILED: "why", DIVERGED: name == "diverged"}
        drawn.on_trial_complete(name, {**failed, EPOCH: 0})
    states = [(one.state.name, one.values) for one in drawn._ot_study.trials]
    assert states == [("COMPLETE", [0.0]), ("FAIL", None)]
    for number, diverged in ((1, True), (2, False)):
        drawn._journal.end(number, "failed", "why", diverged=diverged)
    again = asker(tmp_path)
    assert [one.values for one in again._ot_study.trials] == [[0.0]], "it is known after a kill"


def test_several_objectives_are_learnt_from_too(tmp_path: Path) -> None:
    rows = [
        ({"teacher": GOOD, "distillation.weight": 0.5, "training.lr": 0.01}, [80.0]),
        ({"teacher": GOOD, "distillation.weight": 0.6, "training.lr": 0.02}, [70.0, 90.0]),
    ]
    tried(tmp_path, *rows)
    both = asker(tmp_path, objectives=["accuracy", "latency"])
    assert [one.values for one in both._ot_study.trials] == [[80.0, 1.0], [90.0, 1.1]]
    both.suggest("x")
    both.on_trial_complete("x", {BEST: 70.0, LATENCY: 2.0})
    assert both._ot_study.trials[-1].values == [70.0, 2.0]


def report(
    scheduler: Any, trial: str | int, epoch: int, accuracy: float, latency: float = 1.0
) -> str:
    told = {EPOCH: epoch, BEST: accuracy, LATENCY: latency}
    named = SimpleNamespace(trial_id=f"Tune's {trial}", config={NUMBER: trial})
    return str(scheduler.on_trial_result(None, named, told))


def test_asha_ends_what_lags_behind_also_behind_trials_of_before(tmp_path: Path) -> None:
    chosen = params(reduction=2).search
    fresh = scheduler_of(chosen, chosen.space, 8, [])
    assert report(fresh, "a", 1, 50.0) == "CONTINUE"
    assert report(fresh, "b", 1, 40.0) == "STOP"
    assert report(fresh, "c", 1, 60.0) == "CONTINUE"
    past = tried(tmp_path, ({}, [50.0]))
    going_on = scheduler_of(chosen, chosen.space, 8, past)
    assert report(going_on, "b", 1, 40.0) == "STOP"


def test_asha_counts_a_trial_that_goes_on_once(tmp_path: Path) -> None:
    chosen = params(reduction=2).search
    journal = Journal(tmp_path / "journal")
    trial = journal.begin("search", 0, {})
    metrics = {"validation_accuracy": 50.0, "validation_loss": 1.0, LATENCY: 1.0}
    journal.epoch(trial.number, 1, {}, metrics)
    going_on = scheduler_of(chosen, chosen.space, 8, journal.of("search"))
    assert report(going_on, 2, 1, 60.0) == "CONTINUE"
    assert report(going_on, trial.number, 1, 70.0) == "CONTINUE"
    # Twice among those compared it would have raised what a trial must reach.
    assert report(going_on, 3, 1, 56.0) == "CONTINUE"


def test_asha_compares_networks_of_one_latency_where_both_are_sought() -> None:
    chosen = params(reduction=2, objectives=["accuracy", "latency"]).search
    scheduler = scheduler_of(chosen, chosen.space, 8, [])
    assert report(scheduler, "large", 1, 80.0, latency=2.0) == "CONTINUE"
    assert report(scheduler, "small", 1, 40.0, latency=0.5) == "CONTINUE"
    assert report(scheduler, "small too", 1, 30.0, latency=0.52) == "STOP"
    assert report(scheduler, "large too", 1, 60.0, latency=1.9) == "STOP"


def test_a_failed_trial_ends_by_itself() -> None:
    chosen = params().search
    scheduler = scheduler_of(chosen, chosen.space, 8, [])
    told = {EPOCH: 0, BEST: 0.0, FAILED: "why"}
    assert scheduler.on_trial_result(None, SimpleNamespace(trial_id="x"), told) == "CONTINUE"


def test_pbt_stays_in_the_space_and_leaves_shapes_alone() -> None:
    chosen = params(
        scheduler="pbt",
        algorithm="random",
        space={**SPACE, "width": {"choice": [1, 2]}, "distillation.alpha": {"uniform": [0.5, 1]}},
    ).search
    scheduler = scheduler_of(chosen, chosen.space, 8, [])
    assert isinstance(scheduler, PopulationBasedTraining)
    config = {"teacher": GOOD, "distillation.weight": 0.99, "training.lr": 0.0031, "width": 2}
    config["distillation.alpha"] = 0.5
    for number in range(50):
        new, _ = scheduler._get_new_config(None, SimpleNamespace(config=dict(config)))
        assert 0.3 <= new["distillation.weight"] <= 1, number
        assert 0.003 <= new["training.lr"] <= 0.05
        assert 0.5 <= new["distillation.alpha"] <= 1
        assert new["width"] == 2
