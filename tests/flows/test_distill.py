"""The pipeline in a worktree of its own, without a server: python -m flows.distill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml
from commands import runs
from projects import commit, git, make_project
from serving import SECONDS, call, until

from flows.worktree import alone
from pipeline.compute import cores

LIGHT = """
stages:
  one:
    cmd: mkdir -p out && cp words.txt out/one
    params: [seed]
    deps: [words.txt]
    outs: [out/one]
  side:
    matrix: {name: [a, b]}
    cmd: cp out/one out/${item.name}
    deps: [out/one]
    outs: ["out/${item.name}"]
  last:
    cmd: cat out/a out/b > out/last
    deps: [out/a, out/b]
    outs: [out/last]
"""
"""Stages that take no time."""
WAITING = """
stages:
  one:
    cmd: sh wait.sh && true
    outs: [out]
"""
"""The second command keeps every shell from giving its place to the first."""
DISTILL = (sys.executable, "-m", "flows.distill")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("light") / "project", stages=LIGHT)


def distill(project: Path, *options: str, code: int = 0) -> str:
    done = call(project, *DISTILL, *options)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def worktree_in(log: str) -> Path:
    """Where a run happened."""
    return Path(log.split("working in ")[1].splitlines()[0])


def test_stages_run_in_order_beside_each_other_and_the_checkout_stays(project: Path) -> None:
    log = distill(project, "--stages-at-once", "2")
    places = [log.index(f"{name}: done") for name in ("one", "side@a", "last")]
    assert places == sorted(places)
    assert log.index("side@b: done") < log.index("last: done")
    assert git(project, "status", "--porcelain") == ""
    (branch,) = git(project, "branch", "--list", "distill/*").split()
    assert "dvc.lock" in git(project, "diff", "--name-only", "main", branch.strip("+ "))
    again = distill(project)
    assert "No stage had anything to do." in again
    assert again.count("nothing to do") == 4


def test_overrides_are_set_in_the_worktree_only(project: Path) -> None:
    kept = distill(project, "--overrides", json.dumps({"seed": 7}))
    folder = worktree_in(kept)
    assert yaml.safe_load((folder / "params.yaml").read_text())["seed"] == 7
    assert (folder / "out/last").read_text() == "words" * 2
    assert yaml.safe_load((project / "params.yaml").read_text())["seed"] == 0


def test_only_the_request_says_which_cluster(tmp_path: Path) -> None:
    stages = LIGHT.replace("cp words.txt out/one", "(printenv RAY_ADDRESS || echo none) > out/one")
    project = make_project(tmp_path / "project", stages=stages)
    shell = {"RAY_ADDRESS": "http://127.0.0.1:1"}
    for options, address in (((), "none"), (("--cluster", "10.0.0.1:6379"), "10.0.0.1:6379")):
        done = call(project, *DISTILL, "--overrides", f"seed={len(options)}", *options, **shell)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (worktree_in(done.stdout) / "out/one").read_text().strip() == address


def test_stages_side_by_side_share_the_threads(tmp_path: Path) -> None:
    stages = LIGHT.replace("cp words.txt out/one", "printenv DISTILL_THREADS > out/one")
    project = make_project(tmp_path / "project", stages=stages)
    unset = ("env", "-u", "DISTILL_THREADS", "DISTILL_WORKERS=1")
    for stages_at_once in (1, cores() + 1):
        options = ("--stages-at-once", str(stages_at_once), "--overrides", f"seed={stages_at_once}")
        done = call(project, *unset, *DISTILL, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        threads = (worktree_in(done.stdout) / "out/one").read_text()
        assert int(threads) == max(1, cores() // stages_at_once)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--overrides", "seed=-1"), "seed: Input should be greater than or equal to 0"),
        (("--teachers", "nobody", "--overrides", "train.epochs=1"), "no section train for train."),
        (("--revision", "nowhere"), "has no 'nowhere'"),
        (("--stages-at-once", "0"), "--stages-at-once: Input should be greater than or equal to 1"),
        (("--overrides", "nonsense"), "overrides are KEY=VALUE or a JSON object"),
        (("--overrides", '{"seed": '), "overrides are KEY=VALUE or a JSON object"),
        (("--overrides", "seed={1"), "no value as in params.yaml"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    project: Path, options: tuple[str, ...], said: str
) -> None:
    before = git(project, "worktree", "list")
    done = call(project, *DISTILL, *options)
    assert done.returncode == 2
    assert said in done.stdout
    assert git(project, "worktree", "list") == before


def test_a_failed_stage_stops_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    stages = LIGHT.replace("cp out/one out/${item.name}", "test ${item.name} != a && touch out/b")
    project = make_project(tmp_path / "project", stages=stages)
    log = distill(project, code=1)
    assert "side@b: done" in log
    assert "last: " not in log
    assert "error: reproduce side@a" in log


def test_results_go_to_the_remote_and_come_back_elsewhere(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", stages=LIGHT)
    call(project, "dvc", "remote", "add", "--force", "-d", "local", str(tmp_path / "remote"))
    commit(project, "a remote")
    branch = distill(project, "--push").split("on the branch ")[1].split(",")[0]
    copy = tmp_path / "copy"
    git(tmp_path, "clone", "-q", "--branch", branch, str(project), str(copy))
    log = distill(copy, "--no-keep")
    assert log.count("nothing to do") == 4
    assert "dropped" in log
    assert len(git(copy, "worktree", "list").splitlines()) == 1
    assert not (copy / "out/last").exists(), "the checkout stays as it is"


def test_what_is_dropped_comes_back_from_the_cache_and_what_was_kept_stays(tmp_path: Path) -> None:
    script = f"echo done >> {tmp_path}/done; mkdir -p out; cp words.txt out/one"
    stages = LIGHT.replace("mkdir -p out && cp words.txt out/one", script)
    project = make_project(tmp_path / "project", stages=stages)
    for _ in range(2):
        log = distill(project, "--no-keep")
        assert "dropped" in log
        assert not worktree_in(log).exists()
        assert git(project, "branch", "--list", "distill/*") == ""
    kept = worktree_in(distill(project))
    branch = git(project, "rev-parse", f"distill/{kept.name}")
    assert "another run kept it" in distill(project, "--no-keep")
    assert (kept / "out/last").read_text() == "words" * 2
    assert git(project, "rev-parse", f"distill/{kept.name}") == branch
    assert (tmp_path / "done").read_text().split() == ["done"], "the cache had it"


def test_worktrees_are_cleaned_away_when_nobody_is_in_them(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", stages=LIGHT)
    idle, busy = (worktree_in(distill(project, "--overrides", f"seed={seed}")) for seed in range(2))
    clean = (sys.executable, "-m", "flows.clean")
    assert f"{idle.name}: stays, had a run 0 days ago" in call(project, *clean).stdout
    with alone(busy.parent / "locks" / busy.name, lambda: None):
        said = call(project, *clean, "--days", "0").stdout
    assert f"{idle.name}: removed" in said
    assert f"{busy.name}: stays, a run is at work in it" in said
    assert [idle.exists(), busy.exists()] == [False, True]
    assert str(idle) not in git(project, "worktree", "list")
    assert len(git(project, "branch", "--list", "distill/*").splitlines()) == 2
    assert "No stage had anything to do." not in distill(project, "--overrides", "seed=0")


def test_what_a_killed_git_leaves_behind_is_in_nobodys_way(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", stages=LIGHT)
    folder = worktree_in(distill(project))
    Path(git(folder, "rev-parse", "--git-path", "index.lock")).touch()
    with (folder / "params.yaml").open("a") as file:
        file.write("\n")
    assert "The results are on the branch" in distill(project)
    # As git has it while it makes one.
    git(project, "worktree", "lock", str(folder))
    folder.with_suffix(".json").unlink()
    assert f"in {folder}" in distill(project)


def test_a_branch_that_somebody_works_on_stays_theirs(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", stages=LIGHT)
    folder = worktree_in(distill(project))
    branch, main = f"distill/{folder.name}", git(project, "rev-parse", "main")
    git(project, "checkout", "-q", branch)
    (project / "words.txt").write_text("mine")
    mine = commit(project, "mine")
    assert f"on the branch {branch}" in distill(project, "--revision", main)
    # Something to commit that the branch does not have.
    with (folder / "params.yaml").open("a") as file:
        file.write("\n")
    log = distill(project, "--revision", main)
    assert f"The results are in the commit {git(folder, 'rev-parse', 'HEAD')}" in log
    git(project, "checkout", "-q", "main")
    assert "Nothing changed in the commit" in distill(project)
    assert git(project, "rev-parse", branch) == mine


def test_what_the_checkout_has_of_its_own_follows_into_a_worktree_that_is_there(
    tmp_path: Path,
) -> None:
    project = make_project(tmp_path / "project", stages=LIGHT)
    folder = worktree_in(distill(project))
    remote, fonts = tmp_path / "remote", Path("pipeline/data/fontsource/node_modules")
    for command in (("add", "-d", "late", str(remote)), ("modify", "late", "verify", "true")):
        assert call(project, "dvc", "remote", command[0], "--local", *command[1:]).returncode == 0
    (project / fonts).mkdir()
    log = distill(project, "--push")
    assert worktree_in(log) == folder
    assert list((remote / "files").rglob("*"))
    assert (folder / fonts).resolve() == project / fonts
    config = folder / ".dvc/config.local"
    assert "verify" in config.read_text()
    assert config.stat().st_mode & 0o777 == 0o600


def test_stages_after_the_data_run_only_if_the_data_changed(tmp_path: Path) -> None:
    stages = LIGHT.replace("out/one", "data/shards").replace("mkdir -p out", "mkdir -p data out")
    project = make_project(tmp_path / "project", stages=stages)
    assert "last: done" in distill(project, "--only-if-data-changed")
    assert "last" not in distill(project, "--only-if-data-changed")
    (project / "words.txt").write_text("other words")
    commit(project, "other words")
    assert "last: done" in distill(project, "--only-if-data-changed")


def test_one_trains_at_a_time_whatever_is_asked_for(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", stages=WAITING)
    go, began = tmp_path / "go", tmp_path / "began"
    script = f"echo $$ >> {began}\nuntil test -e {go}; do sleep 0.05; done\ntouch out\n"
    (project / "wait.sh").write_text(script)
    (project / "dvc.yaml").write_text(WAITING + "    params: [seed]\n")
    commit(project, "wait")
    outs = [tmp_path / f"{seed}.txt" for seed in range(2)]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for seed, out in enumerate(outs):
            with out.open("wb") as file:
                command = (*DISTILL, "--overrides", f"seed={seed}")
                processes.append(subprocess.Popen(command, cwd=project, stdout=file))
            said = (began.exists, lambda: "waiting for its end" in outs[1].read_text())[seed]
            until(said, out.read_text)
        assert "at work on this machine" in outs[1].read_text()
        assert len(began.read_text().split()) == 1
        go.touch()
        for process, out in zip(processes, outs, strict=True):
            assert process.wait(60) == 0, out.read_text()
        assert len(began.read_text().split()) == 2
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_one_run_waits_for_another_and_a_killed_one_leaves_nothing(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", stages=WAITING)
    go, began = tmp_path / "go", tmp_path / "began"
    script = f"echo $$ >> {began}\nuntil test -e {go}; do sleep 0.05; done\ntouch out\n"
    (project / "wait.sh").write_text(script)
    commit(project, "wait")

    def start(name: str) -> tuple[subprocess.Popen[bytes], Path]:
        out = tmp_path / name
        with out.open("wb") as file:
            return subprocess.Popen(DISTILL, cwd=project, stdout=file), out

    first, first_out = start("first")
    second = third = first
    try:
        until(began.exists, first_out.read_text)
        second, second_out = start("second")
        until(lambda: "waiting for its end" in second_out.read_text(), second_out.read_text)
        first.send_signal(signal.SIGKILL)
        until(lambda: len(began.read_text().split()) == 2, second_out.read_text, seconds=15)
        dead = int(began.read_text().split()[0])
        assert not runs(dead), "the first one's stage ended before"
        third, third_out = start("third")
        until(lambda: "waiting for its end" in third_out.read_text(), third_out.read_text)
        second.send_signal(signal.SIGTERM)
        assert second.wait(15) != 0
        go.touch()
        assert third.wait(60) == 0, third_out.read_text()
    finally:
        for process in (first, second, third):
            process.kill()
            process.wait()


def test_what_nobody_was_left_to_end_is_ended_by_the_next_run(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", stages=WAITING)
    go, began = tmp_path / "go", tmp_path / "began"
    script = [
        "echo half > out",
        f"echo $$ >> {began}",
        f"until test -e {go}; do sleep 0.05; done",
        "echo whole > out",
    ]
    (project / "wait.sh").write_text("\n".join(script))
    commit(project, "wait")

    def start(out: Path) -> subprocess.Popen[bytes]:
        with out.open("wb") as file:
            return subprocess.Popen(DISTILL, cwd=project, stdout=file)

    outs = [tmp_path / "first", tmp_path / "second"]
    first = second = start(outs[0])
    try:
        until(lambda: began.exists() and began.read_text().endswith("\n"), outs[0].read_text)
        left = int(began.read_text())
        keeper = psutil.Process(left).parent()
        while keeper is not None and "flows.dvc_process" not in keeper.cmdline():
            keeper = keeper.parent()
        assert keeper is not None
        # As if both were killed at the same moment.
        keeper.suspend()
        first.kill()
        first.wait()
        keeper.kill()
        # Until init has fetched its end, DVC takes it for the living holder of its lock.
        keeper.wait(SECONDS)
        assert runs(left)
        second = start(outs[1])
        until(lambda: len(began.read_text().split()) == 2, outs[1].read_text)
        assert not runs(left)
        go.touch()
        assert second.wait(60) == 0, outs[1].read_text()
        assert (worktree_in(outs[1].read_text()) / "out").read_text() == "whole\n"
    finally:
        for process in (first, second):
            process.kill()
            process.wait()
