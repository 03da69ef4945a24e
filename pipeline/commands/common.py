"""What commands share: their options, and how results are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pipeline import params
from pipeline.errors import UsageError
from pipeline.runs import all_runs, find

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


def chosen(
    settings: params.Params, run: str | None, every: bool, role: str | None = None
) -> list[str]:
    """The names of the runs that are meant: one, or all of a role.

    Raises:
        UsageError: neither one nor all were asked for, or both; or there is no such run.
    """
    if (run is None) != every:
        raise UsageError("give either a RUN or --all")
    if run is not None:
        return [find(settings, run).name]
    return [one.name for one in all_runs(settings) if role in (None, one.role)]


def show(result: Any, as_json: bool) -> None:
    """Prints a result: as JSON, or a line for each of its values."""
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


def table(title: str, rows: list[list[str]]) -> None:
    """Prints rows as a table, the first one as its head."""
    console = Console()
    if not console.is_terminal:
        # Whoever reads a file or a pipe finds each row in one line.
        console.width = 10_000
    if title:
        console.print(title, soft_wrap=True, style="italic", highlight=False, markup=False)
    shown = Table(*rows[0])
    for row in rows[1:]:
        shown.add_row(*row)
    for column in shown.columns:
        # The end of a path is what tells it from the others.
        column.overflow = "fold"
    console.print(shown)
