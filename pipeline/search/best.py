"""search/best.yaml: what a search found, and what students take of it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import yaml
from pydantic import Field

from pipeline.errors import DataError, UsageError
from pipeline.files import write_whole
from pipeline.params import Params, Section
from pipeline.runs import find
from pipeline.search.journal import LATENCY, Tried
from pipeline.search.settings import OF_A_RUN, TEACHER, Value

log = logging.getLogger(__name__)

SEARCH: Final = Path("search")
BEST_FILE: Final = "best.yaml"


class Found(Section):
    """A setting of the search, with what came of it.

    Attributes:
        trial: its number.
        epoch: its most accurate one on validation.
        validation_accuracy: of that epoch, in percent.
        latency_ms: of one image on one CPU thread, measured beside other trials.
        settings: by their names.
    """

    trial: int
    epoch: int
    validation_accuracy: float
    latency_ms: float
    settings: dict[str, Value]


class Side(Section):
    """A setting trained again with new seeds: accuracies in percent, one for each seed."""

    validation_accuracy: tuple[float, ...]
    test_accuracy: tuple[float, ...]


class Comparison(Section):
    """The best setting beside the one of params.yaml, both trained with new seeds.

    Attributes:
        seeds: of both.
        difference: of the mean test accuracies, best minus default, in percent points.
        low: of its 95 % interval, paired over the seeds, as is ``high``.
    """

    seeds: tuple[int, ...]
    best: Side
    default: Side
    difference: float
    low: float
    high: float


class Best(Section):
    """The content of best.yaml.

    Attributes:
        settings: of the best trial; empty where nothing was searched.
        teachers: what ``teacher`` among them stands for: run names with weights.
        found: what came of them in the search.
        front: the trials that none beats in both accuracy and latency, where both were sought.
        comparison: null where nothing was searched, or nothing was better than the default.
        verdict: a sentence: whether the search was worth it.
    """

    settings: dict[str, Value] = Field(default_factory=dict)
    teachers: dict[str, float] = Field(default_factory=dict)
    found: Found | None = None
    front: tuple[Found, ...] = ()
    comparison: Comparison | None = None
    verdict: str = "Nothing was searched: search.trials is 0 in params.yaml."


def found(trial: Tried) -> Found:
    """What a trial came to."""
    best = trial.best
    return Found(
        trial=trial.number,
        epoch=best.epoch,
        validation_accuracy=trial.accuracy,
        latency_ms=best.metrics[LATENCY],
        settings=best.values,
    )


def front(trials: Sequence[Tried]) -> list[Tried]:
    """The trials that no other beats in accuracy and latency, the fastest first."""
    order = sorted(trials, key=lambda one: (one.best.metrics[LATENCY], -one.accuracy))
    kept: list[Tried] = []
    for trial in order:
        if not kept or trial.accuracy > kept[-1].accuracy:
            kept.append(trial)
    return kept


def write_best(path: Path, best: Best) -> None:
    """Writes best.yaml."""
    content = yaml.safe_dump(best.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_whole(path, f"# Written by python -m pipeline search; see docs/search.md.\n{content}")


def read_best(path: Path) -> Best:
    """Reads best.yaml.

    Raises:
        DataError: it is missing, or is not what a search writes.
    """
    try:
        return Best.model_validate(yaml.safe_load(path.read_text()))
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing: run python -m pipeline search, or set search.used to none"
        ) from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path} is not what a search writes: {error}; search again") from error


def with_best(params: Params, name: str, folder: Path = SEARCH) -> Params:
    """Parameters in which the matrix's students take what was found, if ``search.used`` says so.

    Each keeps its teacher, which its name tells.

    Args:
        params: as params.yaml has them.
        name: of the run that is to be trained; best.yaml is needed for a student alone.
        folder: of the search.

    Raises:
        DataError: see :func:`read_best`.
        UsageError: there is no such run, or nothing was searched.
    """
    # Every other command needs the runs' names alone.
    if params.search.used == "none" or find(params, name).role != "student" or name in params.runs:
        return params
    best = read_best(folder / BEST_FILE)
    if not best.settings:
        raise UsageError(
            f"search.used is best, but {folder / BEST_FILE} holds no setting: set search.trials to "
            "what it was and search (what was tried is kept), or set search.used to none"
        )
    if TEACHER in best.settings:
        log.info(
            "%s takes the setting of %s but for its teacher, which was %s there",
            *(name, folder / BEST_FILE, best.settings[TEACHER]),
        )
    settings = {key: value for key, value in best.settings.items() if key in OF_A_RUN}
    used = params.search.model_copy(update={"used": "none", "settings": settings})
    return params.model_copy(update={"search": used})
