"""The README's commands, run in a copy of the project whose parameters are small."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).parents[1]
COMMAND = re.compile(r"^(python -m pipeline|dvc|make) .*$", re.MULTILINE)


def commands() -> list[str]:
    """The lines of README.md's shell blocks that call make, the pipeline or DVC."""
    blocks = re.findall(r"```sh\n(.*?)```", (TOP / "README.md").read_text(), re.DOTALL)
    return [line.group(0).split("#")[0].strip() for line in COMMAND.finditer("\n".join(blocks))]


def run(project: Path, command: str) -> str:
    environment = dict(os.environ)
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    # Ray is tested elsewhere; here its start-up, nine times, would be most of the time.
    environment |= {"DISTILL_WORKERS": "0", "DVC_NO_ANALYTICS": "1"}
    done = subprocess.run(
        shlex.split(command),
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of the project's own files, with parameters that take minutes off."""
    if not (Path(sys.prefix) / ".installed").exists():
        pytest.skip("the README's commands want an environment that make has set up")
    folder = tmp_path_factory.mktemp("project") / "script-distill"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    for name in filter(None, listed):
        if (TOP / name).is_file() and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TOP / name, folder / name)
    fonts = "pipeline/data/fontsource/node_modules"
    (folder / fonts).symlink_to(TOP / fonts)
    params = yaml.safe_load((folder / "params.yaml").read_text())
    params["generate"] |= {"train": 300, "validation": 100, "test": 100}
    params["teachers"] = params["teachers"][:1]
    for model in params["models"].values():
        model["training"]["epochs"] = 1
    params["models"]["ocr"]["network"]["depth"] = 0.1
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    for command in (
        "git init -q",
        "git add -A",
        "git -c user.name=test -c user.email=test@example.org commit -qm start",
    ):
        run(folder, command)
    # What make has set up is not set up again.
    (folder / ".venv").symlink_to(sys.prefix)
    run(folder, "make run")
    return folder


@pytest.mark.slow
def test_the_main_job_leaves_what_it_promises(project: Path) -> None:
    summary = json.loads((project / "reports/summary.json").read_text())
    assert [row["run"] for row in summary["runs"]] == [
        "teacher-ocr",
        "assistant-ocr",
        "student-ocr",
        "student-ocr-assisted",
        "student-alone",
    ]
    assert all(row["test_images"] == 100 for row in summary["runs"])
    assert (project / "reports/index.html").read_text().startswith("<!doctype html>")
    for student in ("student-alone", "student-ocr", "student-ocr-assisted"):
        exported = {path.name for path in (project / "exports" / student).iterdir()}
        assert {"model.onnx", "model.safetensors", "model.json", "README.md"} <= exported


@pytest.mark.slow
def test_a_second_run_finds_nothing_stale(project: Path) -> None:
    assert "Data and pipelines are up to date" in run(project, "make run")


@pytest.mark.slow
def test_another_temperature_makes_students_stale_and_no_teacher(project: Path) -> None:
    path = project / "params.yaml"
    kept = path.read_text()
    params = yaml.safe_load(kept)
    params["distillation"]["student"]["temperature"] *= 2
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    try:
        stale = set(json.loads(run(project, "dvc status --json")))
        assert {"student@ocr", "student-assisted@ocr"} <= stale
        assert not stale & {"generate", "shards", "teacher@ocr", "assistant@ocr", "student-alone"}
        assert "distillation.student.temperature" in run(project, "dvc params diff")
    finally:
        path.write_text(kept)


@pytest.mark.slow
def test_every_command_of_the_readme_works(project: Path) -> None:
    archive, words = project / "data/generated.zip", project / "words"
    shutil.unpack_archive(archive, words)
    # The statement that they are generated: without it the reader takes them for real ones.
    (words / "GENERATED.json").unlink()
    word = next((words / "GroundTruth_TestDataset_CVSI2015/Task4").iterdir())
    shutil.copy(word, project / "word.jpg")
    kept = {name: (project / name).read_text() for name in ("params.yaml", "dvc.lock")}
    ran = []
    for command in commands():
        # The tests themselves, what is for a machine with hours to spare, and what needs CVSI-2015:
        # the command for other real words does the same and more.
        if command == "make test" or "PROFILE=" in command or "CVSI2015" in command:
            continue
        run(project, command.replace("/path/to/words", str(words)))
        ran.append(command)
        if "exp run" in command:
            # Each starts from the README's state, not from the one before it.
            for name, text in kept.items():
                (project / name).write_text(text)
            run(project, "dvc checkout --force")
    assert sum("exp run" in command for command in ran) == 3
    assert len(ran) >= 9
