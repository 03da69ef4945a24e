"""The command line: python -m pipeline ..."""

from __future__ import annotations

import json
import logging
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from safetensors import SafetensorError

from pipeline import compute, environment, params
from pipeline.errors import DistillError, UsageError
from pipeline.failure import tell
from pipeline.runs import all_runs, find

if TYPE_CHECKING:
    from pipeline.machine import Check

app = typer.Typer(
    help="Word images in, a small network that tells their script out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
ParamsFile = Annotated[Path, typer.Option("--params", help="The parameter file.")]
Teachers = Annotated[
    str | None,
    typer.Option(
        metavar="s3://BUCKET/PREFIX",
        help="In a job on a cluster: where the folders of the models that it takes lie.",
    ),
]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run, e.g. student-ocr.")]
PARAMS = params.PARAMS_FILE
SHARDS = Path("data/shards")
MODELS = Path("models")
TARGETS = Path("targets")
REPORTS = Path("reports")
EXPORTS = Path("exports")


def main() -> None:
    """Runs the command line. Exit codes: 0 good, 1 failed, 2 wrong use."""
    environment.set_defaults()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("pipeline").setLevel(logging.INFO)
    try:
        app()
    except Exception as error:
        tell(error)
        if not isinstance(error, (DistillError, OSError, SafetensorError)):
            raise
        message = f"error: {error}"
        if not isinstance(error, DistillError):
            # A full disk, a folder that may not be written: what was there before is still whole.
            message += "; nothing was left half-written, run the same command again"
        Console(stderr=True, soft_wrap=True).print(message, style="bold red", markup=False)
        raise SystemExit(getattr(error, "exit_code", 1)) from error


@app.command()
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
    _show({"archive": str(out), "bytes": out.stat().st_size}, as_json)


@app.command()
def shards(
    out: Annotated[Path, typer.Option(help="The folder to write.")] = SHARDS,
    params_file: ParamsFile = PARAMS,
    as_json: Json = False,
) -> None:
    """Audit the word images and pack them into WebDataset shards."""
    from pipeline.prepare import prepare

    audit, index = prepare(params.load(params_file), out)
    if as_json:
        _show(
            {"audit": audit.model_dump(mode="json"), "index": index.model_dump(mode="json")}, True
        )
        return
    _table("images", audit.table())
    _show({"shards": str(out), "version": index.version[:12]}, False)


@app.command()
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
    _show({"model": str(MODELS / run), **info.metrics}, as_json)


@app.command()
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
    _show({"targets": f"targets/{run}", "mode": index.targets, **sizes}, as_json)


@app.command()
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
        _show(best.model_dump(mode="json"), True)
        return
    if best.found is None:
        _show({"search": best.verdict}, False)
        return
    rows = [["setting", "best"], *([name, str(value)] for name, value in best.settings.items())]
    _table(f"trial {best.found.trial}: {best.found.validation_accuracy:.2f} % on validation", rows)
    _show({"verdict": best.verdict, "page": str(Path("search/index.html").resolve())}, False)


@app.command()
def evaluate(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every run of params.yaml.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="Judge on all labelled images of this folder or archive instead."),
    ] = None,
    params_file: ParamsFile = PARAMS,
    as_json: Json = False,
) -> None:
    """Measure accuracy on the test split, or on any folder in one of CVSI-2015's layouts."""
    from pipeline.evaluate import evaluate_folder, evaluate_run
    from pipeline.reporting.plots import write_metrics

    names = _chosen(params.load(params_file), run, every)
    if data is not None:
        found = [evaluate_folder(MODELS / name, data) for name in names]
    else:
        settings = params.load(params_file)
        found = [
            evaluate_run(
                settings, name, models=MODELS, shards=SHARDS, folder=REPORTS / "evaluations"
            )
            for name in names
        ]
        if every:
            write_metrics(REPORTS, MODELS, found)
    if as_json:
        _show([one.model_dump(mode="json") for one in found], True)
        return
    for one in found:
        rows = [["script", "images", "correct", "accuracy %", "F1 %"]]
        rows += [
            [name, str(s.images), str(s.correct), f"{s.accuracy:.2f}", f"{s.f1:.2f}"]
            for name, s in one.per_script.items()
            if s.images
        ]
        title = (
            f"{one.run} on {one.data.source}: {one.correct} of {one.images}, {one.accuracy:.2f} % "
            f"({one.accuracy_low:.2f} to {one.accuracy_high:.2f})"
        )
        _table(title, rows)


@app.command()
def robustness(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RUN...]", help="Runs; the chain of the first teacher if none."),
    ] = None,
    words: Annotated[int, typer.Option(help="Test words, evenly spread over the split.")] = 500,
    params_file: ParamsFile = PARAMS,
    as_json: Json = False,
) -> None:
    """Measure how accuracy falls as images get worse, and write reports/robustness."""
    from pipeline.reporting.robustness_page import PAGE_FILE, write
    from pipeline.robustness import default_runs, measure

    settings = params.load(params_file)
    found = measure(settings, runs or default_runs(settings), words, models=MODELS, shards=SHARDS)
    write(REPORTS / "robustness", found)
    if as_json:
        _show(found.model_dump(mode="json"), True)
        return
    _table(f"accuracy in percent on {found.words} words", found.table())
    _show({"page": str((REPORTS / "robustness" / PAGE_FILE).resolve())}, False)


