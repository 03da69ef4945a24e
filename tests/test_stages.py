"""DVC's stages and git's files."""

from __future__ import annotations

import subprocess
from pathlib import Path

from dvc.repo import Repo

ROOT = Path(__file__).parents[1]


def test_git_holds_nothing_that_dvc_keeps() -> None:
    """DVC refuses to run a stage whose output git has."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    files = {ROOT / name for name in listed.stdout.split("\0") if name}
    kept = {Path(out.fs_path) for out in Repo(str(ROOT)).index.outs if out.use_cache}
    assert kept, "there are stages"
    assert not {file for file in files if kept & {file, *file.parents}}
