"""The search: stored targets, trials, the best setting with new seeds, and what is left of it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pipeline.compute import Compute
from pipeline.data.shards import read_index
from pipeline.distill.target_index import TARGETS, origin_of, read_target_index
from pipeline.errors import DataError, TrainingError
from pipeline.files import sha256
from pipeline.lock import hold
from pipeline.models.folder import WEIGHTS_FILE
from pipeline.params import Params
from pipeline.runs import Run
from pipeline.search.asking import Asker, configuration, listed, scheduler_of
from pipeline.search.best import Best, found, front
from pipeline.search.compare import compare, verdict
from pipeline.search.journal import Journal, Role, Tried
from pipeline.search.settings import AUGMENTATION, Value
from pipeline.search.space import space_of
from pipeline.search.trial import Work, targets_of
from pipeline.search.tuning import ROW, Tuning, remove_checkpoints, trials_at_once
from pipeline.search.zoo import Zoo
from pipeline.train.fingerprint import code_version
from pipeline.train.job import Job
from pipeline.train.run import MODELS, SHARDS, streaming_of, with_absolute_weights
from pipeline.train.targets import see_to_targets

log = logging.getLogger(__name__)

_SOURCES: Final = (
    *sorted(Path(__file__).parent.glob("*.py")),
    *(Path(__file__).parents[1] / name for name in ("cost.py", "inference.py")),
)
"""The code that decides what is tried and how it is judged, beside that of a training."""
_BUDGET: Final = {"used", "trials", "hours", "seeds", "keep", "epoch_seconds", "settings"}
"""What may change while a search stays the same one, which then goes on."""


class Searching:
    """A search of the space of params.yaml, from its last note on.

    Args:
        params: the space, the budget and the default run.
        compute: where to train.
        shards: the folder of shards.
        models: the folder of model folders.
        targets: the folder of stored targets.

    Attributes:
        zoo: the folder of models.

    Raises:
        UsageError: the space is refused, or another process is at this search.
        DataError: the shards or a teacher are missing or damaged.
    """

    def __init__(
        self,
        params: Params,
        compute: Compute,
        *,
        shards: Path = SHARDS,
        models: Path = MODELS,
        targets: Path = TARGETS,
    ) -> None:
        self._params, self._compute = params, compute
        self._shards, self._models, self._targets = shards, models, targets
        self._space = space_of(params)
        streaming = streaming_of(params.data.rev, compute, shards) if compute.stream else None
        self._index = streaming.revision.index if streaming else read_index(shards)
        default = self._space.default.model_copy(
            update={"network": with_absolute_weights(self._space.default).network}
        )
        self._space = self._space.model_copy(update={"default": default})
        self._job = Job(
            run=default,
            shards=shards.resolve(),
            models=models.resolve(),
            targets=targets.resolve(),
            checkpoint_steps=0,
            # A trial makes its views itself: with others beside it there is no core to spare.
            loaders=0,
            threads=max(1, int(compute.trial_cpus)),
            streaming=streaming,
        )
        self._name = f"search-{self._fingerprint()}"
        self._kept = compute.local_storage / f"{self._name}-kept"
        self._lock = hold(self._kept / "lock", "this search")
        self._journal = Journal(self._kept / "journal.jsonl")
        self.zoo = self._kept / "zoo"
        self._roots: dict[str, Path] = {}

    @property
    def trials(self) -> list[Tried]:
        """All trials so far, those with new seeds among them."""
        return [*self._journal.trials.values()]

    @property
    def of_default(self) -> dict[str, Value]:
        """The default's own setting, as far as the space holds it."""
        return self._space.of_default()

    def explore(self) -> None:
        """Tries settings until the budget is spent.

        Raises:
            UsageError: Ray has no room for a trial.
            DataError: stored targets are missing or damaged.
        """
        search = self._params.search
        known = self._journal.of("search")
        left = search.trials - len([one for one in known if one.state != "running"])
        if left > 0 and self._time_left() != 0:
            self._explore(left, known)
        # What the end of the budget found at work.
        for one in self._journal.of("search"):
            if one.state == "running":
                self._journal.end(one.number, "stopped")

    def _explore(self, left: int, known: list[Tried]) -> None:
        search, seed = self._params.search, self._params.seed
        at_once = min(left, trials_at_once(self._compute))
        self._see_to_targets((seed, *pair) for pair in self._space.asked())
        going_on = len([one for one in known if one.state == "running"])
        log.info(
            "%d trials, %d at once, after %d that have ended; %d of these go on where they were",
            *(left, at_once, search.trials - left, going_on),
        )
        log.info(ROW, "trial", "", "accuracy", "best", "setting")
        dimensions = self._space.dimensions
        asker = Asker(search, self._space, seed, self._journal)
        epochs = self._space.default.training.epochs
        scheduler = scheduler_of(search, dimensions, epochs, known)
        seconds = self._time_left()
        if seconds == 0:
            # To Tune it would be no limit. The targets took the time.
            return
        if search.scheduler == "pbt":
            # A population is all there at once: its members take turns.
            space = listed([asker.suggest(str(member)) for member in range(left)])
            self._tuning().run(space=space, scheduler=scheduler, seconds=seconds)
        else:
            self._tuning().run(
                left, searcher=asker, scheduler=scheduler, at_once=at_once, seconds=seconds
            )

    def _time_left(self) -> float | None:
        """Seconds of the budget that are left; None where it has none."""
        hours = self._params.search.hours
        return None if hours is None else max(0.0, 3600 * hours - self._journal.spent)

    def best(self) -> Tried:
        """The trial with the best validation accuracy.

        Raises:
            TrainingError: there is none.
        """
        tried = self._journal.of("search")
        judged = [trial for trial in tried if trial.judged]
        if not judged:
            why = next((f"; the first one: {one.error}" for one in tried if one.error), "")
            raise TrainingError(f"no trial of the search came to an accuracy{why}")
        if len(self._params.search.objectives) > 1:
            # Of equally accurate ones the fastest.
            return front(judged)[-1]
        return max(judged, key=lambda one: (one.accuracy, -one.best.metrics["validation_loss"]))

    def repeat(self, best: Tried) -> None:
        """Trains the best setting and the default with new seeds, each to its end.

        Where they are the same there is nothing to compare.
        """
        values = best.best.values
        if self._space.is_default(values):
            return
        both: tuple[tuple[Role, dict[str, Value]], ...] = (("best", values), ("default", {}))
        seeds = self._params.search.seeds
        wanted = [(role, seed, setting) for seed in seeds for role, setting in both]
        known = {
            (one.role, one.seed, tuple(one.values.items())): one
            for one in self.trials
            if one.state != "failed"
        }
        trials = [
            known.get((role, seed, tuple(setting.items())))
            or self._journal.begin(role, seed, setting)
            for role, seed, setting in wanted
        ]
        left = [one for one in trials if one.state == "running"]
        if not left:
            return
        at_once = min(len(left), trials_at_once(self._compute))
        for one in left:
            run = self._run(one)
            factor = float(one.values.get(AUGMENTATION, 1))
            self._see_to_targets((one.seed, factor, teacher) for teacher in run.teachers)
        log.info("the best setting and the default are trained with new seeds, %d at once", at_once)
        self._tuning().run(space=listed([*map(configuration, left)]), at_once=at_once)

    def result(self, best: Tried) -> Best:
        """What the search came to; the checkpoints of its trials are removed."""
        search = self._params.search
        remove_checkpoints(self._compute.absolute_storage, self._name)
        values = best.best.values
        repeated = [one for one in self._journal.of("best") if one.values == values]
        seeds = set(search.seeds)
        comparison = compare(
            *(
                [one for one in side if one.seed in seeds]
                for side in (repeated, self._journal.of("default"))
            )
        )
        judged = [trial for trial in self._journal.of("search") if trial.judged]
        is_default = self._space.is_default(values)
        return Best(
            settings=values,
            teachers=self._run(best).teachers,
            found=found(best),
            front=tuple(map(found, front(judged))) if len(search.objectives) > 1 else (),
            comparison=comparison,
            verdict=verdict(comparison, is_default=is_default),
        )

    def _run(self, trial: Tried) -> Run:
        values = trial.best.values if trial.epochs else trial.values
        return self._space.run(values, f"trial-{trial.number}", trial.seed)

    def _tuning(self) -> Tuning:
        work = Work(
            space=self._space,
            job=self._job,
            targets=self._roots,
            epoch_seconds=self._params.search.epoch_seconds,
            notes=self._kept / "notes",
        )
        zoo = Zoo(self.zoo, self._params.search.keep, self._index)
        return Tuning(work, self._compute, self._name, self._journal, zoo)

    def _see_to_targets(self, wanted: Iterable[tuple[int, float, str]]) -> None:
        """Sees to the stored targets of views of a seed and a strength, for teachers.

        Those of params.yaml's own views are there. Others are made, for this search and later ones.
        """
        run = self._space.default
        for seed, factor, teacher in wanted:
            name, view = targets_of(factor, seed), self._space.view(factor)
            given = name == targets_of(1, self._params.seed)
            what = f"{view.model_dump_json()} {seed} {self._index.version} {code_version()}"
            other = f"{name}-{hashlib.sha256(what.encode()).hexdigest()[:12]}"
            root = self._targets if given else self._kept.parent / "search-targets" / other
            self._roots[name] = root.resolve()
            if run.targets == "live":
                continue
            if given:
                weights = self._models / teacher / WEIGHTS_FILE
                origin = origin_of(teacher, weights, self._index.version, view, seed)
                read_target_index(root / teacher, origin, self._index.of("train"))
                continue
            update = {"view": view, "seed": seed}
            see_to_targets(
                self._params.model_copy(update=update),
                teacher,
                self._compute,
                shards=self._shards,
                models=self._models,
                targets=root,
            )

    def _fingerprint(self) -> str:
        """A hash of all that decides what a trial with a setting comes to, and what is drawn."""
        run, teachers = self._space.default, {name for _, name in self._space.asked()}
        content = [
            self._params.search.model_dump_json(exclude=_BUDGET),
            run.model_dump_json(),
            self._index.version,
            code_version(),
            *map(sha256, _SOURCES),
        ]
        for name in sorted(teachers | set(run.teachers)):
            weights = self._models / name / WEIGHTS_FILE
            if not weights.exists():
                raise DataError(
                    f"a trial learns from {name}, which is not trained: run python -m pipeline "
                    f"train {name}"
                )
            content.append(sha256(weights))
        return hashlib.sha256("\n".join(content).encode()).hexdigest()[:12]
