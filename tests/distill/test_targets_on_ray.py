"""The command that makes stored targets: in its own process, and on the workers of a real Ray."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import descendants, run, start, wait_until, write_project
from safetensors.numpy import load_file
from tiny import tiny_model

from pipeline.data.shards import read_index

RUN = "teacher-cnn"
SETTINGS: dict[str, Any] = {
    "view": {"height": 16, "width": 32, "augment": {"noise": 0.5}, "cycle": 2},
    "distillation": {"assistant": {}, "student": {}, "targets": "stored"},
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Shards, and a model that can be asked."""
    path = write_project(tmp_path / "project", **SETTINGS)
    tiny_model(path / "models" / RUN, read_index(path / "data/shards"), run=RUN, steps=20)
    return path


def test_a_command_makes_them_and_a_student_takes_them(project: Path) -> None:
    early = run(project, "train", "student-cnn")
    assert early.returncode == 1
    assert "holds no stored targets of teacher-cnn: make them by python -m" in early.stderr
    done = run(project, "targets", RUN, "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    files = [*(project / "targets" / RUN).glob("*.safetensors")]
    assert found == {
        "targets": f"targets/{RUN}",
        "mode": "stored",
        "views": 2,
        "bytes": sum(path.stat().st_size for path in files),
    }
    assert "asked about 2 views of 48 images, 0 of them done" in done.stderr
    taught = run(project, "train", "student-cnn", "--json")
    assert taught.returncode == 0, taught.stderr


@pytest.mark.slow
def test_several_workers_say_the_same_and_what_one_meets_is_one_line(
    project: Path, tmp_path: Path
) -> None:
    alone = run(project, "targets", RUN)
    assert alone.returncode == 0, alone.stderr
    expected = {
        path.name: load_file(path)["logits"]
        for path in (project / "targets" / RUN).glob("*.safetensors")
    }
    assert len(expected) == 5
    shard = project / "data/shards/train/train-000004.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-1])
    failed = run(project, "targets", RUN, workers=2)
    assert failed.returncode == 1
    # Ray would tell of the shards that other workers were still asked about.
    (line,) = [line for line in failed.stderr.splitlines() if "error" in line]
    assert line.startswith(f"error: {shard} has "), failed.stderr
    assert "Traceback" not in failed.stderr
    shard.write_bytes(whole)
    # Which others were finished depends on which worker was slow; none of them is read again.
    finished = [path.stem for path in project.glob(f".checkpoints/targets-{RUN}-*/*.safetensors")]
    assert len(finished) >= 3
    for name in finished:
        (project / f"data/shards/train/{name}.tar").unlink()
    done = run(project, "targets", RUN, workers=2)
    assert done.returncode == 0, done.stderr
    for name, logits in expected.items():
        found = load_file(project / "targets" / RUN / name)["logits"]
        np.testing.assert_allclose(found, logits, rtol=2**-9, atol=1e-3)


@pytest.mark.long
def test_a_worker_that_is_killed_is_made_anew(project: Path) -> None:
    process = start(project, "targets", RUN, workers=1)

    def asked() -> list[int]:
        named = descendants(process.pid).items()
        return [pid for pid, command in named if command.startswith("ray::_Asked")]

    try:
        wait_until(lambda: bool(asked()), process)
        os.kill(asked()[0], signal.SIGKILL)
        assert process.wait(timeout=120) == 0, (project / "out.txt").read_text()
    finally:
        process.kill()
        process.wait()
    assert len([*(project / "targets" / RUN).glob("*.safetensors")]) == 5
