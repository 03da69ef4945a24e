"""Jobs that somebody submits by hand to a real Ray cluster: minutes, so not in the suite."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bucket import RUN, params, without_data
from clustered import ASSISTANT, TEACHER, jobs, left, trained_here, weights
from commands import ROOT, run, start, wait_until
from head import Head

from cluster.seaweedfs import Server
from pipeline.data.shards import read_index
from pipeline.jobs import exchange
from pipeline.jobs.weights import job_name

pytestmark = pytest.mark.long


def code_and_lock(project: Path, folder: Path) -> Path:
    """What lies in a checkout without data, models and git."""
    without_data(project, folder)
    shutil.copytree(ROOT / "pipeline", folder / "pipeline", symlinks=True)
    for name in (".gitignore", ".rayignore"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def test_the_readmes_way_by_hand_takes_what_dvc_lock_names(
    head: Head,
    project: Path,
    checkout: Path,
    settings: dict[str, Any],
    s3: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = code_and_lock(project, tmp_path / "by-hand")
    page = (ROOT / "README.md").read_text()
    found = re.search(r"`RAY_AUTH_MODE=token (ray job submit .*) RUN`", page)
    assert found
    program, *arguments = shlex.split(f"{found[1]} {ASSISTANT}")
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    with head.keys(s3.credentials):
        submitted = subprocess.run(
            [head.address if word == "http://HOST:8265" else word for word in command],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    assert "the model lies at s3://" in submitted.stdout
    assert any("/model/model.json" in key for key in left(s3, ASSISTANT))
    shutil.copytree(project / "models" / TEACHER, checkout / "models" / TEACHER)
    count = len(jobs(head))
    taken = run(checkout, "train", ASSISTANT, **settings)
    assert taken.returncode == 0, taken.stderr
    assert len(jobs(head)) == count, "it was trained already"
    assert left(s3, ASSISTANT) == []
    expected = trained_here(project, tmp_path / "here", ASSISTANT, monkeypatch)
    assert weights(checkout, ASSISTANT) == expected


_STANDS_IN = """
import sys, time
from pathlib import Path
from pipeline.jobs import cluster, exchange, where

storage, name, go = sys.argv[1:]
job = where.submission_id()
cluster.join({})
kept = cluster.hold(name, job)
exchange.set_holder(storage, name, job)
print("at work", flush=True)
deadline = time.monotonic() + 300
while not Path(go).exists() and time.monotonic() < deadline:
    time.sleep(0.1)
"""


def test_a_job_by_hand_is_attached_to_and_not_doubled(
    head: Head,
    project: Path,
    checkout: Path,
    settings: dict[str, Any],
    s3: Server,
    tmp_path: Path,
) -> None:
    chosen = params(seed=11)
    made = job_name(chosen, RUN, read_index(project / "data/shards").version, project / "models")
    folder = code_and_lock(project, tmp_path / "by-hand")
    for place in (folder, checkout):
        (place / "params.yaml").write_text(chosen.model_dump_json())
    # It stands for a training that goes on for as long as is needed.
    (folder / "stands_in.py").write_text(_STANDS_IN)
    ray = str(Path(sys.executable).with_name("ray"))
    submit = [ray, "job", "submit", "--address", head.address, "--working-dir", "."]
    storage, go = settings["storage"], tmp_path / "go"
    first = [*submit, "--submission-id", "by-hand", "--", "python", "stands_in.py"]
    with head.keys(s3.credentials), (tmp_path / "out.txt").open("wb") as out:
        by_hand = subprocess.Popen([*first, storage, made, str(go)], cwd=folder, stdout=out)
        try:
            wait_until(lambda: "at work" in (tmp_path / "out.txt").read_text(), by_hand)
            doubled = subprocess.run(
                [*submit, "--", "python", "-m", "pipeline", "train", RUN],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=180,
            )
            assert doubled.returncode != 0
            assert "the job by-hand makes this already" in doubled.stdout
            process, said = start(checkout, "train", RUN, **settings), checkout / "out.txt"
            try:
                wait_until(lambda: "job by-hand runs already" in said.read_text(), process)
                go.touch()
                assert process.wait(timeout=120) == 1
            finally:
                process.kill()
                process.wait()
            assert "the job by-hand ended well, but" in said.read_text(), "it made nothing"
        finally:
            go.touch()
            by_hand.wait(timeout=120)
            exchange.remove(storage, made)
