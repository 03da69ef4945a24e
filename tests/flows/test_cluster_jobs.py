"""The deployment on a cluster whose trainings are jobs, with all data in a real bucket. Minutes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from clustered import jobs
from head import Head
from projects import commit
from serving import Served, serve, until

from cluster.seaweedfs import Server

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def environment(s3: Server) -> dict[str, str]:
    """Of the worker, and of the cluster's machine."""
    return {
        **s3.credentials.environment(),
        "AWS_EC2_METADATA_DISABLED": "true",
        "DISTILL_WORKERS": "1",
        "DISTILL_STREAM": "bucket",
        "DISTILL_STORAGE": f"s3://{s3.credentials.bucket}/flows-kept",
    }


@pytest.fixture(scope="module")
def head(environment: dict[str, str]) -> Iterator[Head]:
    with Head(environment=environment) as started:
        yield started


@pytest.fixture(scope="module")
def served(
    head: Head, s3: Server, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("jobs")
    more = {
        **environment,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": head.token,
        "DISTILL_CACHE": str(folder / "cache"),
        "DISTILL_MODEL_CACHE": str(folder / "models"),
    }
    with serve(folder / "project", more) as started:
        url = f"s3://{s3.credentials.bucket}/flows"
        done = started.call("dvc", "remote", "add", "-d", "bucket", url)
        assert done.returncode == 0, done.stderr
        commit(started.project, "a remote in the bucket")
        yield started


def test_trainings_are_jobs_that_read_the_data_from_the_remote(served: Served, head: Head) -> None:
    run = served.submit("cluster", cluster=head.address)
    assert served.ended(run, "Completed", "Failed").state_name == "Completed", served.log(run)
    assert {"push-data", "student-alone", "report", "push"} < set(served.tasks(run))
    (job,) = jobs(head)
    assert (job["submission_id"].startswith("student-alone-"), job["status"]) == (True, "SUCCEEDED")
    again = served.submit("cluster", cluster=head.address)
    served.ended(again, "Completed", "Failed")
    assert served.message(again).startswith("No stage had anything to do."), served.log(again)
    assert len(jobs(head)) == 1


def test_a_cancelled_run_ends_its_job(served: Served, head: Head) -> None:
    def statuses() -> list[str]:
        return [job["status"] for job in jobs(head)]

    before = len(jobs(head))
    run = served.submit("cluster", cluster=head.address, overrides={"training.epochs": 4000})
    until(lambda: served.progress(run, "student-alone") > 0, lambda: served.log(run))
    assert statuses().count("RUNNING") == 1
    served.cancel(run)
    until(lambda: "RUNNING" not in statuses(), lambda: served.log(run), seconds=15)
    assert statuses().count("STOPPED") == 1
    assert served.ended(run, "Cancelled", "Failed", "Crashed").state_name == "Cancelled"
    assert len(jobs(head)) == before + 1
