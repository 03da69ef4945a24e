"""What a checkout has a job on a Ray cluster do: train a run, ask a model; and what comes back."""

from __future__ import annotations

import json
import logging
import shlex
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ray.dashboard.modules.job.pydantic_models import JobDetails

from pipeline.compute import Compute
from pipeline.data.revision import locate
from pipeline.data.shards import Index
from pipeline.distill.target_index import (
    INDEX_FILE,
    TARGETS,
    TargetIndex,
    origin_of,
    read_target_index,
)
from pipeline.errors import ClusterError, DataError, DistillError, TrainingError, UsageError
from pipeline.fetch import files_from_objects, model_from_objects
from pipeline.files import sha256, whole_folder
from pipeline.jobs import exchange, package
from pipeline.jobs.client import JobServer
from pipeline.jobs.weights import job_name, weights_of
from pipeline.jobs.where import storage_of
from pipeline.machine import Check
from pipeline.models.folder import WEIGHTS_FILE, ModelInfo, read_info
from pipeline.params import Params
from pipeline.runs import find
from pipeline.train.run import MODELS, SHARDS, check_teachers
from pipeline.train.targets import targets_name

log = logging.getLogger(__name__)


def train_on_cluster(
    params: Params, name: str, compute: Compute, address: str, *, stop: Callable[[str], bool]
) -> ModelInfo:
    """Trains a run on a cluster, and writes ``models/<name>/`` as a training here would.

    The job is named by all that decides the weights: where one of this name runs already, this
    attaches to it, and where one has ended well, its model is taken.

    Args:
        params: of the run.
        name: of the run.
        compute: storage and stream are in S3.
        address: of the cluster's job server.
        stop: asked after an interrupt, with the job's name, whether the job is to be ended too.

    Raises:
        UsageError: a setting is missing, the cluster or S3 refuses, or the job said so.
        DataError: a teacher or pretrained weights are missing, the shards were not pushed, or the
            model is damaged.
        ClusterError: the cluster cannot be reached, or the job died.
        TrainingError: the job was stopped, or left to itself.
        StorageError: S3 cannot be reached.
        DistillError: the job said so.
    """
    storage = storage_of(compute)
    run = find(params, name)
    check_teachers(run, MODELS)
    for teacher in run.teachers:
        if run.targets == "stored" and not (TARGETS / teacher / INDEX_FILE).exists():
            raise DataError(
                f"{TARGETS / teacher} holds no stored targets of {teacher}: make them by "
                f"python -m pipeline targets {teacher}, or dvc repro"
            )
    job = job_name(params, name, _shards(params, compute).version, MODELS)
    model = exchange.model_at(storage, job)

    def submit(server: JobServer) -> str:
        teachers = exchange.teachers_at(storage, job)
        for teacher in run.teachers:
            at = f"{teachers}/{teacher}"
            if not exchange.has(at):
                if run.targets == "stored":
                    names = [path.name for path in sorted((TARGETS / teacher).iterdir())]
                    exchange.put_files(TARGETS / teacher, exchange.targets_at(at), names)
                exchange.put_files(MODELS / teacher, at, exchange.NEEDED)
        command = ["python", "-m", "pipeline", "train", name, "--teachers", teachers]
        weights = weights_of(params, name)
        return _submit(server, job, command, params, compute, weights=weights)

    if not exchange.has(model):
        ended = _to_its_end(address, storage, job, compute, stop, submit)
        if not exchange.has(model):
            raise _nothing_at(model, ended)
    model_from_objects(exchange.objects_at(model), MODELS / name)
    # The model is in its place.
    exchange.remove(storage, job)
    return read_info(MODELS / name)


def targets_on_cluster(
    params: Params, name: str, compute: Compute, address: str, *, stop: Callable[[str], bool]
) -> TargetIndex:
    """Asks a model on a cluster, and writes ``targets/<name>/`` as asking it here would.

    Like a training, it attaches to a job that does the same, and takes what one has made.

    Args:
        params: of the run; its targets are stored.
        name: of the run whose model is asked.
        compute: storage and stream are in S3.
        address: of the cluster's job server.
        stop: see :func:`train_on_cluster`.

    Raises:
        DataError: the model is missing, the shards were not pushed, or what came back is damaged.
        DistillError: see :func:`train_on_cluster`.
    """
    storage = storage_of(compute)
    run = find(params, name)
    weights = MODELS / name / WEIGHTS_FILE
    if not weights.exists():
        raise DataError(
            f"{name} is to be asked, but is not trained: run python -m pipeline train {name}"
        )
    shards = _shards(params, compute)
    origin = origin_of(name, weights, shards.version, run.view, run.seed)
    job = targets_name(origin)
    made = exchange.answers_at(storage, job)

    def submit(server: JobServer) -> str:
        teachers = exchange.teachers_at(storage, job)
        exchange.put_files(MODELS / name, f"{teachers}/{name}", exchange.NEEDED)
        command = ["python", "-m", "pipeline", "targets", name, "--teachers", teachers]
        return _submit(server, job, command, params, compute)

    if not exchange.has(made, INDEX_FILE):
        ended = _to_its_end(address, storage, job, compute, stop, submit)
        if not exchange.has(made, INDEX_FILE):
            raise _nothing_at(made, ended)
    with whole_folder(TARGETS / name) as part:
        files_from_objects(exchange.objects_at(made, exchange.names_at(made)), part)
        index = read_target_index(part, origin, shards.of("train"))
        for file in index.files:
            if not (part / file.name).exists() or sha256(part / file.name) != file.sha256:
                raise DataError(f"{made}/{file.name} is damaged: remove it, and {INDEX_FILE} there")
    exchange.remove(storage, job)
    return index


