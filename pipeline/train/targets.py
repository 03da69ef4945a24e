"""Makes the stored targets of one run: what its model says of every training view, once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from pipeline.compute import Compute
from pipeline.data.shards import Index, Shard, read_index
from pipeline.distill.store import Logits, StoredTargets, pack, unpack
from pipeline.distill.target_index import (
    INDEX_FILE,
    TARGETS,
    Origin,
    StoredFile,
    TargetIndex,
    file_of,
    origin_of,
    read_target_index,
)
from pipeline.errors import DataError
from pipeline.files import folder_there, remove_folder, sha256, whole_folder, write_whole
from pipeline.models.folder import WEIGHTS_FILE
from pipeline.params import Params
from pipeline.progress import Progress
from pipeline.runs import find
from pipeline.train.fingerprint import code_version
from pipeline.train.job import Job
from pipeline.train.run import MODELS, SHARDS, streaming_of

log = logging.getLogger(__name__)


def make_targets(
    params: Params,
    name: str,
    compute: Compute,
    *,
    shards: Path = SHARDS,
    models: Path = MODELS,
    targets: Path = TARGETS,
    parts: Path | None = None,
    keep: Callable[[Path], None] | None = None,
) -> TargetIndex:
    """Writes ``targets/<name>/``, in this process or on Ray's workers.

    A file that was finished before an interruption is not made again. Where the parameters say
    ``live`` only an index is written, which says so too.

    Args:
        params: of the run.
        name: of the run whose model is asked.
        compute: how many workers, and where checkpoints are kept.
        shards: the folder of shards.
        models: the folder of model folders.
        targets: the folder of stored targets.
        parts: the folder where finished files wait for the others; None takes one that is named by
            all that decides what is in them.
        keep: called with every finished file there.

    Raises:
        UsageError: there is no such run.
        DataError: the shards or the model are missing or damaged.
        TrainingError: the model says what is not finite.
        TransientError: workers died more often than ``compute.failures`` allows.
    """
    run, folder = find(params, name), targets / name
    if params.distillation.targets == "live":
        with whole_folder(folder) as whole:
            return _write_index(whole, TargetIndex(targets="live"))
    weights = models / name / WEIGHTS_FILE
    if not weights.exists():
        raise DataError(
            f"{name} is to be asked, but is not trained: run python -m pipeline train {name}"
        )
    streaming = streaming_of(params.data.rev, compute, shards) if compute.stream else None
    index = streaming.revision.index if streaming else read_index(shards)
    origin = origin_of(name, weights, index.version, run.view, run.seed)
    job = Job(
        run=run,
        shards=shards.resolve(),
        models=models.resolve(),
        targets=targets.resolve(),
        checkpoint_steps=0,
        loaders=0,
        threads=compute.worker_threads,
        streaming=streaming,
    )
    parts = parts or _parts(origin, compute)
    wanted = index.of("train")
    left = [at for at, shard in enumerate(wanted) if not (parts / file_of(shard)).exists()]
    done = sum(shard.samples for shard in wanted) - sum(wanted[at].samples for at in left)
    log.info(
        "%s is asked about %d views of %s images, %s of them done",
        *(name, run.view.cycle, f"{index.images('train'):,}", f"{done:,}"),
    )
    progress = Progress(f"targets of {name}", "images")
    asked = 0
    for at, logits in _answers(job, left, compute) if left else ():
        write_whole(parts / file_of(wanted[at]), pack(logits))
        if keep is not None:
            keep(parts / file_of(wanted[at]))
        asked += wanted[at].samples
        progress(asked, index.images("train") - done)
    written = _put_in_place(parts, folder, origin, index)
    remove_folder(parts)
    return written


def see_to_targets(
    params: Params, name: str, compute: Compute, *, shards: Path, models: Path, targets: Path
) -> None:
    """Makes the stored targets of a run, unless those of these weights and views are there, whole.

    Args:
        params: whose ``view`` and ``seed`` decide the views.
        name: of the run whose model is asked.
        compute: how many workers, and where checkpoints are kept.
        shards: the folder of shards.
        models: the folder of model folders.
        targets: the folder of stored targets.

    Raises:
        DistillError: see :func:`make_targets`.
    """
    folder = targets / name
    if folder_there(folder):
        streaming = streaming_of(params.data.rev, compute, shards) if compute.stream else None
        index = streaming.revision.index if streaming else read_index(shards)
        weights = models / name / WEIGHTS_FILE
        origin = origin_of(name, weights, index.version, params.view, params.seed)
        try:
            found = read_target_index(folder, origin, index.of("train"))
            StoredTargets(folder, found, window=0).check()
        except DataError as error:
            log.info("%s; that is done now", error)
        else:
            return
    make_targets(params, name, compute, shards=shards, models=models, targets=targets)


def _parts(origin: Origin, compute: Compute) -> Path:
    return compute.local_storage / targets_name(origin)


def targets_name(origin: Origin) -> str:
    """A name for the making of stored targets, by all that decides what is in them."""
    content = f"{origin.model_dump_json()}\n{code_version()}"
    return f"targets-{origin.run}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _answers(job: Job, shards: Sequence[int], compute: Compute) -> Iterator[tuple[int, Logits]]:
    # Either way takes seconds to import, and only one of them is needed.
    if compute.workers:
        from pipeline.train.ray_answers import answers_on_ray  # noqa: PLC0415

        yield from answers_on_ray(job, shards, compute)
        return
    from pipeline.train.answers import Answerer  # noqa: PLC0415

    answerer = Answerer(job)
    for shard in shards:
        yield shard, answerer.answers(shard)


def _put_in_place(parts: Path, folder: Path, origin: Origin, index: Index) -> TargetIndex:
    with whole_folder(folder) as whole:
        files = [_moved(parts, whole, shard, origin, index) for shard in index.of("train")]
        return _write_index(
            whole,
            TargetIndex(
                targets="stored",
                origin=origin,
                views=origin.view.cycle,
                classes=index.scripts,
                files=tuple(files),
            ),
        )


def _moved(parts: Path, whole: Path, shard: Shard, origin: Origin, index: Index) -> StoredFile:
    part, name = parts / file_of(shard), file_of(shard)
    content = part.read_bytes()
    shape = (shard.samples, origin.view.cycle, len(index.scripts))
    unpack(content, shape, str(part), "remove it, and run the same command again")
    (whole / name).write_bytes(content)
    return StoredFile(
        name=name, samples=shard.samples, bytes=len(content), sha256=sha256(whole / name)
    )


def _write_index(folder: Path, index: TargetIndex) -> TargetIndex:
    write_whole(folder / INDEX_FILE, index.model_dump_json(indent=1) + "\n")
    return index
