"""A project of its own: git, DVC, this code, tiny words and tiny parameters."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tiny import SCRIPTS, tiny_images, tiny_params

STAGES = """
stages:
  shards:
    cmd: python -m pipeline shards
    params: [data]
    deps: [words]
    outs: [data/shards, reports/audit.json]
  side:
    matrix: {name: [one, two]}
    cmd: mkdir -p side && cp words.txt side/${item.name}
    deps: [data/shards]
    outs: ["side/${item.name}"]
  student-alone:
    cmd: python -m pipeline train student-alone
    params: [seed, view, training, models.student]
    deps: [data/shards]
    outs: [models/student-alone]
  report:
    cmd: mkdir -p reports && cp summary.json reports/summary.json
    deps: [summary.json, models/student-alone, side/one, side/two]
    outs: [reports/summary.json: {cache: false}]
"""
"""The two ends of dvc.yaml, and one real training between them."""

SUMMARY = {
    "data": {
        "source": "generated",
        "scripts": list(SCRIPTS),
        "images": {"train": 48, "validation": 12, "test": 24},
        "version": "0" * 64,
    },
    "runs": [
        {
            "run": run, "role": run.split("-")[0], "model": "cnn", "teachers": [],
            "parameters": 1000, "seeds": [0], "test_images": 24, "correct": correct,
            "accuracy": accuracy, "accuracy_low": accuracy - 9, "accuracy_high": accuracy + 5,
            "macro_f1": accuracy, "latency_ms": 0.5,
        }
        for run, correct, accuracy in (
            ("teacher-cnn", 22, 91.67), ("assistant-cnn", 20, 83.33), ("student-cnn", 21, 87.5),
            ("student-cnn-assisted", 19, 79.17), ("student-alone", 18, 75.0),
        )
    ],
}  # fmt: skip

TOP = Path(__file__).parents[1]
FOLDERS = {"train": "Training", "validation": "Validation", "test": "Testing"}


def make_project(folder: Path, *, stages: str = STAGES, **params: Any) -> Path:
    """A checkout of this project's files, with tiny words that git holds, and few stages.

    Args:
        folder: to be made.
        stages: its dvc.yaml.
        params: as for :func:`tiny.tiny_params`.
    """
    kept = git(TOP, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    left_out = ("dvc.lock", "tests", "docs", "benchmarks", "reports")
    for name in filter(None, kept):
        if (TOP / name).is_file() and not name.startswith(left_out):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, folder / name)
    for image in tiny_images():
        file = folder / "words" / FOLDERS[image.split] / image.script / f"{image.key}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image.read())
    data = {"source": "cvsi", "root": "words", "scripts": list(SCRIPTS)}
    content = tiny_params(**{"data": data, **params}).model_dump(mode="json")
    (folder / "params.yaml").write_text(json.dumps(content, indent=1))
    (folder / "dvc.yaml").write_text(stages)
    (folder / "summary.json").write_text(json.dumps(SUMMARY))
    (folder / "words.txt").write_text("words")
    git(folder, "init", "-q", "-b", "main")
    commit(folder)
    return folder


def commit(folder: Path, message: str = "start") -> str:
    """Commits everything.

    Returns:
        The commit.
    """
    git(folder, "add", "-A")
    name = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    git(folder, *name, "commit", "-qm", message)
    return git(folder, "rev-parse", "HEAD")


def git(folder: Path, *arguments: str) -> str:
    """What git says."""
    done = subprocess.run(
        ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
