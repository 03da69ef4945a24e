"""Searches that take minutes: every algorithm, a node that dies, a disk that is full, DVC."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import descendants, environment, run, start, wait_until
from head import Head, nodes_alive
from projects import make_project
from pyarrow import parquet
from searching import GOOD, SPACE, change, journal, project, settings

from cluster.seaweedfs import Credentials, Server

pytestmark = pytest.mark.long

TOP = Path(__file__).parents[2]


def rows(folder: Path, role: str = "search") -> list[dict[str, Any]]:
    table = parquet.read_table(folder / "search/trials.parquet").to_pylist()
    return [row for row in table if row["role"] == role]


def search(folder: Path, **compute: Any) -> str:
    done = run(folder, "search", **compute)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_tpe_under_asha_ends_early_what_lags_behind(tmp_path: Path) -> None:
    # The default's rate is not among them: where it is best there is nothing to compare.
    rates = {"training.lr": {"choice": [1e-6, 0.012, 0.02]}}
    folder = project(tmp_path / "p", trials=8, reduction=2, space={**SPACE, **rates})
    search(folder)
    states = {row["trial"]: row["state"] for row in rows(folder)}
    assert len(states) == 8
    assert set(states.values()) == {"completed", "stopped"}
    best = yaml.safe_load((folder / "search/best.yaml").read_text())
    assert best["settings"]["training.lr"] > 1e-3
    # More trials go on with what is there.
    before = journal(folder)
    change(folder, trials=10, reduction=2, space={**SPACE, **rates})
    search(folder)
    after = journal(folder)
    assert after[: len(before)] == before
    assert {e["trial"] for e in after[len(before) :] if e.get("role") == "search"} == {13, 14}
    assert len({row["trial"] for row in rows(folder)}) == 10


def test_accuracy_and_latency_are_sought_together(tmp_path: Path) -> None:
    widths = {"width": {"choice": [0.5, 1, 8]}}
    both = {"objectives": ["accuracy", "latency"], "space": {**SPACE, **widths}}
    folder = project(tmp_path / "p", trials=6, **both)
    search(folder)
    best = yaml.safe_load((folder / "search/best.yaml").read_text())
    front = best["front"]
    assert best["found"] == front[-1]
    assert [one["latency_ms"] for one in front] == sorted(one["latency_ms"] for one in front)
    parameters = {row["width"]: row["parameters"] for row in rows(folder)}
    assert sorted(parameters.values()) == [parameters[width] for width in sorted(parameters)]


def test_pbt_lets_a_bad_trial_go_on_with_what_a_better_one_has_learnt(tmp_path: Path) -> None:
    space = {"training.lr": {"log": [1e-6, 0.05]}, "distillation.weight": {"uniform": [0.3, 1]}}
    chosen: dict[str, Any] = {
        "scheduler": "pbt",
        "algorithm": "random",
        "trials": 4,
        "space": space,
    }
    folder = project(tmp_path / "p", epochs=8, **chosen)
    search(folder)
    found = rows(folder)
    assert len({row["trial"] for row in found}) == 4
    assert {row["epoch"] for row in found} == {*range(1, 9)}
    changed = {row["trial"] for row in found} - {
        trial
        for trial in {row["trial"] for row in found}
        if len({row["training.lr"] for row in found if row["trial"] == trial}) == 1
    }
    assert changed
    assert all(1e-6 <= row["training.lr"] <= 0.05 for row in found)


def test_it_stops_when_its_hours_are_over(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", trials=1000, hours=20 / 3600, scheduler="none")
    said = search(folder)
    assert "1000 trials, 2 at once" in said
    states = {row["trial"]: row["state"] for row in rows(folder)}
    assert 0 < len(states) < 1000
    assert set(states.values()) <= {"completed", "stopped"}
    before = journal(folder)
    search(folder)
    assert journal(folder) == before, "there is no time left"


def test_without_time_left_nothing_is_tried(tmp_path: Path) -> None:
    """To Tune no time at all is no limit; until Ray has started the second is over."""
    folder = project(tmp_path / "p", hours=1 / 3600)
    done = run(folder, "search")
    assert done.returncode == 1
    assert "no trial of the search came to an accuracy" in done.stderr
    assert journal(folder) == []


def test_teachers_are_asked_once_whatever_else_of_the_space_changes(tmp_path: Path) -> None:
    views = {"augmentation": {"choice": [0.5]}, "training.lr": {"log": [0.003, 0.05]}}
    folder = project(tmp_path / "p", trials=2, space=views)
    assert search(folder).count(f"{GOOD} is asked about") >= 1
    change(folder, trials=2, space={**views, "training.lr": {"log": [0.004, 0.05]}})
    assert "is asked about" not in search(folder)


def test_a_trial_too_large_for_every_machine_is_refused(tmp_path: Path) -> None:
    folder = project(tmp_path / "p")
    done = run(folder, "search", trial_cpus=1000)
    assert done.returncode == 2
    assert "a trial takes 1000 CPU, which no machine of Ray's has" in done.stderr
    assert journal(folder) == []


def test_a_process_that_is_killed_goes_on_from_its_last_epoch(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", epochs=60, trials=2, scheduler="none")
    process = start(folder, "search")

    def training() -> list[int]:
        named = descendants(process.pid).items()
        return [pid for pid, command in named if command.startswith("ray::ImplicitFunc.train")]

    try:
        wait_until(lambda: any(event.get("epoch", 0) >= 3 for event in journal(folder)), process)
        wait_until(lambda: bool(training()), process)
        os.kill(training()[0], signal.SIGKILL)
        assert process.wait(timeout=300) == 0, (folder / "out.txt").read_text()
    finally:
        process.kill()
        process.wait()
    assert "died: it goes on from its last epoch" in (folder / "out.txt").read_text()
    found = rows(folder)
    assert {row["state"] for row in found} == {"completed"}
    assert {row["epoch"] for row in found} == {*range(1, 61)}
    first = next(i for i, event in enumerate(journal(folder)) if event.get("epoch", 0) >= 3)
    again = [event["epoch"] for event in journal(folder)[first:] if "metrics" in event]
    assert again.count(1) <= 5, "nobody began anew"


def test_checkpoints_in_s3_are_gone_on_from_and_removed(
    tmp_path: Path, s3: Server, s3_environment: Credentials
) -> None:
    folder = project(tmp_path / "p", epochs=30, trials=3, scheduler="none")
    storage = f"s3://{s3_environment.bucket}/searched"
    process = start(folder, "search", storage=storage, workers=1)
    try:
        wait_until(lambda: any(event.get("epoch", 0) >= 5 for event in journal(folder)), process)
    finally:
        process.kill()
        process.wait()
    before = journal(folder)
    kept = [event["checkpoint"] for event in before if "checkpoint" in event]
    assert kept and all(address.startswith(storage) for address in kept)
    search(folder, storage=storage, workers=1)
    after = [e for e in journal(folder)[len(before) :] if "metrics" in e and e["trial"] <= 2]
    first = {trial: min(e["epoch"] for e in after if e["trial"] == trial) for trial in (1, 2)}
    assert max(first.values()) >= 4, "it went on from its checkpoint"
    assert {row["state"] for row in rows(folder)} == {"completed"}
    listing = s3.client().list_objects_v2(Bucket=s3_environment.bucket, Prefix="searched")
    assert not [one for one in listing.get("Contents", []) if one["Size"]]


STAGES = """
stages:
  shards:
    cmd: python -m pipeline shards
    params: [data]
    deps: [words]
    outs: [data/shards, reports/audit.json]
  teacher:
    cmd: python -m pipeline train teacher-cnn && python -m pipeline targets teacher-cnn
    deps: [data/shards]
    outs: [models/teacher-cnn, targets/teacher-cnn]
  search:
    cmd: python -m pipeline search
    params: [search.trials, search.space]
    deps: [targets]
    outs: [search/best.yaml, search/trials.parquet, search/index.html, search/zoo]
  student:
    cmd: python -m pipeline train student-cnn
    deps: [targets/teacher-cnn, "search/${search.used}.yaml"]
    outs: [models/student-cnn]
