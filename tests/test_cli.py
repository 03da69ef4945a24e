"""The command line: exit codes, JSON, and errors that are a line and no trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import run, write_project
from typer.testing import CliRunner

from pipeline.cli import app

COMMANDS = sorted(
    str(command.callback.__name__) for command in app.registered_commands if command.callback
)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_project(tmp_path_factory.mktemp("cli"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"])
    assert shown.exit_code == 0
    assert "--json" in shown.output
    assert "Usage:" in shown.output


def test_the_commands_are_those_of_the_design() -> None:
    wanted = {"shards", "train", "evaluate", "report", "export", "predict", "doctor", "generate"}
    assert wanted | {"targets"} <= set(COMMANDS)


def test_a_training_says_how_it_went_as_json_and_on_stderr_how_it_goes(project: Path) -> None:
    done = run(project, "train", "student-alone", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["model"] == "models/student-alone"
    assert found["epochs"] == 2
    assert "student-alone  epoch 2/2" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("train", "student-x"), 2, "error: no run 'student-x' in params.yaml; there are teacher"),
        (("train", "student-cnn"), 1, "error: student-cnn learns from teacher-cnn, which is not"),
        (("train", "student-alone", "--params", "none.yaml"), 2, "error: none.yaml is missing"),
        (("train",), 2, "Missing argument 'RUN'"),
        (
            ("targets", "teacher-x"),
            2,
            "error: no run 'teacher-x' in params.yaml; there are teacher",
        ),
        (("no-such",), 2, "No such command 'no-such'"),
        (("evaluate",), 2, "error: give either a RUN or --all"),
        (("predict", "word.jpg"), 2, "error: give either --run"),
        (("shards",), 1, "data/tiny.zip"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_goes_wrong_is_said_on_stderr_without_a_trace(
    project: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = run(project, *arguments)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_every_bad_parameter_is_listed(project: Path) -> None:
    content = json.loads((project / "params.yaml").read_text())
    content["training"]["lr"] = 0
    content["sead"] = 1
    (project / "bad.yaml").write_text(json.dumps(content))
    done = run(project, "train", "student-alone", "--params", "bad.yaml")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: 2 errors in bad.yaml:",
        "  training.lr: Input should be greater than 0 (got 0)",
        "  sead: unknown key",
    ]


def test_bad_compute_settings_are_named_by_their_variables(project: Path) -> None:
    done = run(project, "train", "student-alone", workers=-1, threads=0)
    assert done.returncode == 2
    assert "DISTILL_WORKERS: " in done.stderr
    assert "DISTILL_THREADS: " in done.stderr


@pytest.mark.parametrize("loaders", [0, 1])
def test_a_damaged_shard_is_one_line_from_any_process(tmp_path: Path, loaders: int) -> None:
    project = write_project(tmp_path / "project")
    shard = sorted((project / "data/shards/train").iterdir())[0]
    shard.write_bytes(shard.read_bytes()[:-512])
    done = run(project, "train", "student-alone", loaders=loaders)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if "error" in line]
    assert len(errors) == 1
    assert str(shard) in errors[0]
    assert "Traceback" not in done.stderr
