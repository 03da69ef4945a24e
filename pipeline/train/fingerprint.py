"""What made a model, as hashes: the code, and all that decides its weights together."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pipeline.files import sha256
from pipeline.models.folder import WEIGHTS_FILE
from pipeline.runs import Run

_PACKAGE = Path(__file__).parent.parent
SOURCES = (
    *("data/augment.py", "data/cache.py", "data/loader.py", "data/plan.py", "data/revision.py"),
    *("data/shards.py", "data/stream.py", "data/streamed.py", "data/view.py"),
    *("distill", "models", "train", "params.py", "runs.py", "scripts.py"),
)
"""The code that decides a model's weights, files and rooms; dvc.yaml lists the same."""


def code_version() -> str:
    """A SHA-256 over the source files that decide a model's weights. It needs no git."""
    named = [_PACKAGE / name for name in SOURCES]
    files = [path for one in named for path in (one.glob("*.py") if one.is_dir() else [one])]
    digest = hashlib.sha256()
    for path in sorted(files):
        digest.update(f"{path.relative_to(_PACKAGE).as_posix()} {sha256(path)}\n".encode())
    return digest.hexdigest()


def run_fingerprint(run: Run, data_version: str, models: Path) -> str:
    """A hash that changes with the run's parameters, data, teachers and code.

    It is part of a job's name, since Ray takes a finished job of the same name for the result.
    """
    parts = [run.model_dump_json(), data_version, code_version()]
    parts += [sha256(models / teacher / WEIGHTS_FILE) for teacher in sorted(run.teachers)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
