"""An epoch from stored targets, beside one on labels alone and one that asks a teacher."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.part import some_shards
from benchmarks.spread import spread
from pipeline.compute import Compute, cores
from pipeline.data.shards import Index
from pipeline.distill.target_index import TARGETS
from pipeline.models.build import build
from pipeline.models.folder import NORMALISATION, InputSize, ModelInfo, save_model
from pipeline.params import Params
from pipeline.runs import Run, find
from pipeline.train.job import Job
from pipeline.train.local import train_here
from pipeline.train.targets import make_targets

WAYS = ("labels", "stored", "live")
SHARDS_TAKEN = 2
"""Shards of the training split that are shown: the teacher takes seconds for each."""
EPOCHS = 4
"""The first makes the views and is not counted; the others show them again, from memory."""


def target_ratios(params: Params, folder: Path, pairs: int) -> dict[str, Any]:
    """Times a student's epochs in three ways, in turn.

    The teacher has the network of the first one of params.yaml and no training, on which its pace
    does not depend. Views are remembered in all three ways, so that beside the student's own steps
    only what a way costs is timed.
    """
    view = params.view.model_copy(update={"cycle": 1})
    chain = params.distillation.model_copy(update={"targets": "stored"})
    params = params.model_copy(update={"view": view, "distillation": chain})
    shards, teacher = some_shards(folder / "shards", SHARDS_TAKEN), f"teacher-{params.teachers[0]}"
    _untrained(find(params, teacher), shards, folder / "models" / teacher)
    made = make_targets(
        params,
        teacher,
        Compute(workers=0, storage=str(folder / "parts")),
        shards=folder / "shards",
        models=folder / "models",
        targets=folder / TARGETS,
    )
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for pair in range(pairs):
        for way in WAYS if pair % 2 == 0 else WAYS[::-1]:
            history = train_here(_job(params, way, folder), folder / f"{way}-{pair}").history
            epochs = [row.images / row.images_per_second for row in history[1:]]
            seconds[way].append(statistics.median(epochs))

    def over(other: str) -> dict[str, float]:
        both = zip(seconds["stored"], seconds[other], strict=True)
        return spread([stored / one for stored, one in both])

    stored = sum(file.bytes for file in made.files) / shards.images("train") / made.views
    return {
        "over_labels": over("labels"),
        "over_live": over("live"),
        "bytes": spread([stored]),
        **{f"{way}_seconds": spread(found) for way, found in seconds.items()},
    }


def _job(params: Params, way: str, folder: Path) -> Job:
    run = find(params, "student-alone" if way == "labels" else f"student-{params.teachers[0]}")
    training = run.training.model_copy(update={"epochs": EPOCHS})
    changes = {"training": training, "targets": None if way == "labels" else way}
    return Job(
        run=run.model_copy(update=changes),
        shards=(folder / "shards").resolve(),
        models=(folder / "models").resolve(),
        targets=(folder / TARGETS).resolve(),
        checkpoint_steps=0,
        loaders=0,
        threads=cores(),
    )


def _untrained(run: Run, index: Index, folder: Path) -> None:
    torch.manual_seed(0)
    model = build(run.network, len(index.scripts), run.view)
    info = ModelInfo(
        run=run.name,
        role=run.role,
        network=run.network,
        scripts=index.scripts,
        input=InputSize(channels=1, height=run.view.height, width=run.view.width),
        normalisation=NORMALISATION,
        teachers={},
        data_source=index.source,
        data_version=index.version,
        parameters={},
        code_version="",
        metrics={},
    )
    folder.mkdir(parents=True)
    save_model(folder, info, model.state_dict())
