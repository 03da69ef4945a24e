"""python -m flows.server start | stop: a Prefect server and a worker on this machine.

What they keep, their logs and process numbers lie in .prefect/. Start makes what is not there yet.
"""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import psutil
import typer
from pydantic import BaseModel

from flows.processes import TOP
from pipeline.errors import DistillError, UsageError
from pipeline.files import write_whole

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

FOLDER: Final = TOP / ".prefect"
HOST: Final = "127.0.0.1"
PORT: Final = 4200
SECONDS: Final = 90
"""How long a service may take to answer."""
_PAGES: Final = {
    # The other UI of Prefect 3.8.8 has the browser call its analytics, even where they are off.
    "PREFECT_SERVER_UI_V2_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
}

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)


def main() -> None:
    """Runs the command line. Exit codes: 0 good, 1 failed, 2 wrong use."""
    try:
        app()
    except DistillError as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(error.exit_code) from error


class Service(BaseModel):
    """A process that was started here.

    Attributes:
        pid: its number.
        created: when it began, in seconds since 1970: this tells it from another of that number.
        url: of the server's API that it is or asks.
    """

    pid: int
    created: float
    url: str = ""

    def process(self) -> psutil.Process | None:
        """The process, if it is still there."""
        try:
            process = psutil.Process(self.pid)
            # The kernel says when since the machine's start, and that a second may be off.
            same = abs(process.create_time() - self.created) < 2
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


@app.command()
def start(
    port: Annotated[
        int | None,
        typer.Option(
            help="Of the server; another where it is taken. Otherwise the last one, at first 4200."
        ),
    ] = None,
) -> None:
    """Start a server and a worker; make the pool, limit, automations and deployments."""
    FOLDER.mkdir(exist_ok=True)
    url = _server(port)
    os.environ |= _settings(url)
    # Prefect reads its settings when it is imported.
    from prefect.client.orchestration import get_client  # noqa: PLC0415

    from flows.installation import HEARTBEAT, POOL, install  # noqa: PLC0415
    from flows.starts import put_back  # noqa: PLC0415

    with get_client(sync_client=True) as client:
        install(client, TOP)
        if _running("worker") is None:
            for run in put_back(client, TOP):
                typer.echo(f"The run {run} had lost its process")
        # No --limit here, the queues have theirs: with one, a worker of Prefect 3.8.8 dies of a run
        # that is put back into the queue before its process is quite gone.
        _start(
            "worker",
            url,
            *("prefect", "worker", "start", "--pool", POOL, "--type", "process"),
            # Always the same: its next one takes its place in the UI.
            *("--name", socket.gethostname()),
            PREFECT_FLOWS_HEARTBEAT_FREQUENCY=str(HEARTBEAT),
            PREFECT_WORKER_QUERY_SECONDS="2",
        )
        _wait("worker", lambda: _works(client, POOL))
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in _settings(url).items()]
    # The commands are this project's, which a shell need not have activated.
    lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"\n')
    write_whole(FOLDER / "env", "".join(lines))
    typer.echo(
        f"Prefect is at {url.removesuffix('/api')}\n"
        "To run the pipeline:  . .prefect/env && prefect deployment run "
        "distill-pipeline/local --watch\nTo end all this:      make prefect-stop"
    )


@app.command()
def stop() -> None:
    """End what start started; runs under way go on from where they were after the next start."""
    for name in ("worker", "server"):
        if _end(name):
            typer.echo(f"ended the {name}")
    (FOLDER / "env").unlink(missing_ok=True)


def _server(port: int | None) -> str:
    """The URL of the server's API; it is started where it does not run.

    Raises:
        UsageError: it runs, at another port than the one that is asked for.
    """
    kept = FOLDER / "port"
    if _running("server") is None:
        if port is None:
            port = int(kept.read_text()) if kept.exists() else PORT
        write_whole(kept, str(_free(port)))
    elif port and port != int(kept.read_text()):
        raise UsageError(
            f"the server runs at port {kept.read_text()}: to move it to {port}, "
            "make prefect-stop first"
        )
    number = kept.read_text()
    url = f"http://{HOST}:{number}/api"
    command = ("prefect", "server", "start", "--host", HOST, "--port", number)
    _start("server", url, *command, **_settings(url), **_PAGES)
    _wait("server", lambda: _healthy(url))
    return url


def _works(client: SyncPrefectClient, pool: str) -> bool:
    """Whether the worker that runs has asked the server for work, and not just one before it."""
    process = _running("worker")
    if process is None:
        return False
    began = datetime.fromtimestamp(process.create_time(), UTC)
    return any(
        worker.last_heartbeat_time is not None and worker.last_heartbeat_time > began
        for worker in client.read_workers_for_work_pool(pool, limit=200, offset=0)
        if worker.name == socket.gethostname()
    )


def _settings(url: str) -> dict[str, str]:
    return {
        "PREFECT_API_URL": url,
        "PREFECT_HOME": str(FOLDER / "home"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }


def _free(port: int) -> int:
    for wanted in (port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, wanted))
            except OSError:
                continue
            number: int = probe.getsockname()[1]
            return number
    raise DistillError(f"no free port on {HOST}")


def _healthy(url: str) -> bool:
    try:
        # The address is this file's own, on loopback.
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False


def _environment(**more: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return {**os.environ, "PATH": path, **more}


def _start(name: str, url: str, *command: str, **environment: str) -> None:
    """Starts a service where it does not run, or asks another server."""
    service = _service(name)
    if service is not None and service.process() is not None:
        if service.url == url:
            return
        _end(name)
    with (FOLDER / f"{name}.log").open("ab") as log:
        process = psutil.Popen(
            command,
            cwd=TOP,
            env=_environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    service = Service(pid=process.pid, created=process.create_time(), url=url)
    write_whole(FOLDER / f"{name}.json", service.model_dump_json())


def _end(name: str) -> bool:
    """Ends a service and all that it started.

    Returns:
        Whether it ran.
    """
    service = _running(name)
    if service is not None:
        started = service.children(recursive=True)
        with suppress(psutil.NoSuchProcess):
            service.terminate()
        _, left = psutil.wait_procs([service, *started], timeout=20)
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
    (FOLDER / f"{name}.json").unlink(missing_ok=True)
    return service is not None


def _running(name: str) -> psutil.Process | None:
    service = _service(name)
    return None if service is None else service.process()


def _service(name: str) -> Service | None:
    file = FOLDER / f"{name}.json"
    return Service.model_validate_json(file.read_text()) if file.exists() else None


def _wait(name: str, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not ready():
        if _running(name) is None or time.monotonic() > deadline:
            raise DistillError(f"the {name} did not start: see {FOLDER / f'{name}.log'}")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
