"""The flow on a real Prefect server, with a real worker, DVC and training."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prefect import State
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.schedules import CronSchedule
from prefect.states import Crashed, Running, Scheduled
from projects import commit, git
from serving import Served, call, locks, serve, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    # Paths with a space are quoted wherever a shell reads them.
    with serve(tmp_path_factory.mktemp("served") / "a project") as started:
        yield started


LONG = {"training.epochs": 4000}


def test_what_runs_is_left_alone(served: Served) -> None:
    def numbers() -> list[int]:
        return [served.service(name).pid for name in ("server", "worker")]

    nightly = served.client.read_deployment_by_name("distill-pipeline/nightly")
    (own,) = nightly.schedules
    served.client.update_deployment_schedule(nightly.id, own.id, active=True)
    weekly = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 3 * * 0"), active=False)
    served.client.create_deployment_schedules(nightly.id, [weekly])
    before = numbers()
    again = served.call(sys.executable, "-m", "flows.server", "start")
    assert again.returncode == 0, again.stderr
    assert served.settings["PREFECT_API_URL"].removesuffix("/api") in again.stdout
    after = served.client.read_deployment(nightly.id).schedules
    assert {(getattr(one.schedule, "cron", None), one.active) for one in after} == {
        ("0 2 * * *", True),
        ("0 3 * * 0", False),
    }
    elsewhere = served.call(sys.executable, "-m", "flows.server", "start", "--port", "1")
    assert elsewhere.returncode == 2
    assert "make prefect-stop first" in elsewhere.stderr
    assert numbers() == before


def test_a_deployment_runs_to_its_end(served: Served) -> None:
    (printed,) = re.findall(r"^To run the pipeline: +(.*)$", served.said, re.MULTILINE)
    assert printed.endswith("prefect deployment run distill-pipeline/local --watch")
    # As in a shell that knows nothing of this project.
    done = call(served.project, "sh", "-c", printed, PATH=os.defpath)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Completed" in done.stdout
    (run,) = served.runs()
    tasks = served.tasks(run.id)
    assert set(tasks) == {"pull", "shards", "side@one", "side@two", "student-alone", "report"}
    needs = {getattr(one, "id", None) for one in tasks["report"].task_inputs["wait_for"]}
    assert {tasks[name].id for name in ("student-alone", "side@one", "side@two")} <= needs
    log = served.log(run.id)
    assert "Running stage 'student-alone'" in log
    assert "student-alone  epoch 2/2" in log
    artifacts = served.artifacts(run.id)
    rows = {
        row["measure"]: row["value"] for row in json.loads(str(artifacts["student-alone"].data))
    }
    assert rows["outcome"] == "done"
    assert rows["seconds"] > 0
    assert rows["images/s"] > 0
    assert rows["epochs"] == 2
    assert artifacts["progress-student-alone"].data == 100
    assert "| cnn | 91.67 (82.67–96.67) |" in str(artifacts["result-matrix"].data)
    assert git(served.project, "status", "--porcelain") == ""
    assert git(served.project, "branch", "--list", "distill/*")


def test_a_finished_run_has_nothing_to_do_and_says_so(served: Served) -> None:
    run = served.submit()
    served.ended(run, "Completed", "Failed", "Crashed")
    assert served.message(run).startswith("No stage had anything to do.")


def test_what_no_retry_heals_is_not_tried_again(served: Served) -> None:
    run = served.submit(overrides={"training.lr": 1e30, "training.clip_norm": 0})
    assert served.ended(run, "Completed", "Failed").state_name == "Failed"
    tasks = served.tasks(run)
    assert tasks["student-alone"].run_count == 1
    assert "TrainingError" in served.message(run)
    assert tasks["side@one"].state_name == "Completed", "it does not need what failed"
    assert tasks["report"].state_name == "NotReady"


def test_a_run_tried_again_stays_at_its_commit(served: Served) -> None:
    run = served.submit(teachers=["nobody"])
    assert served.ended(run, "Completed", "Failed").state_name == "Failed"
    first = git(served.project, "rev-parse", "HEAD")
    (served.project / "notes.txt").write_text("later")
    commit(served.project, "later")
    served.retry(run)
    until(lambda: served.run(run).run_count == 2, lambda: served.log(run))
    served.ended(run, "Failed")
    assert served.run(run).labels["distill.commit"] == first


def test_a_run_that_only_crashes_ends_until_somebody_tries_it_again(served: Served) -> None:
    later: State[Any] = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1))
    run = served.submit(state=later, teachers=["nobody"])
    for _ in range(5):
        served.client.set_flow_run_state(run, Running(), force=True)
        served.client.set_flow_run_state(run, Crashed(), force=True)
    served.retry(run)
    served.ended(run, "Failed")
    assert "was started 6 times" in served.message(run)
    served.retry(run)
    until(lambda: "nobody" in served.message(run), lambda: served.log(run))


def test_a_killed_training_is_tried_again_and_a_cancelled_one_ends(served: Served) -> None:
    run = served.submit(overrides=LONG)
    until(lambda: served.progress(run, "student-alone") > 0, lambda: served.log(run))
    (training,) = served.training()
    os.kill(training.pid, signal.SIGKILL)
    until(lambda: "goes on from epoch" in served.log(run), lambda: served.log(run))
    assert served.tasks(run)["student-alone"].run_count == 2
    again = served.training()
    assert again
    served.cancel(run)
    until(lambda: not served.training(), lambda: served.log(run), seconds=15)
    assert served.ended(run, "Cancelled", "Failed", "Crashed").state_name == "Cancelled"
    for worktree in (served.project / ".worktrees").glob("*/.dvc"):
        assert locks(worktree.parent) == {}
