"""The project beside torchdistill, the framework that one would take to distil today."""

from __future__ import annotations

import importlib
import importlib.metadata
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks.part import some_shards
from benchmarks.spread import spread
from benchmarks.taught import JUDGED, Taught, by_us
from pipeline.compute import Compute
from pipeline.data.shards import Index, read_shard
from pipeline.distill.target_index import TARGETS
from pipeline.errors import UsageError
from pipeline.params import Params, Targets
from pipeline.runs import find
from pipeline.statistics import Mean, over_seeds
from pipeline.train.job import Job
from pipeline.train.run import MODELS, SHARDS
from pipeline.train.targets import make_targets

PACKAGE: Final = "torchdistill"
VERSION: Final = "1.1.5"
FOLDER: Final = Path(".torchdistill")
"""Where it is installed, beside the environment: of what it needs it lacks Cython alone, which
nothing in it imports."""
SHARDS_TAKEN: Final = 2
"""Shards of the training split that are shown in a pair: the teacher takes seconds for each."""
VIEWS: Final = 3
"""Views of an image in a pair, where they are remembered."""
EPOCHS: Final = 2 * VIEWS
"""Of a pair: the first is not counted, the others until here make views, then all are known."""

LEAST_PAIRS: Final = 2

_ANEW, _KNOWN = slice(1, VIEWS), slice(VIEWS, None)


class _Student:
    """The first teacher's student, as both sides train it.

    What only one of the two can do is off: torchdistill's loss is Hinton's, on what comes as it is.

    Args:
        params: of the project.
        shards: the folder of shards.
        targets: the folder of stored targets.
    """

    def __init__(self, params: Params, shards: Path, targets: Path) -> None:
        self.params, self.shards, self.targets = params, shards, targets

    def views(self, cycle: int) -> Params:
        """The parameters with so many views of an image; 0 makes new ones every epoch."""
        view = self.params.view.model_copy(update={"cycle": cycle})
        return self.params.model_copy(update={"view": view})

    def job(
        self,
        cycle: int,
        targets: Targets = "live",
        *,
        epochs: int | None = None,
        precision: str | None = None,
    ) -> Job:
        """A training; epochs and precision are those of the parameters where none are given."""
        run = find(self.views(cycle), f"student-{self.params.teachers[0]}")
        compute = Compute(workers=1)
        assert run.distillation is not None
        changes: dict[str, Any] = {"mixup": 0.0, "patience": 0}
        changes |= {"epochs": epochs} if epochs else {}
        changes |= {"precision": precision} if precision else {}
        plain = {"loss": "hinton", "standardize": False}
        run = run.model_copy(
            update={
                "training": run.training.model_copy(update=changes),
                "distillation": run.distillation.model_copy(update=plain),
                "targets": targets,
            }
        )
        return Job(
            run=run,
            shards=self.shards.resolve(),
            models=MODELS.resolve(),
            targets=self.targets.resolve(),
            checkpoint_steps=0,
            loaders=compute.loader_processes,
            threads=compute.worker_threads,
        )


def beside_torchdistill(
    params: Params, index: Index, folder: Path, pairs: int
) -> dict[str, dict[str, float]]:
    """Times the same student of the same teacher on both sides, and judges what it came to.

    Every training is a process of its own, with as many threads and loader processes on either
    side, and in the same precision but where ``fp32`` says otherwise. In pairs, on a part of the
    training images, each way's pace is found; then each side trains on all of them, for the epochs
    of params.yaml, with as many seeds as there are pairs.

    Raises:
        UsageError: torchdistill is not there, or there is one pair, which tells nothing of seeds.
    """
    if pairs < LEAST_PAIRS:
        raise UsageError(f"torchdistill takes --pairs {LEAST_PAIRS} or more: each is a seed")
    by_torchdistill = find_torchdistill()
    return {
        **_paces(by_torchdistill, params, folder / "part", pairs),
        **_whole(by_torchdistill, params, index, folder / "whole", pairs),
    }


def find_torchdistill() -> Callable[[Job, Path, Path], Taught]:
    """Gives :func:`benchmarks.theirs.by_torchdistill`.

    Raises:
        UsageError: torchdistill is not there, or is of another version.
    """
    # Processes that are started from this one look there too.
    sys.path.append(str(FOLDER.resolve()))
    try:
        found = importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != VERSION:
        raise UsageError(
            f"this needs {PACKAGE} {VERSION}, and there is {found}: "
            f"pip install --no-deps --target {FOLDER} {PACKAGE}=={VERSION}"
        )
    call: Callable[[Job, Path, Path], Taught]
    call = importlib.import_module("benchmarks.theirs").by_torchdistill
    return call


