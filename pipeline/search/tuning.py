"""Trials on Ray Tune: as many at once as the cluster has room for, each event noted."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ray import tune
from ray.tune.schedulers import PopulationBasedTraining, TrialScheduler
from ray.tune.search import Searcher

from pipeline.compute import Compute
from pipeline.errors import UsageError
from pipeline.search.journal import ACCURACY, LATENCY, Journal, State, model_name
from pipeline.search.trial import (
    DIVERGED,
    ENDED,
    EPOCH,
    FAILED,
    NUMBER,
    TEST,
    Work,
    setting_of,
    train_trial,
)
from pipeline.search.zoo import Zoo
from pipeline.train import ray_cluster
from pipeline.train.checkpoint import Checkpoint
from pipeline.train.history import EpochRow
from pipeline.train.placement import room_for
from pipeline.train.storage import for_ray, remove_job

log = logging.getLogger(__name__)

_ENVIRONMENT: Final = {
    # The journal says all that Tune's own files would, and is no pickle.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    # An interrupt ends the command as any other: the same command goes on.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    # The other kind prints a box whatever it is told.
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
}
_METRICS: Final = (*EpochRow.__dataclass_fields__, "parameters", "macs", LATENCY, TEST)
ROW: Final = "%-11s %-14s %8s %8s  %s"
"""The live table: trial, what it did, its accuracy and the best of all so far, its setting."""


def share_of(compute: Compute, machines: list[dict[str, float]]) -> dict[str, float]:
    """What a trial takes of its machine: beside a core a part of a GPU, where Ray has some."""
    gpu = compute.gpu is not False and any(machine.get("GPU", 0) for machine in machines)
    return {"CPU": compute.trial_cpus, **({"GPU": compute.trial_gpus} if gpu else {})}


def trials_at_once(compute: Compute) -> int:
    """How many trials the cluster has room for. One holds all it needs, so none waits for another.

    Raises:
        UsageError: there is no room for one, which would be waited for without an end.
    """
    ray_cluster.connect()
    machines = ray_cluster.machines()
    share = share_of(compute, machines)
    room = room_for(share, machines)
    if not room:
        takes = " and ".join(f"{amount:g} {kind}" for kind, amount in share.items())
        raise UsageError(
            f"a trial takes {takes}, which no machine of Ray's has: set DISTILL_TRIAL_CPUS or "
            "DISTILL_TRIAL_GPUS to less"
        )
    return room


def remove_checkpoints(storage: str, search: str, trial: str = "") -> None:
    """Removes what is left of a search's trainings, or of one trial's; a failure is a warning."""
    address, mark, query = storage.partition("?")
    top, name = (f"{address}/{search}{mark}{query}", trial) if trial else (storage, search)
    try:
        remove_job(top, name)
    except OSError as error:
        log.warning("the checkpoints of %s could not be removed: %s", trial or search, error)


class Tuning:
    """Runs trials, and takes note of what comes of them.

    Args:
        work: what every trial is told.
        compute: what a trial takes, and how often one goes on whose process died.
        name: of the search, which its checkpoints lie under.
        journal: where notes go.
        zoo: where models go.
    """

    def __init__(self, work: Work, compute: Compute, name: str, journal: Journal, zoo: Zoo) -> None:
        self._work, self._compute, self._name = work, compute, name
        self._journal, self._zoo = journal, zoo

    def run(
        self,
        trials: int = 1,
        *,
        searcher: Searcher | None = None,
        space: dict[str, Any] | None = None,
        scheduler: TrialScheduler | None = None,
        at_once: int | None = None,
        seconds: float | None = None,
    ) -> None:
        """Lets trials run to their end.

        Args:
            trials: how many; with a ``space`` that lists them, one.
            searcher: says what each is; or None, with a space.
            space: see :func:`pipeline.search.asking.listed`.
            scheduler: ends some before.
            at_once: at most; None leaves it to what Ray has room for.
            seconds: after which all are ended.
        """
        os.environ.update(_ENVIRONMENT)
        for noisy in ("ray.tune", "ray.train"):
            logging.getLogger(noisy).setLevel(logging.CRITICAL)
        share = share_of(self._compute, ray_cluster.machines())
        trainable = tune.with_parameters(train_trial, work=self._work.model_dump_json())
        note = _Note(self._work, self._compute, self._name, self._journal, self._zoo)
        # A member of a population may go on with what another one kept, long after that has ended.
        note.keeps = isinstance(scheduler, PopulationBasedTraining)
        tune.Tuner(
            tune.with_resources(trainable, {kind.lower(): of for kind, of in share.items()}),
            param_space=space,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=scheduler,
                num_samples=trials,
                max_concurrent_trials=at_once,
                time_budget_s=seconds,
                # A process takes seconds to start: it trains one trial after another.
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name=self._name,
                storage_path=for_ray(self._compute.absolute_storage),
                # Otherwise pbt would let a trial go on beyond its last epoch.
                stop={EPOCH: self._work.space.default.training.epochs} if scheduler else None,
                failure_config=tune.FailureConfig(max_failures=self._compute.failures),
                checkpoint_config=tune.CheckpointConfig(num_to_keep=2),
                callbacks=[note],
                verbose=0,
            ),
        ).fit()


class _Note(tune.Callback):  # type: ignore[misc]
    """Notes what Tune tells of trials, and logs a row of the live table for each epoch and end."""

    keeps = False

    def __init__(self, work: Work, compute: Compute, name: str, journal: Journal, zoo: Zoo) -> None:
        self._work, self._compute, self._name = work, compute, name
        self._journal, self._zoo = journal, zoo
        self._numbers: dict[str, int] = {}
        self._epochs = work.space.default.training.epochs

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See Tune; pbt gives a trial the number of another one with its configuration."""
        self._numbers.setdefault(trial.trial_id, trial.config[NUMBER])

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """See Tune."""
        if FAILED in result:
            return
        # What stands in the trial itself may have been changed since, by pbt.
        values = setting_of(result["config"])
        metrics = {name: result[name] for name in _METRICS if name in result}
        number = self._numbers[trial.trial_id]
        self._journal.epoch(number, result[EPOCH], values, metrics)
        if ENDED not in result:
            self._show(number, f"epoch {result[EPOCH]} of {self._epochs}", values)

    def on_checkpoint(
        self, iteration: int, trials: list[Any], trial: Any, checkpoint: Any, **info: Any
    ) -> None:
        """See Tune: a checkpoint lies in its storage now."""
        number, epoch = self._numbers[trial.trial_id], trial.last_result[EPOCH]
        remote = self._compute.remote_storage
        address = f"s3://{checkpoint.path}" if remote else checkpoint.path
        self._journal.checkpoint(number, epoch, address)
        tried = self._journal.trials[number]
        noted = tried.epochs[epoch]
        if self._zoo.wants(noted.metrics[ACCURACY]):
            run = self._work.space.run(noted.values, f"trial-{number}", tried.seed)
            with checkpoint.as_directory() as folder:
                self._zoo.put(model_name(number, epoch), run, Checkpoint.load(Path(folder)))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See Tune: its process died, and another one takes its place."""
        log.warning(
            "the process of trial %d died: it goes on from its last epoch",
            self._numbers[trial.trial_id],
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See Tune: it ended by itself, or was ended."""
        result = trial.last_result or {}
        whole = ENDED in result or result.get(EPOCH, 0) >= self._epochs
        if FAILED in result:
            self._end(trial, "failed", result[FAILED], diverged=result[DIVERGED])
        else:
            self._end(trial, "completed" if whole else "stopped")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """See Tune: its process died more often than it may."""
        said = " ".join(str(trial.get_error() or "").split())
        self._end(trial, "failed", f"its process died too often: {said[-300:]}")

    def _end(self, trial: Any, state: State, error: str = "", *, diverged: bool = False) -> None:
        number = self._numbers[trial.trial_id]
        self._journal.end(number, state, error, diverged=diverged)
        if state == "failed" or not self.keeps:
            # Also what a checkpoint that found no room has left there.
            remove_checkpoints(self._compute.absolute_storage, self._name, trial.trial_id)
        self._show(number, state, {"error": error} if error else {})

    def _show(self, number: int, what: str, values: Mapping[str, Any]) -> None:
        tried = self._journal.trials[number]
        found = [one.accuracy for one in self._journal.of("search") if one.judged]
        now = f"{[*tried.epochs.values()][-1].metrics[ACCURACY]:.2f}" if tried.epochs else ""
        best = f"{max(found):.2f}" if found else ""
        said = "  ".join(
            f"{key.rpartition('.')[2]} {value:.3g}"
            if isinstance(value, float)
            else f"{key.rpartition('.')[2]} {value}"
            for key, value in values.items()
        )
        log.info(ROW, f"{tried.role} {number}", what, now, best, said)
