"""The command line of the local S3 server: python -m cluster.s3 start|stop|status."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer
from botocore.exceptions import BotoCoreError, ClientError

from cluster.seaweedfs import Server
from pipeline.errors import DistillError

app = typer.Typer(
    help="A real S3 server on this machine, for data, checkpoints and models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Folder = Annotated[Path, typer.Option(help="Keeps the data, keys, ports and log.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
FOLDER = Path(".s3")


def main() -> None:
    """Runs the command line. Exit codes: 0 good, 1 failed, 2 wrong use."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    try:
        app()
    except (DistillError, OSError, BotoCoreError) as error:
        typer.secho(f"error: {error}", fg="red", bold=True, err=True)
        raise SystemExit(getattr(error, "exit_code", 1)) from error


@app.command()
def start(folder: Folder = FOLDER, as_json: Json = False) -> None:
    """Start the server, wait until it takes objects, and say how to use it."""
    server = Server(folder)
    server.start()
    known = server.credentials
    _show(
        {"endpoint": known.endpoint, "bucket": known.bucket, "next": f"source {folder / 'env'}"},
        as_json,
    )


@app.command()
def stop(folder: Folder = FOLDER, as_json: Json = False) -> None:
    """End the server; its data, keys and ports stay for the next start."""
    server = Server(folder)
    running = server.pid is not None
    server.stop()
    _show({"stopped": "yes" if running else "it was not running", "data": str(folder)}, as_json)


@app.command()
def status(folder: Folder = FOLDER, as_json: Json = False) -> None:
    """Say whether the server runs and answers; exit code 1 where it does not."""
    server = Server(folder)
    known, answer = server.credentials, "no"
    if server.pid is not None:
        try:
            server.client().head_bucket(Bucket=known.bucket)
            answer = "yes"
        except (BotoCoreError, ClientError) as error:
            answer = str(error)
    _show({"endpoint": known.endpoint, "bucket": known.bucket, "running": answer}, as_json)
    if answer != "yes":
        raise SystemExit(1)


def _show(result: dict[str, str], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(result, indent=2))
        return
    for name, value in result.items():
        typer.echo(f"{name}: {value}")


if __name__ == "__main__":
    main()