def _to_its_end(
    address: str,
    storage: str,
    name: str,
    compute: Compute,
    stop: Callable[[str], bool],
    submit: Callable[[JobServer], str],
) -> str:
    """Follows the job of that name, which is submitted unless it, or one by hand, runs already.

    Returns:
        Its submission id.
    """
    if compute.stop_jobs:
        # Whoever set this has answered what an interrupt asks.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        stop = _yes
    server = JobServer(address)

    def running() -> JobDetails | None:
        return server.running(name, exchange.holder(storage, name))

    with _interrupted(server, running, stop):
        found = running()
        if found is None:
            job = submit(server)
        else:
            job = str(found.submission_id)
            workers = (found.metadata or {}).get("workers", "its own number of")
            log.info("job %s runs already at %s, with %s workers", job, address, workers)
        server.follow(job, partial(log.info, "%s"))
    return job


def _nothing_at(uri: str, job: str) -> ClusterError:
    return ClusterError(
        f"the job {job} ended well, but {uri} does not hold what it was to make: another checkout "
        "took it, or it was submitted with another DISTILL_STORAGE; run the same command again"
    )


def _shards(params: Params, compute: Compute) -> Index:
    """The index of the shards that are meant; a job finds them by dvc.lock alone, without git."""
    remote = str(compute.stream)
    locked = locate(SHARDS, None, remote, compute.patience).index
    rev = params.data.rev
    if rev and locate(SHARDS, rev, remote, compute.patience).index.version != locked.version:
        raise UsageError(
            f"data.rev is {rev}, but dvc.lock has other shards, and a job takes those: run "
            "dvc repro shards first"
        )
    return locked


def examine_from_here(params: Params, compute: Compute, address: str, *, wait: bool) -> list[Check]:
    """Looks at every machine of a cluster, by a job on it.

    With ``wait`` machines for all workers are waited for first, as a run does it.

    Raises:
        UsageError: a setting is missing, or the cluster refuses.
        ClusterError: the cluster cannot be reached, or the job died.
        DistillError: the job said so.
    """
    storage_of(compute)
    server = JobServer(address)
    waiting = ["--wait"] if wait else []
    command = ["python", "-m", "pipeline", "doctor", "--cluster", *waiting, "--json"]
    job = _submit(server, "doctor", command, params, compute)
    lines: list[str] = []
    try:
        server.follow(job, lines.append)
    except DistillError:
        # A doctor that finds a fault ends like a command that failed.
        if "{" not in lines:
            raise
    found = json.loads("\n".join(lines[lines.index("{") : lines.index("}") + 1]))
    return [Check.model_validate(check) for check in found["checks"]]


def _submit(
    server: JobServer,
    name: str,
    command: list[str],
    params: Params,
    compute: Compute,
    *,
    weights: Path | None = None,
) -> str:
    about = {"workers": str(compute.workers)}
    with tempfile.TemporaryDirectory() as folder:
        package.pack(Path(folder), params, str(compute.stream), weights)
        job = server.submit(name, shlex.join(command), Path(folder), package.settings(), about)
    log.info("job %s is submitted to %s", job, server.address)
    return job


def _yes(job: str) -> bool:
    return True


@contextmanager
def _interrupted(
    server: JobServer, running: Callable[[], JobDetails | None], stop: Callable[[str], bool]
) -> Iterator[None]:
    """An interrupt (Ctrl-C) leaves the job that runs, or ends it."""
    try:
        yield
    except KeyboardInterrupt:
        # It may have come before the submission was answered.
        found = running()
        if found is None:
            raise TrainingError(f"interrupted, and no job runs at {server.address}") from None
        job = str(found.submission_id)
        if not stop(job):
            raise TrainingError(
                f"the job {job} goes on at {server.address}: the same command attaches to it, "
                f"ray job stop --address {server.address} {job} ends it"
            ) from None
        server.stop(job)
        raise TrainingError(
            f"the job {job} is stopped: the same command goes on from its last checkpoint"
        ) from None
