"""What dies while the flow is at work, and many runs at once. Minutes: not run by default."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psutil
import pytest
from commands import runs
from prefect import State
from prefect.states import Crashed, Running, Scheduled
from projects import commit
from serving import Served, call, serve, sourced, until

pytestmark = [pytest.mark.slow, pytest.mark.long]

SOME_TIME = {"training.epochs": 400}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("faults") / "project") as started:
        yield started


def kill(served: Served, name: str) -> psutil.Process:
    process = served.service(name)
    process.kill()
    process.wait()
    return process


def kill_worker_and_runs(served: Served) -> None:
    started = served.service("worker").children(recursive=True)
    engines = [process for process in started if "prefect.engine" in process.cmdline()]
    # A run of a worker that is gone ends by itself: it must not come to that.
    for engine in engines:
        engine.suspend()
    kill(served, "worker")
    for engine in engines:
        engine.kill()


def start_again(served: Served) -> None:
    done = served.call(sys.executable, "-m", "flows.server", "start")
    assert done.returncode == 0, done.stdout + done.stderr


def training(served: Served, seed: int) -> UUID:
    """A run that has come to its training."""
    run = served.submit(overrides={**SOME_TIME, "seed": seed})
    until(lambda: served.progress(run, "student-alone") > 0, lambda: served.log(run))
    return run


def test_a_killed_run_is_run_again_from_where_it_was(served: Served) -> None:
    run = training(served, seed=1)
    (process,) = served.training()
    engine = next(one for one in process.parents() if "prefect.engine" in one.cmdline())
    engine.send_signal(signal.SIGKILL)
    until(lambda: not runs(process.pid), lambda: "the training outlived its run", seconds=15)
    # It goes on at its own commit, not at the newest.
    (served.project / "notes.txt").write_text("later")
    commit(served.project, "later")
    served.ended(run, "Completed")
    assert "goes on from epoch" in served.log(run)
    assert served.run(run).run_count == 2


def test_a_killed_worker_loses_no_run(served: Served) -> None:
    run = training(served, seed=2)
    kill(served, "worker")
    start_again(served)
    served.ended(run, "Completed")
    assert "goes on from epoch" in served.log(run)


def test_a_worker_killed_with_its_runs_is_found_out(served: Served) -> None:
    run = training(served, seed=3)
    kill_worker_and_runs(served)
    until(lambda: served.run(run).state_name == "AwaitingRetry", lambda: served.log(run), 180)
    states = [state.name for state in served.client.read_flow_run_states(run)]
    assert "Crashed" in states
    start_again(served)
    served.ended(run, "Completed")
    assert "goes on from epoch" in served.log(run)


def test_a_cancelled_run_that_nobody_is_left_to_end_is_cancelled(served: Served) -> None:
    run = training(served, seed=5)
    kill_worker_and_runs(served)
    served.cancel(run)
    until(lambda: served.run(run).state_name != "Cancelling", lambda: served.log(run), seconds=120)
    assert served.run(run).state_name == "Cancelled"
    start_again(served)
    assert not served.training()


def test_a_start_finds_what_was_cancelled_before_it(served: Served) -> None:
    run = training(served, seed=7)
    kill_worker_and_runs(served)
    served.cancel(run)
    start_again(served)
    assert served.run(run).state_name == "Cancelled"


def test_a_run_that_crashed_when_it_was_cancelled_stays_so(served: Served) -> None:
    later: State[Any] = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1))
    run = served.submit(state=later)
    served.client.set_flow_run_state(run, Running(), force=True)
    served.cancel(run)
    served.client.set_flow_run_state(run, Crashed(), force=True)
    until(lambda: served.run(run).state_name == "Cancelled", lambda: served.log(run))
    assert "had been cancelled" in served.message(run)


def test_a_run_goes_on_after_all_was_stopped_and_started(served: Served) -> None:
    run = training(served, seed=6)
    started = served.service("worker").children(recursive=True)
    stopped = served.call(sys.executable, "-m", "flows.server", "stop")
    assert stopped.returncode == 0, stopped.stderr
    assert [process for process in started if runs(process.pid)] == []
    assert not (served.project / ".prefect/env").exists()
    start_again(served)
    until(lambda: served.run(run).run_count == 2, lambda: served.log(run))
    served.ended(run, "Completed")
    assert "goes on from epoch" in served.log(run)


def test_a_killed_server_loses_no_run(served: Served) -> None:
    run = training(served, seed=4)
    kill(served, "server")
    assert served.training(), "the training goes on without the server"
    start_again(served)
    served.ended(run, "Completed")


def test_a_worker_follows_its_server_to_another_port(served: Served) -> None:
    worker, url = served.service("worker"), served.settings["PREFECT_API_URL"]
    kill(served, "server")
    port = int(url.removesuffix("/api").rsplit(":", 1)[1])
    with socket.create_server(("127.0.0.1", port)):
        start_again(served)
    moved = sourced(served.project)
    assert moved["PREFECT_API_URL"] != url
    assert not runs(worker.pid)
    run = ("prefect", "deployment", "run", "distill-pipeline/local", "--watch")
    done = call(served.project, *run, **moved)
    assert done.returncode == 0, done.stdout + done.stderr
