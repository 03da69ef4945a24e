"""What Ray Tune asks during a search: which setting is next, and which trial goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Final

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import StudyDirection
from ray import tune
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search.optuna import OptunaSearch

from pipeline.search.journal import ACCURACY, LATENCY, Journal, Tried
from pipeline.search.settings import FIXED_IN_PBT, Dimension, Search, Value
from pipeline.search.space import Space
from pipeline.search.trial import BEST, DIVERGED, EPOCH, FAILED, JUDGED, NUMBER, RESUME, SEED
from pipeline.train.storage import for_ray

METRICS: Final = {"accuracy": (BEST, "max"), "latency": (LATENCY, "min")}
_STUDY: Final = "search"
_DIRECTIONS: Final = (StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE)
_STARTUP: Final = 10
"""Settings that are drawn at random before TPE learns from them, at most."""


def distribution(dimension: Dimension) -> BaseDistribution:
    """A setting's values as Optuna takes them."""
    if dimension.choice is not None:
        return CategoricalDistribution(dimension.labels)
    if dimension.integer is not None:
        return IntDistribution(*dimension.integer)
    assert dimension.bounds is not None
    return FloatDistribution(*dimension.bounds, log=dimension.log is not None)


def studied(
    search: Search, space: Mapping[str, Dimension], trials: Sequence[Tried], storage: Any = None
) -> optuna.Study:
    """What Optuna knows of trials that have ended; one that diverged learnt nothing."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=storage,
        study_name=_STUDY,
        directions=_DIRECTIONS[: len(search.objectives)],
    )
    distributions = {key: distribution(one) for key, one in space.items()}
    slowest = max((one.best.metrics[LATENCY] for one in trials if one.epochs), default=math.inf)
    for trial in trials:
        if trial.judged or trial.diverged:
            both = [trial.accuracy, trial.best.metrics[LATENCY]] if trial.judged else [0.0, slowest]
            study.add_trial(
                optuna.trial.create_trial(
                    params=trial.best.values if trial.epochs else trial.values,
                    distributions=distributions,
                    values=both[: len(search.objectives)],
                )
            )
    return study


class Asker(OptunaSearch):  # type: ignore[misc]
    """Proposes settings, and gives each trial its number.

    A search begins with the default, as far as the space holds it; one that goes on, with the
    trials that were interrupted.

    Args:
        search: the parameters.
        space: of the settings.
        seed: every trial's.
        journal: of the search so far.
    """

    def __init__(self, search: Search, space: Space, seed: int, journal: Journal) -> None:
        self._seed_of_trials, self._journal = seed, journal
        known = journal.of("search")
        self._interrupted = [trial for trial in known if trial.state == "running"]
        storage = optuna.storages.InMemoryStorage()
        ended = [trial for trial in known if trial.state != "running"]
        study = studied(search, space.dimensions, ended, storage)
        for setting in [*map(_now, self._interrupted)] if known else [space.of_default()]:
            study.enqueue_trial(setting)
        # What was drawn before is not drawn again.
        drawn = search.seed + len(known)
        startup = min(_STARTUP, max(4, search.trials // 4))
        sampler = (
            optuna.samplers.RandomSampler(seed=drawn)
            if search.algorithm == "random"
            else optuna.samplers.TPESampler(
                seed=drawn, n_startup_trials=startup, constant_liar=True
            )
        )
        metrics = [METRICS[name] for name in search.objectives]
        several = len(metrics) > 1
        super().__init__(
            {key: distribution(one) for key, one in space.dimensions.items()},
            metric=[name for name, _ in metrics] if several else metrics[0][0],
            mode=[mode for _, mode in metrics] if several else metrics[0][1],
            sampler=sampler,
            study_name=_STUDY,
            storage=storage,
        )

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """See Tune: the configuration of a trial."""
        values = super().suggest(trial_id)
        if self._interrupted:
            trial = self._interrupted.pop(0)
        else:
            trial = self._journal.begin("search", self._seed_of_trials, values)
        return configuration(trial)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """See Tune: a training that diverged counts as one that learnt nothing."""
        if result and FAILED in result and not result[DIVERGED]:
            result, error = None, True
        super().on_trial_complete(trial_id, result, error)


def listed(configurations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A space for Tune that holds just these configurations; what one lacks it has as None."""
    by_number = {one[NUMBER]: one for one in configurations}
    keys = {key for one in configurations for key in one} - {NUMBER}
    return {
        NUMBER: tune.grid_search([*by_number]),
        **{
            key: tune.sample_from(lambda spec, key=key: by_number[spec.config.number].get(key))
            for key in sorted(keys)
        },
    }


