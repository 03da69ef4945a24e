"""What a search finds for its images, how many trials an hour it makes, and what it wastes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray

from benchmarks.part import some_shards
from benchmarks.spread import spread
from pipeline.compute import Compute
from pipeline.params import Params
from pipeline.search.journal import ACCURACY, Tried
from pipeline.search.search import Searching
from pipeline.search.tuning import trials_at_once
from pipeline.train.run import MODELS
from pipeline.train.targets import make_targets

SHARDS_TAKEN = 2
"""Shards of the training split that the compared searches show."""
EPOCHS = 6
TRIALS = {"asha": 40, "random": 16}
"""So that both see about as many images: two thirds of ASHA's trials end after one epoch."""
LIVE_EPOCHS, LIVE_TRIALS = 2, 4
WASTED_TRIALS = 30
SPACE = ("distillation.loss", "distillation.temperature", "distillation.weight")
RATES = ("training.lr", "training.weight_decay")


def search_figures(params: Params, folder: Path, repeats: int) -> dict[str, Any]:
    """Measures all three; the teacher comes from ``models/``, with its answers in ``targets/``.

    Each repeat has other seeds, of the algorithms and of the trainings. Of two searches that are
    compared the one that saw more images is cut where the other ended.
    """
    some_shards(folder / "shards", SHARDS_TAKEN)
    found = _wasted(params, folder / "wasted")
    found |= _rates(params, folder / "rates")
    accuracies: dict[str, list[float]] = {"asha": [], "random": [], "default": []}
    for repeat in range(repeats):
        for name, accuracy in _compared(params, folder, repeat).items():
            accuracies[name].append(accuracy)
    ours = accuracies["asha"]
    for other in ("random", "default"):
        both = zip(ours, accuracies[other], strict=True)
        found[f"over_{other}"] = spread([one - two for one, two in both])
    return found | {name: spread(values) for name, values in accuracies.items()}


def _compared(params: Params, folder: Path, repeat: int) -> dict[str, float]:
    """The best validation accuracies of one repeat, in percent."""
    # The algorithm draws its settings by numbers from its seed on.
    chosen = _params(params, seed=1 + repeat, draws=1000 * (1 + repeat), epochs=EPOCHS)
    ways = {"asha": ("tpe", "asha"), "random": ("random", "none")}
    trials: dict[str, list[Tried]] = {}
    for way in ways if repeat % 2 == 0 else [*ways][::-1]:
        algorithm, scheduler = ways[way]
        searching = _searching(
            _search(chosen, algorithm=algorithm, scheduler=scheduler, trials=TRIALS[way]), folder
        )
        searching.explore()
        trials[way] = searching.trials
    budget = min(sum(_images(one)) for one in trials.values())
    best = {way: _best_within(one, budget) for way, one in trials.items()}
    # One value for each setting: the default's own.
    own = {key: {"choice": [_own(chosen, key)]} for key in (*SPACE, *RATES)}
    default = _searching(_search(chosen, scheduler="none", trials=1, space=own), folder)
    default.explore()
    return {**best, "default": default.best().accuracy}


def _rates(params: Params, folder: Path) -> dict[str, Any]:
    """Trials an hour with stored and with live targets of the first teacher, on the project's data.

    All their epochs are trained. The stored targets are there already: all trials share them.
    """
    rates = {}
    for way in ("stored", "live"):
        chosen = _params(params, seed=params.seed, draws=0, epochs=LIVE_EPOCHS)
        chain = chosen.distillation.model_copy(update={"targets": way})
        chosen = chosen.model_copy(update={"distillation": chain})
        searching = Searching(
            _search(chosen, algorithm="random", scheduler="none", trials=LIVE_TRIALS),
            _compute(folder),
        )
        began = time.perf_counter()
        searching.explore()
        rates[way] = 3600 * LIVE_TRIALS / (time.perf_counter() - began)
    return {
        "stored_over_live": spread([rates["stored"] / rates["live"]]),
        **{f"{way}_trials_per_hour": spread([rate]) for way, rate in rates.items()},
    }


def _wasted(params: Params, folder: Path) -> dict[str, Any]:
    """The share of its wall time that a search of the project's own size does not train.

    Ray's start is in it. Where a trial's place has no more trial to run it is not waited for.
    """
    ray.shutdown()
    compute = _compute(folder)
    searching = Searching(_search(params, trials=WASTED_TRIALS), compute)
    began = time.perf_counter()
    searching.explore()
    wall = time.perf_counter() - began
    trials, places = searching.trials, trials_at_once(compute)
    ends = sorted(max(epoch.at for epoch in one.epochs.values()) for one in trials if one.epochs)
    tail = sum(ends[-1] - end for end in ends[-places:])
    trained = sum(epoch.metrics["seconds"] for one in trials for epoch in one.epochs.values())
    return {
        "wasted": spread([1 - trained / (places * wall - tail)]),
        "wall_seconds": spread([wall]),
    }


def _params(params: Params, *, seed: int, draws: int, epochs: int) -> Params:
    student = params.models["student"]
    student = student.model_copy(update={"training": {**student.training, "epochs": epochs}})
    changes = {"seed": draws, "seeds": (seed + 1, seed + 2), "hours": None, "grace": 1, "keep": 0}
    search = params.search.model_copy(update=changes)
    models = {**params.models, "student": student}
    return params.model_copy(update={"seed": seed, "models": models, "search": search})


def _search(params: Params, **changes: Any) -> Params:
    content = params.search.model_dump(mode="json")
    content |= {"space": _space(params), "objectives": ["accuracy"], **changes}
    return params.model_copy(update={"search": type(params.search).model_validate(content)})


def _space(params: Params) -> dict[str, Any]:
    """What params.yaml searches of the settings that ask no teacher anew."""
    space = params.search.model_dump(mode="json")["space"]
    return {key: space[key] for key in (*SPACE, *RATES) if key in space}


def _own(params: Params, key: str) -> Any:
    section, _, name = key.rpartition(".")
    own = (
        params.distillation.student if section == "distillation" else params.training_of("student")
    )
    return getattr(own, name)


def _searching(params: Params, folder: Path) -> Searching:
    """A search on the part of the data; what its teacher says of each seed's views is kept."""
    teacher, targets = f"teacher-{params.teachers[0]}", folder / f"targets-{params.seed}"
    if params.distillation.targets == "stored" and not targets.exists():
        shards = folder / "shards"
        make_targets(params, teacher, _compute(folder), shards=shards, targets=targets)
    return Searching(
        params, _compute(folder), shards=folder / "shards", models=MODELS, targets=targets
    )


def _compute(folder: Path) -> Compute:
    return Compute(storage=str(folder / "kept"))


def _images(trials: Sequence[Tried]) -> list[float]:
    return [epoch.metrics["images"] for one in trials for epoch in one.epochs.values()]


def _best_within(trials: Sequence[Tried], budget: float) -> float:
    """The best validation accuracy of the first so many images that a search saw."""
    epochs = sorted(
        (epoch for one in trials for epoch in one.epochs.values()), key=lambda epoch: epoch.at
    )
    best = seen = 0.0
    for epoch in epochs:
        seen += epoch.metrics["images"]
        if seen > budget:
            break
        best = max(best, epoch.metrics[ACCURACY])
    return best
