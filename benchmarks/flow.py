"""What the flow costs: the same stages, whose commands take no time, by DVC and by Prefect."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.spread import spread

TOP = Path(__file__).parents[1]
FILES = {
    "model.json": '{"metrics": {}}',
    "model.safetensors": "stand-in",
    "history.csv": "images,images_per_second\n1,1\n",
    "metrics.json": "{}",
    "summary.json": '{"data": {"source": "generated", "images": {"test": 1}}, "runs": []}',
}
"""What a stage leaves behind, as far as the flow reads it."""
PAIRS = 3
"""At most so many: one takes most of a minute, with a server of its own."""
STAND_IN = """
for out in "$@"; do
  mkdir -p "$(dirname "$out")"
  case "$out" in
    *.*) if test -e "stand-in/$(basename "$out")"; then cp "stand-in/$(basename "$out")" "$out"
         else echo stand-in > "$out"; fi ;;
    *) cp -r stand-in "$out" ;;
  esac
done
"""


def flow_overhead(pairs: int) -> dict[str, float]:
    """Seconds that a deployment's run takes beyond `dvc repro`, over all stages of dvc.yaml.

    Start-up of the run's process, its worktree and its artifacts are in it, the server's and the
    worker's start are not.
    """
    seconds = []
    for _ in range(min(pairs, PAIRS)):
        with tempfile.TemporaryDirectory() as folder:
            plain, served = Path(folder) / "plain", Path(folder) / "served"
            for project in (plain, served):
                _make(project)
            server = (sys.executable, "-m", "flows.server")
            _call(served, *server, "start", "--port", "0")
            try:
                run = ". .prefect/env && prefect deployment run distill-pipeline/local --watch"
                seconds.append(_call(served, "sh", "-c", run) - _call(plain, "dvc", "repro"))
            finally:
                _call(served, *server, "stop")
    return spread(seconds)


def _make(project: Path) -> None:
    """Clones the project, and gives its stages other commands."""
    _call(TOP, "git", "clone", "--quiet", str(TOP), str(project))
    file = project / "dvc.yaml"
    content: dict[str, Any] = yaml.safe_load(file.read_text())
    for stage in content["stages"].values():
        outs = [out if isinstance(out, str) else next(iter(out)) for out in stage["outs"]]
        metrics = [next(iter(metric)) for metric in stage.get("metrics", [])]
        stage["cmd"] = " ".join(["sh", "stand-in.sh", *outs, *metrics])
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    (project / "stand-in.sh").write_text(STAND_IN)
    (project / "stand-in").mkdir()
    for name, text in FILES.items():
        (project / "stand-in" / name).write_text(text)
    (project / "dvc.lock").unlink()
    _call(project, "git", "add", "--all")
    author = ("-c", "user.name=bench", "-c", "user.email=bench@localhost")
    _call(project, "git", *author, "commit", "--quiet", "-m", "Stand-ins for the commands")


def _call(folder: Path, *command: str) -> float:
    """Runs a command.

    Returns:
        The seconds it took.
    """
    began = time.perf_counter()
    subprocess.run(
        command,
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    known = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**known, "PATH": path, "DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1"}
