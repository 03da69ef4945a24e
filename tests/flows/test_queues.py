"""Many runs at one server: in turn on one machine, at night only for other data. Minutes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from prefect.client.schemas.objects import FlowRun, TaskRun
from projects import commit, git
from serving import Served, locks, serve, until

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("queues") / "project") as started:
        yield started


def overlap(runs: list[FlowRun] | list[TaskRun]) -> bool:
    """Whether one began before another had ended."""
    spans = sorted((run.start_time, run.end_time) for run in runs if run.start_time)
    assert len(spans) == len(runs)
    return any(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans) if earlier[1])


def test_ten_runs_queued_at_once_go_one_at_a_time(served: Served) -> None:
    asked = [served.submit(overrides={"seed": number % 2}) for number in range(10)]
    until(lambda: all(served.run(run).state_name == "Completed" for run in asked), str, 400)
    runs = [served.run(run) for run in asked]
    assert not overlap(runs)
    assert all(run.run_count == 1 for run in runs)
    did = [run for run in runs if served.message(run.id).startswith("Did ")]
    assert len({run.parameters["overrides"]["seed"] for run in did}) == len(did) == 2
    names = ("shards", "side@one", "side@two", "student-alone", "report")
    assert not overlap([served.tasks(run.id)[name] for run in runs for name in names])
    for worktree in (served.project / ".worktrees").glob("*/.dvc"):
        assert locks(worktree.parent) == {}


def test_the_queue_of_a_cluster_lets_them_through_and_the_machine_one_training(
    served: Served,
) -> None:
    asked = [
        served.submit("cluster", cluster=None, push=False, overrides={"seed": seed})
        for seed in (2, 3, 4)
    ]
    until(lambda: all(served.run(run).state_name == "Completed" for run in asked), str, 200)
    assert overlap([served.run(run) for run in asked])
    assert not overlap([served.tasks(run)["student-alone"] for run in asked])


def test_nightly_trains_only_on_other_data(served: Served) -> None:
    def nightly() -> str:
        run = served.submit("nightly")
        assert served.ended(run, "Completed", "Failed").state_name == "Completed", served.log(run)
        tasks = set(served.tasks(run))
        assert {"pull", "shards", "push"} <= tasks
        assert ("student-alone" in tasks) == ("student-alone" in served.message(run))
        return served.message(run)

    def merge(message: str) -> None:
        branch = message.split("on the branch ")[1].split(",", maxsplit=1)[0]
        git(served.project, "merge", "--quiet", branch)

    first = nightly()
    assert first.startswith("Did shards"), first
    assert "student-alone" in first
    assert nightly().startswith("No stage had anything to do.")
    merge(first)
    (served.project / "notes.txt").write_text("no stage needs it")
    commit(served.project, "something else")
    assert nightly().startswith("No stage had anything to do.")
    words = sorted((served.project / "words/Training").rglob("*.jpg"))
    words[0].unlink()
    commit(served.project, "other words")
    last = nightly()
    assert last.startswith("Did shards"), last
    assert "student-alone" in last
