"""A project of two versions, each with its tag, made and pushed by make as the real one is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from commands import ROOT
from tiny import tiny_model, tiny_params, tiny_shards

from cluster.seaweedfs import Credentials

RUN = "student-alone"
VERSIONS = ("v1.0", "v1.1")
PIPELINE = {
    "stages": {
        "shards": {"cmd": "cp -r ${source}/shards data/", "outs": ["data/shards"]},
        "student": {
            "cmd": f"cp -r ${{source}}/{RUN} models/",
            "deps": ["data/shards"],
            "outs": [f"models/{RUN}"],
        },
        "report": {"cmd": "cp ${source}/index.html reports/", "outs": ["reports/index.html"]},
    },
    "artifacts": {RUN: {"path": f"models/{RUN}", "type": "model"}},
}


def environment(credentials: Credentials, **more: str) -> dict[str, str]:
    """A shell that sourced the server's env file, with this Python's programs on its path."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {
        **own,
        **credentials.environment(),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        # `make run` finds this checkout's code, and starts no Ray for stages that only copy.
        "PYTHONPATH": str(ROOT),
        "DISTILL_WORKERS": "0",
        "DVC_NO_ANALYTICS": "1",
        "GIT_AUTHOR_NAME": "test",
        "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "test",
        "GIT_COMMITTER_EMAIL": "test@example.org",
        **more,
    }


def call(folder: Path, env: dict[str, str], *command: str) -> str:
    """Runs a command to its end.

    Raises:
        AssertionError: it failed; with all that it said.
    """
    done = subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=120, check=False
    )
    said = f"{done.stdout}\n{done.stderr}"
    assert done.returncode == 0, f"{' '.join(command)}\n{said}"
    return said


def make_source(folder: Path, version: str) -> None:
    """What a version's stages are to make."""
    seed = VERSIONS.index(version)
    index = tiny_shards(folder / "shards", seed=seed)
    tiny_model(folder / RUN, index, run=RUN, seed=seed)
    (folder / "index.html").write_text(f"<p>{version}</p>")


def make_project(project: Path, credentials: Credentials) -> None:
    """Makes both versions; the first is pushed by hand, the second by ``make run``."""
    env = environment(credentials)
    for name in ("Makefile", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    for name in ("data", "models", "reports"):
        (project / name).mkdir()
        (project / name / ".gitignore").touch()
    (project / "dvc.yaml").write_text(json.dumps(PIPELINE))
    call(project, env, "git", "init", "-q")
    for version in VERSIONS:
        source = project.with_name(f"source-{version}")
        make_source(source, version)
        params = tiny_params().model_dump(mode="json") | {"source": str(source)}
        (project / "params.yaml").write_text(json.dumps(params))
        # What is set up is this test's own environment.
        call(project, env, "make", "-o", "setup", "run")
        if version == VERSIONS[0]:
            call(project, env, "make", "-o", "setup", "s3-remote")
            call(project, env, "dvc", "push")
        call(project, env, "git", "add", "-A")
        call(project, env, "git", "commit", "-qm", version)
        call(project, env, "git", "tag", "-am", version, version)
        call(project, env, "git", "tag", "-am", version, f"{RUN}@{version}.0")
