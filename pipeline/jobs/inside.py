"""A job's own command, on a cluster: models come from S3, and what it makes goes there."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import ray

from pipeline import s3
from pipeline.compute import Compute
from pipeline.data.revision import locate
from pipeline.data.shards import Index
from pipeline.data.stream import PATIENCE, open_object
from pipeline.distill.target_index import INDEX_FILE, TargetIndex, origin_of
from pipeline.errors import DataError, UsageError
from pipeline.fetch import files_from_objects
from pipeline.files import sha256, write_whole
from pipeline.jobs import exchange
from pipeline.jobs.cluster import hold, join, wait_for
from pipeline.jobs.weights import job_name, weights_of, with_weights
from pipeline.jobs.where import storage_of
from pipeline.jobs.worker import NEEDED, Needed, bring, take_keys
from pipeline.models.folder import ABOUT_FILE, WEIGHTS_FILE, ModelInfo, read_info
from pipeline.params import Params
from pipeline.runs import find
from pipeline.train.run import SHARDS, train_run
from pipeline.train.targets import make_targets, targets_name

log = logging.getLogger(__name__)


def train_in_job(
    params: Params, name: str, compute: Compute, job: str, teachers: str | None
) -> ModelInfo:
    """Trains a run on the cluster that this job is on, and puts its model folder into S3.

    Args:
        params: of the run.
        name: of the run.
        compute: storage and stream are in S3.
        job: its submission id.
        teachers: the address below which model folders lie under the names of their runs, each
            with its stored targets in ``targets/``; None takes both as ``dvc.lock`` here names
            them, from the DVC remote of the shards.

    Raises:
        UsageError: a setting is missing, or S3 refuses.
        DistillError: see :func:`pipeline.train.run.train_run`.
    """
    take_keys()
    storage = storage_of(compute)
    run = find(params, name)
    cache = Path(compute.model_cache).expanduser().absolute()
    # The model is written beside its teachers, and then handed over: nothing of it stays here.
    folder = cache / "jobs" / job
    needed = Needed(
        folder=folder,
        teachers={teacher: _model(teacher, compute, teachers) for teacher in run.teachers},
        targets={
            teacher: _stored_at(exchange.targets_at(f"{teachers.rstrip('/')}/{teacher}"))
            if teachers
            else _locked(f"targets/{teacher}", str(compute.stream))
            for teacher in run.teachers
            if run.targets == "stored"
        },
    )
    trained = params
    if (path := weights_of(params, name)) is not None:
        here = cache / "weights" / sha256(path) / path.name
        needed.files[path] = here
        trained = with_weights(params, name, here)
    try:
        bring(needed)
        join({NEEDED: needed.model_dump_json()})
        shards = _shards(compute)
        made = job_name(params, name, shards.version, folder)
        holder = hold(made, job)
        exchange.set_holder(storage, made, job)
        wait_for(compute)

        def deliver(info: ModelInfo) -> None:
            # What it says of itself is what params.yaml says, not where this cluster keeps a file.
            own = info.model_copy(update={"network": run.network})
            write_whole(folder / name / ABOUT_FILE, own.model_dump_json(indent=2) + "\n")
            uri = exchange.model_at(storage, made)
            exchange.put_files(folder / name, uri)
            log.info("%s: the model lies at %s", name, uri)

        targets = needed.targets_folder
        train_run(trained, name, compute, models=folder, targets=targets, deliver=deliver)
        ray.kill(holder)
        return read_info(folder / name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def targets_in_job(
    params: Params, name: str, compute: Compute, job: str, teachers: str | None
) -> TargetIndex:
    """Asks a model on the cluster that this job is on, and puts the stored targets into S3.

    What an earlier attempt has put there is not asked again.

    Args:
        params: of the run; its targets are stored.
        name: of the run whose model is asked.
        compute: storage and stream are in S3.
        job: its submission id.
        teachers: see :func:`train_in_job`.

    Raises:
        UsageError: a setting is missing, or S3 refuses.
        DistillError: see :func:`pipeline.train.targets.make_targets`.
    """
    take_keys()
    storage = storage_of(compute)
    run = find(params, name)
    folder = Path(compute.model_cache).expanduser().absolute() / "jobs" / job
    needed = Needed(folder=folder, teachers={name: _model(name, compute, teachers)})
    try:
        bring(needed)
        join({NEEDED: needed.model_dump_json()})
        weights = folder / name / WEIGHTS_FILE
        origin = origin_of(name, weights, _shards(compute).version, run.view, run.seed)
        made = targets_name(origin)
        holder = hold(made, job)
        exchange.set_holder(storage, made, job)
        wait_for(compute)
        uri = exchange.answers_at(storage, made)
        parts = folder / ".parts"
        parts.mkdir()
        files_from_objects(exchange.objects_at(uri, exchange.names_at(uri)), parts)

        def keep(path: Path) -> None:
            exchange.put_files(parts, uri, [path.name])

        answers = needed.targets_folder
        index = make_targets(
            params, name, compute, models=folder, targets=answers, parts=parts, keep=keep
        )
        exchange.put_files(answers / name, uri, [INDEX_FILE])
        log.info("what %s says lies at %s", name, uri)
        ray.kill(holder)
        return index
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _shards(compute: Compute) -> Index:
    """The index of the shards that ``dvc.lock`` names."""
    return locate(SHARDS, None, str(compute.stream), compute.patience).index


def _model(name: str, compute: Compute, teachers: str | None) -> dict[str, str]:
    """The objects of a model folder, below ``teachers`` or as ``dvc.lock`` names it."""
    if teachers:
        return exchange.objects_at(f"{teachers.rstrip('/')}/{name}", exchange.NEEDED)
    return _locked(f"models/{name}", str(compute.stream), exchange.NEEDED)


def _stored_at(uri: str) -> dict[str, str]:
    """The objects of the stored targets that lie there."""
    address = f"{uri}/{INDEX_FILE}"
    with open_object(address, patience=PATIENCE) as source:
        content = source.read()
    try:
        index = TargetIndex.model_validate_json(content)
    except ValueError as error:
        raise DataError(f"{address} is no index of stored targets: {error}") from error
    return exchange.objects_at(uri, [INDEX_FILE, *(file.name for file in index.files)])


def _locked(path: str, remote: str, files: Sequence[str] | None = None) -> dict[str, str]:
    """The objects of a folder as ``dvc.lock`` names it, in a DVC remote in S3.

    Args:
        path: of the folder.
        remote: the name of the DVC remote.
        files: which of its files; None takes all.
    """
    import dvc.api  # noqa: PLC0415
    from dvc.exceptions import DvcException  # noqa: PLC0415

    logging.getLogger("dvc").setLevel(logging.WARNING)
    try:
        listing = str(dvc.api.get_url(path, remote=remote))
    except DvcException as error:
        raise UsageError(
            f"DVC does not find {path} of the dvc.lock here in its remote {remote} "
            f"({error}): make it by dvc repro and push it, or give --teachers s3://BUCKET/PREFIX"
        ) from error
    top, _, named = listing.rpartition("/files/md5/")
    if not (s3.is_uri(listing) and top and named.endswith(".dir")):
        raise UsageError(
            f"the DVC remote {remote} keeps {path} at {listing}: take it from a remote "
            "in S3 that is not version_aware"
        )
    with open_object(listing, patience=PATIENCE) as source:
        content = source.read()
    try:
        sums = {entry["relpath"]: entry["md5"] for entry in json.loads(content)}
        return {
            file: f"{top}/files/md5/{sums[file][:2]}/{sums[file][2:]}" for file in files or sums
        }
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{listing} is no listing of what is needed ({error!r}): push {path} again"
        ) from error