def configuration(trial: Tried) -> dict[str, Any]:
    """What Tune hands to a trial, which goes on from its last checkpoint."""
    kept = [epoch.checkpoint for epoch in trial.epochs.values() if epoch.checkpoint]
    return {
        **_now(trial),
        NUMBER: trial.number,
        SEED: trial.seed,
        RESUME: for_ray(kept[-1]) if kept else None,
        JUDGED: trial.role != "search",
    }


def _now(trial: Tried) -> dict[str, Value]:
    """The setting that a trial goes on with."""
    kept = [epoch.values for epoch in trial.epochs.values() if epoch.checkpoint]
    return kept[-1] if kept else trial.values


def scheduler_of(
    search: Search, space: Mapping[str, Dimension], epochs: int, past: Sequence[Tried]
) -> TrialScheduler:
    """What decides which trial goes on; it is told of the trials before.

    Args:
        search: the parameters.
        space: settings by name.
        epochs: of a whole training.
        past: the trials of this search so far.
    """
    if search.scheduler == "pbt":
        return PopulationBasedTraining(
            time_attr=EPOCH,
            metric=ACCURACY,
            mode="max",
            perturbation_interval=search.grace,
            hyperparam_mutations={
                key: _mutation(one) for key, one in space.items() if key not in FIXED_IN_PBT
            },
            custom_explore_fn=lambda config: _within(config, space),
            log_config=False,
        )
    if search.scheduler == "none":
        return FIFOScheduler()
    scheduler = AshaByLatency(search, epochs)
    for trial in past:
        before = SimpleNamespace(config={NUMBER: trial.number})
        best = 0.0
        for epoch in trial.epochs.values():
            best = max(best, epoch.metrics[ACCURACY])
            told = {**epoch.metrics, EPOCH: epoch.epoch, BEST: best}
            scheduler.on_trial_result(None, before, told)
    return scheduler


class AshaByLatency(FIFOScheduler):  # type: ignore[misc]
    """ASHA; where a short latency is sought too, among networks of about the same latency.

    By accuracy alone what is fast would be ended first.

    Args:
        search: the parameters.
        epochs: of a whole training.
    """

    def __init__(self, search: Search, epochs: int) -> None:
        super().__init__()
        self._search, self._epochs = search, epochs
        self._classes: dict[int, AsyncHyperBandScheduler] = {}
        self._class_of: dict[int, AsyncHyperBandScheduler] = {}

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """See Tune: whether it goes on."""
        if FAILED in result:
            return str(TrialScheduler.CONTINUE)
        # Tune gives a trial that goes on another name, by which it would be two to compare with.
        same = SimpleNamespace(trial_id=trial.config[NUMBER])
        if same.trial_id not in self._class_of:
            # A class is as wide as a factor of 1.4.
            latency = result[LATENCY] if len(self._search.objectives) > 1 else 1.0
            among = self._classes.setdefault(round(2 * math.log2(latency)), self._asha())
            among.on_trial_add(tune_controller, same)
            self._class_of[same.trial_id] = among
        among = self._class_of[same.trial_id]
        return str(among.on_trial_result(tune_controller, same, result))

    def _asha(self) -> AsyncHyperBandScheduler:
        return AsyncHyperBandScheduler(
            time_attr=EPOCH,
            metric=BEST,
            mode="max",
            max_t=self._epochs,
            grace_period=min(self._search.grace, self._epochs),
            reduction_factor=self._search.reduction,
        )


def _mutation(dimension: Dimension) -> Any:
    if dimension.choice is not None:
        return list(dimension.labels)
    if dimension.integer is not None:
        return tune.randint(dimension.integer[0], dimension.integer[1] + 1)
    assert dimension.bounds is not None
    return (tune.loguniform if dimension.log else tune.uniform)(*dimension.bounds)


def _within(config: dict[str, Any], space: Mapping[str, Dimension]) -> dict[str, Any]:
    """Takes what pbt multiplied beyond a range back to its end."""
    for key, dimension in space.items():
        if dimension.bounds is not None and key not in FIXED_IN_PBT:
            low, high = dimension.bounds
            config[key] = min(high, max(low, config[key]))
    return config
