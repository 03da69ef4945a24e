"""Commands that use what was made, or look at the machine: export, predict, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline import compute, params
from pipeline.commands.common import (
    EXPORTS,
    MODELS,
    PARAMS,
    REPORTS,
    SHARDS,
    Json,
    ParamsFile,
    chosen,
    show,
    table,
)
from pipeline.errors import UsageError
from pipeline.runs import find

if TYPE_CHECKING:
    from pipeline.machine import Check


def export(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every student of params.yaml.")] = False,
    params_file: ParamsFile = PARAMS,
    as_json: Json = False,
) -> None:
    """Write exports/RUN: the model, the same as ONNX, compared on the test split, and a card."""
    from pipeline.export import export_run

    settings = params.load(params_file)
    names = chosen(settings, run, every, role="student")
    exported = [
        export_run(name, models=MODELS, shards=SHARDS, reports=REPORTS, out=EXPORTS)
        for name in names
    ]
    show([one.model_dump(mode="json") for one in exported], as_json)


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Images or folders.")],
    run: Annotated[str | None, typer.Option(help="A trained run, under models/.")] = None,
    model: Annotated[
        str | None, typer.Option(help="A model folder, here or as s3://BUCKET/PREFIX.")
    ] = None,
    rev: Annotated[
        str | None, typer.Option(help="Take --run of this git revision, fetched through DVC.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Tell the script of word images, with its probability (--json: of every script)."""
    from pipeline.predict import predict as ask

    if (run is None) == (model is None):
        raise UsageError("give either --run, e.g. --run student-alone, or --model FOLDER")
    if rev is not None and run is None:
        raise UsageError("--rev takes the model of a run: give --run too, e.g. --run student-alone")
    answers = ask(_model(run, model, rev), images)
    if as_json:
        show([answer.model_dump(mode="json") for answer in answers], True)
        return
    rows = [["image", "script", "probability"]]
    rows += [[answer.image, answer.script, f"{answer.probability:.3f}"] for answer in answers]
    table("", rows)


def doctor(
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Look at every machine of a Ray cluster instead.")
    ] = False,
    wait: Annotated[
        bool,
        typer.Option("--wait", help="Wait for room for all workers first, as a run on it does."),
    ] = False,
    params_file: ParamsFile = PARAMS,
    as_json: Json = False,
) -> None:
    """Check this machine and the project, and list what is available."""
    settings = params.load(params_file)
    listing: dict[str, list[str]] = {}
    if wait and not cluster:
        raise UsageError("--wait is of doctor --cluster: this machine is there already")
    if cluster:
        checks = _cluster_checks(settings, wait)
    else:
        from pipeline.doctor import available, diagnose

        checks, listing = diagnose(settings), available(settings)
    if as_json:
        show({"checks": [check.model_dump() for check in checks], "available": listing}, True)
    else:
        rows = [["", "check", "found", "advice"]]
        rows += [["ok" if c.ok else "!!", c.name, c.detail, c.advice] for c in checks]
        table("", rows)
        show(listing, False)
    if not all(check.ok for check in checks):
        raise SystemExit(1)


def _cluster_checks(settings: params.Params, wait: bool) -> list[Check]:
    from pipeline.jobs import where

    if job := where.submission_id():
        from pipeline.jobs.examine import examine_cluster

        return examine_cluster(compute.load(), job, wait=wait)
    address = where.job_server()
    if address is None:
        raise UsageError("doctor --cluster asks a cluster: set RAY_ADDRESS=http://HOST:8265")
    from pipeline.jobs.submit import examine_from_here

    return examine_from_here(settings, compute.load(), address, wait=wait)


def _model(run: str | None, model: str | None, rev: str | None) -> Path:
    """The model folder that is meant, fetched where it is not here."""
    from pipeline import fetch, s3

    settings = compute.load()
    cache = Path(settings.model_cache).expanduser()
    if run is not None and rev is not None:
        return fetch.model_of_revision(run, rev, cache)
    if model is not None and s3.is_uri(model):
        return fetch.model_from_bucket(model, cache, settings.patience)
    if run is not None and not (MODELS / run).exists():
        find(params.load(PARAMS), run)
    return Path(model) if model is not None else MODELS / str(run)
