"""A project of its own: git, DVC, this code, tiny words and tiny parameters."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tiny import SCRIPTS, tiny_images, tiny_params

TOP = Path(__file__).parents[1]
FOLDERS = {"train": "Training", "validation": "Validation", "test": "Testing"}


def make_project(folder: Path, **params: Any) -> Path:
    """A checkout of this project's files, with tiny words that git holds.

    Args:
        folder: to be made.
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
