"""Trains a run here with what a search found for it."""

from __future__ import annotations

from pathlib import Path

from pipeline.compute import Compute
from pipeline.data.shards import read_index
from pipeline.distill.target_index import TARGETS
from pipeline.files import folder_there, remove_folder
from pipeline.models.folder import ModelInfo
from pipeline.params import Params
from pipeline.runs import find
from pipeline.train.fingerprint import run_fingerprint
from pipeline.train.run import MODELS, SHARDS, check_teachers, streaming_of, train_run
from pipeline.train.targets import make_targets


def train_student(
    params: Params,
    name: str,
    compute: Compute,
    *,
    shards: Path = SHARDS,
    models: Path = MODELS,
) -> ModelInfo:
    """Trains a run; if it is shown other views than params.yaml's, its teachers are asked first.

    Args:
        params: in which students take what was found, see :func:`pipeline.search.best.with_best`.
        name: of the run.
        compute: where to train.
        shards: the folder of shards.
        models: the folder of model folders.

    Raises:
        DistillError: see :func:`pipeline.train.run.train_run`.
    """
    run = find(params, name)
    if run.targets == "live" or not run.teachers or run.view == params.view:
        return train_run(params, name, compute, shards=shards, models=models, targets=TARGETS)
    check_teachers(run, models)
    streaming = streaming_of(params.data.rev, compute, shards) if compute.stream else None
    version = (streaming.revision.index if streaming else read_index(shards)).version
    targets = compute.local_storage / f"{name}-{run_fingerprint(run, version, models)}-views"
    shown = params.model_copy(update={"view": run.view})
    for teacher in run.teachers:
        if not folder_there(targets / teacher):
            make_targets(shown, teacher, compute, shards=shards, models=models, targets=targets)
    info = train_run(params, name, compute, shards=shards, models=models, targets=targets)
    remove_folder(targets)
    return info
