"""python -m pipeline search: from the space to the folder ``search``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from pipeline.compute import Compute
from pipeline.files import whole_folder, write_whole
from pipeline.params import Params
from pipeline.search.best import BEST_FILE, SEARCH, Best, write_best
from pipeline.search.journal import Tried
from pipeline.search.page import page_of
from pipeline.search.settings import Value
from pipeline.search.table import TRIALS_FILE, write_table

ZOO: Final = "zoo"
PAGE_FILE: Final = "index.html"


def run_search(
    params: Params,
    compute: Compute,
    *,
    shards: Path,
    models: Path,
    targets: Path,
    folder: Path = SEARCH,
) -> Best:
    """Searches the space of params.yaml, and writes best.yaml and what led to it.

    What was interrupted goes on: trials that have ended are not run again. So does a search that
    is given more trials or hours.

    Args:
        params: the space, the budget and the default run; with no trials nothing is searched.
        compute: where to train.
        shards: the folder of shards.
        models: the folder of model folders.
        targets: the folder of stored targets.
        folder: to write.

    Raises:
        UsageError: the space is refused, or Ray has no room for a trial.
        DataError: the shards, a teacher or its stored targets are missing or damaged.
        TrainingError: no trial came to an accuracy.
    """
    if not params.search.trials:
        return _write(params, Best(), [], None, {}, folder)
    # PyTorch, Optuna and Ray take seconds to import.
    from pipeline.search.search import Searching  # noqa: PLC0415

    places = {"shards": shards, "models": models, "targets": targets}
    searching = Searching(params, compute, **places)
    searching.explore()
    best = searching.best()
    searching.repeat(best)
    found, trials = searching.result(best), searching.trials
    return _write(params, found, trials, searching.zoo, searching.of_default, folder)


def _write(
    params: Params,
    best: Best,
    trials: Sequence[Tried],
    zoo: Path | None,
    default: Mapping[str, Value],
    folder: Path,
) -> Best:
    with whole_folder(folder / ZOO) as part:
        models = sorted(zoo.glob("[!.]*")) if zoo else []
        for model in models:
            shutil.copytree(model, part / model.name)
    write_table(folder / TRIALS_FILE, trials, [model.name for model in models], default)
    write_whole(folder / PAGE_FILE, page_of(params.search, best, trials))
    write_best(folder / BEST_FILE, best)
    return best