def _paces(
    by_torchdistill: Callable[[Job, Path, Path], Taught], params: Params, folder: Path, pairs: int
) -> dict[str, dict[str, float]]:
    """Images a second over those of torchdistill, in pairs."""
    index = some_shards(folder / "shards", SHARDS_TAKEN)
    _write_images(index, folder / "shards", folder / "images")
    student = _Student(params, folder / "shards", folder / TARGETS)
    _alone(_make_targets, student, VIEWS, folder / "parts")
    theirs = {
        "torchdistill": student.job(0, epochs=EPOCHS),
        "torchdistill_fp32": student.job(0, epochs=EPOCHS, precision="fp32"),
        "torchdistill_remembers": student.job(VIEWS, epochs=EPOCHS),
    }
    ours = {
        "live": student.job(VIEWS, epochs=EPOCHS),
        "stored": student.job(VIEWS, "stored", epochs=EPOCHS),
    }
    counted = {
        "torchdistill": {"torchdistill": slice(1, None)},
        "torchdistill_fp32": {"torchdistill_fp32": slice(1, None)},
        "torchdistill_remembers": {"torchdistill_remembers": _KNOWN},
        "live": {"live_anew": _ANEW, "live": _KNOWN},
        "stored": {"stored_anew": _ANEW, "stored": _KNOWN},
    }
    rates: dict[str, list[float]] = {}
    for pair in range(pairs):
        for way in counted if pair % 2 == 0 else reversed(counted):
            place = folder / f"{way}-{pair}"
            if way in ours:
                taught = _alone(by_us, ours[way], place)
            else:
                taught = _alone(by_torchdistill, theirs[way], folder / "images", place)
            for name, epochs in counted[way].items():
                rates.setdefault(name, []).append(statistics.median(taught.rates[epochs]))

    def over(our_way: str, their_way: str = "torchdistill") -> dict[str, float]:
        return _ratios(rates[our_way], rates[their_way])

    return {
        "live_anew": over("live_anew"),
        "live": over("live"),
        "live_both": over("live", "torchdistill_remembers"),
        "live_fp32": over("live_anew", "torchdistill_fp32"),
        "stored_anew": over("stored_anew"),
        "stored": over("stored"),
        **{f"{name}_images_per_second": spread(found) for name, found in rates.items()},
    }


def _whole(
    by_torchdistill: Callable[[Job, Path, Path], Taught],
    params: Params,
    index: Index,
    folder: Path,
    pairs: int,
) -> dict[str, dict[str, float]]:
    """Whole trainings of each side, and of ours from stored targets: seconds, accuracy.

    Each pair has a seed of its own, from 1 on. Where its targets are live our student sees the very
    views that torchdistill's does.
    """
    _write_images(index, SHARDS, folder / "images")
    done: dict[str, list[Taught]] = {"torchdistill": [], "live": [], "stored": []}
    making: list[float] = []
    for seed in range(1, pairs + 1):
        place = folder / str(seed)
        seeded = params.model_copy(update={"seed": seed})
        student = _Student(seeded, SHARDS, place / TARGETS)
        cycle = params.view.cycle or VIEWS
        making.append(_alone(_make_targets, student, cycle, place / "parts"))
        ways = {
            "torchdistill": partial(
                by_torchdistill, student.job(0), folder / "images", place / "theirs"
            ),
            "live": partial(by_us, student.job(0), place / "live"),
            "stored": partial(by_us, student.job(cycle, "stored"), place / "stored"),
        }
        for way in ways if seed % 2 else reversed(ways):
            done[way].append(_alone(ways[way]))
    seconds = {way: [taught.seconds for taught in all_] for way, all_ in done.items()}
    with_making = [sum(both) for both in zip(seconds["stored"], making, strict=True)]
    theirs = seconds["torchdistill"]
    found = {
        "whole_live": _ratios(theirs, seconds["live"]),
        "whole_stored": _ratios(theirs, seconds["stored"]),
        "whole_stored_made": _ratios(theirs, with_making),
        "making_seconds": spread(making),
        **{f"{way}_seconds": spread(each) for way, each in seconds.items()},
    }
    for split in JUDGED:
        right = {way: np.array([t.right[split] for t in all_]) for way, all_ in done.items()}
        found |= {f"{way}_{split}": _bounds(over_seeds(table)) for way, table in right.items()}
        for way in ("live", "stored"):
            less = over_seeds(right[way].astype(int) - right["torchdistill"])
            found[f"{way}_less_{split}"] = _bounds(less) | {"p": less.p}
    return found


def _ratios(ones: list[float], others: list[float]) -> dict[str, float]:
    return spread([one / other for one, other in zip(ones, others, strict=True)])


def _bounds(found: Mean) -> dict[str, float]:
    """A mean over seeds and images, with its 95 % interval."""
    interval = found.interval
    return {"mean": interval.value, "low": interval.low, "high": interval.high}


def _alone(call: Callable[..., Any], *arguments: Any) -> Any:
    """Calls in a process of its own, so that nothing is warm that another way left behind."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=_start_as_a_command_does) as process:
        return process.submit(call, *arguments).result()


def _start_as_a_command_does() -> None:
    # A process that was spawned would spawn its loader processes too, which takes seconds; one that
    # a user starts forks them.
    multiprocessing.set_start_method("fork", force=True)


def _make_targets(student: _Student, cycle: int, parts: Path) -> float:
    params = student.views(cycle)
    chain = params.distillation.model_copy(update={"targets": "stored"})
    began = time.perf_counter()
    make_targets(
        params.model_copy(update={"distillation": chain}),
        f"teacher-{params.teachers[0]}",
        Compute(workers=0, storage=str(parts)),
        shards=student.shards,
        targets=student.targets,
    )
    return time.perf_counter() - began


def _write_images(index: Index, shards: Path, folder: Path) -> None:
    """Writes the JPEGs of the shards, as they are, into a folder for each split and script."""
    for shard in index.shards:
        for sample in read_shard(shards, shard):
            file = folder / shard.split / sample.script / f"{sample.key}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(sample.jpeg)
