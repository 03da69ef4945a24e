"""Commands that make: images, shards, models, their stored targets, better settings."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated

import typer

from pipeline import compute, params
from pipeline.commands.common import (
    MODELS,
    PARAMS,
    SHARDS,
    TARGETS,
    Json,
    ParamsFile,
    RunName,
    Teachers,
    show,
    table,
)
from pipeline.errors import UsageError
from pipeline.runs import find


def generate(
    out: Annotated[Path, typer.Option(help="The archive to write.")] = Path("data/generated.zip"),
    params_file: ParamsFile = PARAMS,
    as_json: Json = False,
) -> None:
    """Draw word images in the ten scripts, as an archive in CVSI-2015's layout."""
    from pipeline.data.generate import generate as draw
    from pipeline.progress import Progress

    settings = params.load(params_file)
    if settings.data.source == "generated":
        draw(
            settings.generate, out, workers=compute.cores(), progress=Progress("generate", "images")
        )
    else:
        # DVC wants every stage to leave its output, also where nothing is to be generated.
        out.parent.mkdir(parents=True, exist_ok=True)
        out.touch()
    show({"archive": str(out), "bytes": out.stat().st_size}, as_json)


def shards(
    out: Annotated[Path, typer.Option(help="The folder to write.")] = SHARDS,
    params_file: ParamsFile = PARAMS,
    as_json: Json = False,
) -> None:
    """Audit the word images and pack them into WebDataset shards."""
    from pipeline.prepare import prepare

    audit, index = prepare(params.load(params_file), out)
    if as_json:
        show({"audit": audit.model_dump(mode="json"), "index": index.model_dump(mode="json")}, True)
        return
    table("images", audit.table())
    show({"shards": str(out), "version": index.version[:12]}, False)


def train(
    run: RunName,
    teachers: Teachers = None,
    params_file: ParamsFile = PARAMS,
    as_json: Json = False,
) -> None:
    """Train one run: a teacher, an assistant or a student. Goes on where it was interrupted.

    With RAY_ADDRESS=http://HOST:8265 it becomes a job on that cluster, whose model is brought back.
    """
    from pipeline.jobs import where
    from pipeline.search.best import with_best

    settings, chosen = with_best(params.load(params_file), run), compute.load()
    on_cluster = where.submission_id() or where.job_server()
    found = find(settings, run)
    if on_cluster and found.targets == "stored" and found.view != settings.view:
        raise UsageError(
            f"the views that the search found for {run} are others than the stored targets are of, "
            "and a job makes none: train it here, or set distillation.targets to live"
        )
    if job := where.submission_id():
        from pipeline.jobs.inside import train_in_job

        info = train_in_job(settings, run, chosen, job, teachers)
    elif teachers is not None:
        raise UsageError("--teachers is for jobs on a cluster; here they are taken from models/")
    elif address := where.job_server():
        from pipeline.jobs.submit import train_on_cluster

        info = train_on_cluster(settings, run, chosen, address, stop=_asked_to_stop)
    else:
        from pipeline.search.student import train_student

        info = train_student(settings, run, chosen, shards=SHARDS, models=MODELS)
    show({"model": str(MODELS / run), **info.metrics}, as_json)


def targets(
    run: RunName,
    teachers: Teachers = None,
    params_file: ParamsFile = PARAMS,
    as_json: Json = False,
) -> None:
    """Ask the model of a run about every training view, once, for the runs that it teaches.

    Goes on where it was interrupted. With RAY_ADDRESS=http://HOST:8265 it becomes a job on that
    cluster, whose answers are brought back.
    """
    from pipeline.jobs import where

    settings, chosen = params.load(params_file), compute.load()
    stored = settings.distillation.targets == "stored"
    if stored and (job := where.submission_id()):
        from pipeline.jobs.inside import targets_in_job

        index = targets_in_job(settings, run, chosen, job, teachers)
    elif teachers is not None:
        raise UsageError("--teachers is for jobs on a cluster; here they are taken from models/")
    elif stored and (address := where.job_server()):
        from pipeline.jobs.submit import targets_on_cluster

        index = targets_on_cluster(settings, run, chosen, address, stop=_asked_to_stop)
    else:
        from pipeline.train.targets import make_targets

        index = make_targets(settings, run, chosen, shards=SHARDS, models=MODELS)
    sizes = {"views": index.views, "bytes": sum(file.bytes for file in index.files)}
    show({"targets": f"targets/{run}", "mode": index.targets, **sizes}, as_json)


def search(params_file: ParamsFile = PARAMS, as_json: Json = False) -> None:
    """Search the settings that students learn with, and compare the best with the default.

    Goes on where it was interrupted. With RAY_ADDRESS=HOST:6379 trials run on that cluster.
    """
    from pipeline.jobs import where
    from pipeline.search.run import run_search

    settings, chosen = params.load(params_file), compute.load()
    if settings.search.trials and settings.distillation.targets == "live":
        raise UsageError(
            "a search learns from stored targets: set distillation.targets to stored, or "
            "search.trials to 0"
        )
    if settings.search.trials and where.job_server():
        raise UsageError(
            "a search joins a cluster, or runs here: set RAY_ADDRESS to HOST:6379, or to nothing"
        )
    # Ray tells of processes that died there, where the result is to stand alone.
    with redirect_stdout(sys.stderr):
        best = run_search(settings, chosen, shards=SHARDS, models=MODELS, targets=TARGETS)
    if as_json:
        show(best.model_dump(mode="json"), True)
        return
    if best.found is None:
        show({"search": best.verdict}, False)
        return
    rows = [["setting", "best"], *([name, str(value)] for name, value in best.settings.items())]
    table(f"trial {best.found.trial}: {best.found.validation_accuracy:.2f} % on validation", rows)
    show({"verdict": best.verdict, "page": str(Path("search/index.html").resolve())}, False)


def _asked_to_stop(job: str) -> bool:
    """Whether somebody is there and wants a job to end with the command that follows it."""
    if not sys.stdin.isatty():
        return False
    try:
        return typer.confirm(f"\nStop the job {job}? Otherwise it goes on", err=True)
    except typer.Abort:
        return False