@app.command()
def replicate(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN...]", help="Students; all if none.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas between.")] = "1,2,3,4,5",
    also: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Labelled images to judge on too; may come again."),
    ] = None,
    width: Annotated[
        list[float] | None,
        typer.Option(help="Also with so many times the channels; may come again."),
    ] = None,
    title: Annotated[str, typer.Option(help="What the page calls it.")] = "Students",
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("results/students.json"),
    params_file: ParamsFile = PARAMS,
    as_json: Json = False,
) -> None:
    """Train students again with other seeds, judge them, and compare them with intervals.

    Teachers and assistants stay as they are. Goes on where it was interrupted.
    """
    from pipeline.files import write_whole
    from pipeline.replicate import replicate as train_again

    try:
        chosen = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise UsageError(f"--seeds {seeds}: give numbers with commas, e.g. 1,2,3") from None
    found = train_again(
        params.load(params_file),
        runs or [],
        chosen,
        compute.load(),
        title=title,
        shards=SHARDS,
        models=MODELS,
        others=also or [],
        widths=width or [],
    )
    write_whole(out, found.model_dump_json(indent=1) + "\n")
    if as_json:
        _show(found.model_dump(mode="json"), True)
        return
    for one in found.judged:
        rows = [["run", "accuracy %", "95 % interval"]]
        rows += [
            [run.run, f"{run.accuracy:.2f}", f"{run.low:.2f} to {run.high:.2f}"] for run in one.runs
        ]
        _table(f"{one.images} images of {one.data.source}", rows)
    _show({"results": str(out), "page": "python -m pipeline results writes it"}, False)


@app.command()
def results(as_json: Json = False) -> None:
    """Write docs/results.md from the JSON in results/."""
    from pipeline.reporting.results_page import PAGE, RESULTS, write_results

    _show({"page": str(PAGE), "files": write_results(RESULTS, PAGE)}, as_json)


@app.command()
def report(params_file: ParamsFile = PARAMS, as_json: Json = False) -> None:
    """Write reports/summary.json and reports/index.html, and print the result table."""
    from pipeline.report import summary_table, write_report

    summary = write_report(params.load(params_file), REPORTS, models=MODELS, shards=SHARDS)
    if as_json:
        _show(summary.model_dump(mode="json"), True)
        return
    Console().print(summary_table(summary))
    _show({"report": str((REPORTS / "index.html").resolve())}, False)


@app.command()
def export(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="A run.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every student of params.yaml.")] = False,
    params_file: ParamsFile = PARAMS,
    as_json: Json = False,
) -> None:
    """Write exports/RUN: the model, the same as ONNX, compared on the test split, and a card."""
    from pipeline.export import export_run

    settings = params.load(params_file)
    names = _chosen(settings, run, every, role="student")
    exported = [
        export_run(name, models=MODELS, shards=SHARDS, reports=REPORTS, out=EXPORTS)
        for name in names
    ]
    _show([one.model_dump(mode="json") for one in exported], as_json)


@app.command()
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
        _show([answer.model_dump(mode="json") for answer in answers], True)
        return
    rows = [["image", "script", "probability"]]
    rows += [[answer.image, answer.script, f"{answer.probability:.3f}"] for answer in answers]
    _table("", rows)


@app.command()
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
        _show({"checks": [check.model_dump() for check in checks], "available": listing}, True)
    else:
        rows = [["", "check", "found", "advice"]]
        rows += [["ok" if c.ok else "!!", c.name, c.detail, c.advice] for c in checks]
        _table("", rows)
        _show(listing, False)
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


def _asked_to_stop(job: str) -> bool:
    """Whether somebody is there and wants a job to end with the command that follows it."""
    if not sys.stdin.isatty():
        return False
    try:
        return typer.confirm(f"\nStop the job {job}? Otherwise it goes on", err=True)
    except typer.Abort:
        return False


def _chosen(
    settings: params.Params, run: str | None, every: bool, role: str | None = None
) -> list[str]:
    if (run is None) != every:
        raise UsageError("give either a RUN or --all")
    if run is not None:
        return [find(settings, run).name]
    return [one.name for one in all_runs(settings) if role in (None, one.role)]


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


def _show(result: Any, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result, indent=2, ensure_ascii=False))
        return
    for part in result if isinstance(result, list) else [result]:
        for name, value in part.items():
            if isinstance(value, dict):
                shown = ", ".join(f"{key} {one}" for key, one in value.items())
            else:
                shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            typer.echo(f"{name}: {shown}")


def _table(title: str, rows: list[list[str]]) -> None:
    table = Table(*rows[0], title=title or None, title_justify="left")
    for row in rows[1:]:
        table.add_row(*row)
    for column in table.columns:
        # The end of a path is what tells it from the others.
        column.overflow = "fold"
    Console().print(table)
