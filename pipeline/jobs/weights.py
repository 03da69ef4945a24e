"""A run's own file of pretrained weights (``weights`` in params.yaml), which workers need too.

It travels in the job's working folder. Workers change directory, and where the working folder lies
differs from one start of a cluster to the next. So each machine copies it to a path that is made of
its content, and is the same everywhere and in every attempt.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import DataError
from pipeline.files import sha256
from pipeline.params import Params, Timm
from pipeline.runs import find
from pipeline.train.fingerprint import run_fingerprint


def weights_of(params: Params, name: str) -> Path | None:
    """The file of pretrained weights that a run starts from, if it does.

    Raises:
        UsageError: there is no such run.
        DataError: the file is missing.
    """
    network = find(params, name).network
    path = network.weights if isinstance(network, Timm) else None
    if path is not None and not path.is_file():
        raise DataError(f"{path} is missing: pretrained weights of {name}")
    return path


def with_weights(params: Params, name: str, path: Path) -> Params:
    """The same parameters, but for the path of the weights that a run starts from."""
    row = find(params, name).model
    model = params.models[row]
    network = model.network.model_copy(update={"weights": path})
    models = {**params.models, row: model.model_copy(update={"network": network})}
    return params.model_copy(update={"models": models})


def job_name(params: Params, name: str, data_version: str, models: Path) -> str:
    """What a job is named by: all that decides the weights of a run.

    Args:
        params: of the run.
        name: of the run.
        data_version: of the shards.
        models: the folder of its teachers.

    Raises:
        DataError: the file of its pretrained weights is missing.
    """
    if (path := weights_of(params, name)) is not None:
        # By its content: where the file lies is another matter on each machine.
        params = with_weights(params, name, Path(sha256(path)))
    return f"{name}-{run_fingerprint(find(params, name), data_version, models)}"
