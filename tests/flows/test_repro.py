"""Every stage in the checkout itself, two at a time: python -m flows.repro."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from projects import git, make_project
from serving import call

MEET = "touch {own}; for i in $(seq 300); do test -e {other} && break; sleep 0.1; done; ls {other}"
"""Ends well only while the other one is at work."""
STAGES = f"""
stages:
  first:
    cmd: mkdir -p out && cp words.txt out/first
    params: [seed]
    deps: [words.txt]
    outs: [out/first]
  one:
    cmd: {MEET.format(own="one", other="two")} && cp out/first out/one
    deps: [out/first]
    outs: [out/one]
  two:
    cmd: {MEET.format(own="two", other="one")} && cp out/first out/two
    deps: [out/first]
    outs: [out/two]
  last:
    cmd: cat out/one out/two > out/last
    deps: [out/one, out/two]
    outs: [out/last]
"""


def repro(project: Path) -> subprocess.CompletedProcess[str]:
    return call(project, sys.executable, "-m", "flows.repro")


def test_stages_run_side_by_side_where_they_are_and_once(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", stages=STAGES)
    done = repro(project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (project / "out/last").read_text() == "words" * 2
    assert "dvc.lock" in git(project, "status", "--porcelain", "-uall")
    assert "up to date" in call(project, "dvc", "status").stdout
    again = repro(project)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("nothing to do") == 4


def test_what_fails_stops_only_what_needs_it(tmp_path: Path) -> None:
    stages = STAGES.replace("&& cp out/first out/one", "&& false")
    project = make_project(tmp_path / "project", stages=stages)
    done = repro(project)
    assert done.returncode == 1
    assert "two: done" in done.stdout
    assert "last: " not in done.stdout
    assert "error: reproduce one" in done.stdout
