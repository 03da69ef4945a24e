"""The command line: python -m pipeline ..."""

from __future__ import annotations

import logging
import sys

import typer
from rich.console import Console
from safetensors import SafetensorError

from pipeline import environment
from pipeline.commands import judging, making, using
from pipeline.errors import DistillError
from pipeline.failure import tell

app = typer.Typer(
    help="Word images in, a small network that tells their script out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _command in (
    *(making.generate, making.shards, making.train, making.targets, making.search),
    *(judging.evaluate, judging.robustness, judging.replicate, judging.results, judging.report),
    *(using.export, using.predict, using.doctor),
):
    app.command()(_command)


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