"""
"""What of dvc.yaml has to do with a search."""


def test_dvc_trains_students_anew_with_what_was_found_and_back(tmp_path: Path) -> None:
    content = settings(trials=0, space={"training.lr": {"log": [0.02, 0.05]}})
    folder = make_project(tmp_path / "p", stages=STAGES, **content | {"teachers": ["cnn"]})

    def repro(**search: Any) -> str:
        path = folder / "params.yaml"
        params = json.loads(path.read_text())
        params["search"] |= search
        path.write_text(json.dumps(params))
        done = subprocess.run(
            [str(Path(sys.executable).with_name("dvc")), "repro"],
            cwd=folder,
            env={
                **environment(),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "DVC_NO_ANALYTICS": "1",
            },
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def rate() -> float:
        about = json.loads((folder / "models/student-cnn/model.json").read_text())
        return float(about["parameters"]["training"]["lr"])

    repro()
    assert rate() == 0.01
    assert "Running stage 'student'" not in repro(trials=2)
    assert "Running stage 'student'" in repro(used="best")
    best = yaml.safe_load((folder / "search/best.yaml").read_text())
    assert rate() == best["settings"]["training.lr"] != 0.01
    assert "Running stage 'search'" not in repro(used="none")
    assert rate() == 0.01


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    if os.geteuid():
        pytest.skip("only root may mount a small disk")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_on_a_full_disk_what_fits_goes_on(tmp_path: Path, disk: Path) -> None:
    widths = {"width": {"choice": [1, 40]}}
    folder = project(
        tmp_path / "p",
        trials=6,
        algorithm="random",
        scheduler="none",
        space={**SPACE, **widths, "teacher": {"choice": [GOOD]}},
    )
    search(folder, storage=disk)
    found = {row["trial"]: row for row in rows(folder)}
    assert len(found) == 6
    large = [row for row in found.values() if row["width"] == 40]
    small = [row for row in found.values() if row["width"] == 1]
    assert large and small
    assert all("No space left" in row["error"] for row in large)
    assert {row["state"] for row in large} == {"failed"}
    assert {row["state"] for row in small} == {"completed"}


def test_a_node_that_dies_takes_no_trial_with_it(tmp_path: Path) -> None:
    folder = project(tmp_path / "p", epochs=60, trials=3, scheduler="none")
    with Head(cpus=1, environment={"PYTHONPATH": str(TOP)}) as head:
        node = _join(head)
        wait_until(lambda: nodes_alive(head.address, head.token) == 2, node)
        extra = {"RAY_ADDRESS": head.node, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": head.token}
        with (folder / "out.txt").open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipeline", "search"],
                cwd=folder,
                env={**environment(), **extra},
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(
                lambda: len({e["trial"] for e in journal(folder) if e.get("epoch", 0) >= 3}) >= 2,
                process,
            )
            os.killpg(node.pid, signal.SIGKILL)
            assert process.wait(timeout=400) == 0, (folder / "out.txt").read_text()
        finally:
            process.kill()
            process.wait()
            node.wait()
    assert "2 at once" in (folder / "out.txt").read_text()
    assert "died: it goes on from its last epoch" in (folder / "out.txt").read_text()
    assert {row["state"] for row in rows(folder)} == {"completed"}
    assert len({row["trial"] for row in rows(folder)}) == 3


def _join(head: Head) -> subprocess.Popen[bytes]:
    """A second node of the cluster, in a session of its own."""
    command = [str(Path(sys.executable).with_name("ray")), "start", f"--address={head.node}"]
    options = [
        "--block",
        "--num-cpus=1",
        "--object-store-memory=100000000",
        "--disable-usage-stats",
    ]
    with (head.home / "second.txt").open("wb") as out:
        return subprocess.Popen(
            [*command, *options],
            env={
                "HOME": str(head.home),
                "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN": head.token,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(TOP),
            },
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
