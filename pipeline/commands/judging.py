"""Commands that judge: accuracy, robustness, other seeds, and what is written of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from pipeline import compute, params
from pipeline.commands.common import (
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

    settings = params.load(params_file)
    names = chosen(settings, run, every)
    if data is not None:
        found = [evaluate_folder(MODELS / name, data) for name in names]
    else:
        found = [
            evaluate_run(
                settings, name, models=MODELS, shards=SHARDS, folder=REPORTS / "evaluations"
            )
            for name in names
        ]
        if every:
            write_metrics(REPORTS, MODELS, found)
    if as_json:
        show([one.model_dump(mode="json") for one in found], True)
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
        table(title, rows)


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
        show(found.model_dump(mode="json"), True)
        return
    table(f"accuracy in percent on {found.words} words", found.table())
    show({"page": str((REPORTS / "robustness" / PAGE_FILE).resolve())}, False)


def replicate(
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE.json", help="The file to write; in results/, docs/results.md shows it."
        ),
    ],
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN...]", help="Students; all if none.")
    ] = None,
    seeds: Annotated[str, typer.Option(help="Seeds, with commas between.")] = "1,2,3,4,5",
    also: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Labelled images to judge on too; may be repeated."),
    ] = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Every student once more with this changed (for teacher and distillation.* those "
            "with teachers), e.g. distillation.loss=dkd, training.ema=0, width=0.7 or "
            "'teacher={teacher-ocr: 1, teacher-wide: 1}'; may be repeated.",
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="What the page calls it.")] = "Students",
    params_file: ParamsFile = PARAMS,
    as_json: Json = False,
) -> None:
    """Train students again with other seeds, judge them, and compare them with intervals.

    Each student is trained once for each seed; its teachers and assistants are taken from models/
    as they are. Goes on where it was interrupted.
    """
    from pipeline.changes import parse_change
    from pipeline.files import write_whole
    from pipeline.jobs import where
    from pipeline.replicate import replicate as train_again

    if where.job_server():
        raise UsageError(
            "students are trained again on this machine, and no job server is asked: set "
            "RAY_ADDRESS to nothing"
        )
    try:
        wanted = [int(seed) for seed in seeds.split(",")]
    except ValueError:
        raise UsageError(f"--seeds {seeds}: give numbers with commas, e.g. 1,2,3") from None
    found = train_again(
        params.load(params_file),
        runs or [],
        wanted,
        compute.load(),
        title=title,
        shards=SHARDS,
        models=MODELS,
        others=also or [],
        changes=[parse_change(one) for one in change or []],
    )
    write_whole(out, found.model_dump_json(indent=1) + "\n")
    if as_json:
        show(found.model_dump(mode="json"), True)
        return
    for one in found.judged:
        rows = [["run", "accuracy %", "95 % interval"]]
        rows += [
            [run.name, f"{run.accuracy:.2f}", f"{run.low:.2f} to {run.high:.2f}"]
            for run in one.runs
        ]
        table(f"{one.images} images of {one.data.source}", rows)
    show({"results": str(out), "page": "python -m pipeline results writes it"}, False)


def results(as_json: Json = False) -> None:
    """Write docs/results.md anew, with its pictures, from the JSON in results/."""
    from pipeline.reporting.results_page import PAGE, RESULTS, write_results

    show({"page": str(PAGE), "files": write_results(RESULTS, PAGE)}, as_json)


def report(params_file: ParamsFile = PARAMS, as_json: Json = False) -> None:
    """Write reports/summary.json and reports/index.html, and print the result table."""
    from pipeline.report import summary_table, write_report

    summary = write_report(params.load(params_file), REPORTS, models=MODELS, shards=SHARDS)
    if as_json:
        show(summary.model_dump(mode="json"), True)
        return
    Console().print(summary_table(summary))
    show({"report": str((REPORTS / "index.html").resolve())}, False)
