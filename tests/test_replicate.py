"""Students trained again with other seeds: real trainings of tiny models, in processes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from commands import descendants, run, start, wait_until, write_project
from tiny import tiny_images, tiny_model, tiny_params, tiny_shards

from pipeline.changes import Change
from pipeline.compute import Compute
from pipeline.errors import DataError, UsageError
from pipeline.lock import hold
from pipeline.replicate import replicate
from pipeline.replicated import OfRun, Replicated
from pipeline.reporting.results_page import write_results


def words(folder: Path) -> Path:
    """The tiny test images, as a folder of labelled ones."""
    for image in tiny_images():
        if image.split == "test":
            path = folder / image.script / f"{image.key}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image.read())
    return folder


def again(
    root: Path,
    *names: str,
    seeds: tuple[int, ...] = (1, 2),
    targets: str = "live",
    **wanted: Any,
) -> Replicated:
    return replicate(
        tiny_params(view={"cycle": 1}, distillation={"targets": targets}),
        names,
        seeds,
        Compute(workers=0, storage=str(root / "storage")),
        title="Tiny",
        shards=root / "shards",
        models=root / "models",
        **wanted,
    )


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, a teacher and an assistant."""
    root = tmp_path_factory.mktemp("chain")
    index = tiny_shards(root / "shards")
    tiny_model(root / "models" / "teacher-cnn", index, run="teacher-cnn", steps=20)
    assistant, teachers = "assistant-cnn", ("teacher-cnn",)
    tiny_model(root / "models" / assistant, index, run=assistant, teachers=teachers, steps=5)
    return root


@pytest.fixture(scope="module")
def found(chain: Path) -> Replicated:
    return again(chain, others=[words(chain / "real")])


def of(found: Replicated, run: str, place: int = 0) -> OfRun:
    return next(one for one in found.judged[place].runs if one.run == run)


def test_all_students_are_trained_with_every_seed_beside_the_models_above_them(
    found: Replicated,
) -> None:
    test, real = found.judged
    assert [(one.run, one.seeds) for one in real.runs] == [
        ("teacher-cnn", (0,)),
        ("assistant-cnn", (0,)),
        ("student-cnn", (1, 2)),
        ("student-cnn-assisted", (1, 2)),
        ("student-alone", (1, 2)),
    ]
    assert (test.data.split, test.images, real.data.source) == ("test", 24, "folder real")
    pairs = [
        ("student-cnn", "student-alone"),
        ("student-cnn-assisted", "student-alone"),
        ("student-cnn-assisted", "student-cnn"),
    ]
    pairs.append(("student-cnn", "teacher-cnn"))
    in_8_bits = [
        (f"{run} in 8 bits", run)
        for run in ("student-cnn", "student-cnn-assisted", "student-alone")
    ]
    assert [(one.first, one.second) for one in real.differences] == pairs
    assert [(one.first, one.second) for one in test.differences] == pairs + in_8_bits


def test_the_same_images_from_shards_and_from_a_folder_are_answered_alike(
    found: Replicated,
) -> None:
    test, real = found.judged
    right = {one.name: one.correct for one in test.runs}
    assert {one.name: one.correct for one in real.runs}.items() <= right.items()


def test_what_was_trained_is_not_trained_again_and_a_seed_gives_the_same_model(
    chain: Path, found: Replicated, caplog: pytest.LogCaptureFixture
) -> None:
    weights = sorted((chain / "storage/replicate").glob("student-*/student-*/model.safetensors"))
    before = {path: path.stat().st_mtime_ns for path in weights}
    assert len(before) == 6
    more = again(chain, "student-alone", seeds=(1, 2, 3))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert of(more, "student-alone").correct[:2] == of(found, "student-alone").correct
    elsewhere = chain / "elsewhere"
    elsewhere.mkdir()
    for name in ("shards", "models"):
        (elsewhere / name).symlink_to(chain / name)
    fresh = again(elsewhere, "student-alone")
    assert of(fresh, "student-alone") == of(found, "student-alone")


def test_stored_targets_that_were_damaged_are_made_again(chain: Path) -> None:
    before = again(chain, "student-cnn", targets="stored")
    kept = chain / "storage/replicate"
    indexes = sorted(kept.glob("targets-*/teacher-cnn/index.json"))
    assert len(indexes) == 2
    answers = min(indexes[1].parent.glob("*.safetensors"))
    contents = {path: path.read_bytes() for path in (indexes[0], answers)}
    for path in contents:
        path.write_text("{")
    for model in kept.glob("student-cnn-*/student-cnn"):
        shutil.rmtree(model)
    assert of(again(chain, "student-cnn", targets="stored"), "student-cnn") == of(
        before, "student-cnn"
    )
    assert {path: path.read_bytes() for path in contents} == contents


def test_a_changed_student_is_compared_with_the_one_that_has_all_other_settings(
    chain: Path,
) -> None:
    changes = [
        Change("distillation.loss", "dist"),
        Change("width", 0.5),
        Change("teacher", {"teacher-cnn": 1, "assistant-cnn": 3}),
    ]
    test = again(chain, "student-cnn", "student-alone", changes=changes).judged[0]
    dist, narrow, narrow_alone, both = (
        one.name for one in test.runs if one.changed_from and not one.in_8_bits
    )
    runs = {one.name: one for one in test.runs}
    assert runs[dist].settings["distillation"]["loss"] == "dist"
    assert runs[narrow].model == "cnn 4-8"
    assert runs[both].teachers == ("teacher-cnn", "assistant-cnn")
    asked = [(one.question, one.first, one.second) for one in test.differences]
    assert [one for one in asked if one[0] == "settings"] == [
        ("settings", dist, "student-cnn"),
        ("settings", narrow, "student-cnn"),
        ("settings", narrow_alone, "student-alone"),
        ("settings", both, "student-cnn"),
    ]
    assert [one for one in asked if one[0] in {"alone", "keeps_up"}] == [
        ("alone", "student-cnn", "student-alone"),
        ("alone", narrow, narrow_alone),
        ("keeps_up", "student-cnn", "teacher-cnn"),
    ]
    bits = [first for question, first, _ in asked if question == "bits"]
    assert f"{narrow} in 8 bits" in bits


@pytest.mark.parametrize(
    ("names", "seeds", "message"),
    [
        ((), (1,), "seeds 1: give two or more, all different"),
        ((), (1, 1), "seeds 1, 1: give two or more, all different"),
        ((), (1, -1), "seeds 1, -1: .* none below zero"),
        (("teacher-cnn",), (1, 2), "teacher-cnn: only students are trained again"),
        (("student-x",), (1, 2), "no run 'student-x' in params.yaml"),
    ],
)
def test_wrong_use_is_refused(
    chain: Path, names: tuple[str, ...], seeds: tuple[int, ...], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        again(chain, *names, seeds=seeds)


def test_what_a_search_found_is_not_passed_over_in_silence(chain: Path) -> None:
    params = tiny_params(view={"cycle": 1}, search={"used": "best"})
    with pytest.raises(UsageError, match=r"search\.used is best"):
        replicate(
            params, (), (1, 2), Compute(), title="", shards=chain / "s", models=chain / "models"
        )


def test_another_process_at_it_is_refused(chain: Path, found: Replicated) -> None:
    with (
        hold(chain / "storage/replicate/lock", "it"),
        pytest.raises(UsageError, match="another process is at such trainings"),
    ):
        again(chain)


def test_a_folder_that_cannot_be_read_is_told_of_before_anything_is_trained(
    chain: Path, tmp_path: Path
) -> None:
    for name in ("shards", "models"):
        (tmp_path / name).symlink_to(chain / name)
    with pytest.raises(DataError, match="no-such-folder"):
        again(tmp_path, others=[tmp_path / "no-such-folder"])
    assert not list((tmp_path / "storage").rglob("*.safetensors"))


def test_the_page_says_what_the_numbers_say_and_only_them(
    found: Replicated, tmp_path: Path
) -> None:
    (tmp_path / "tiny.json").write_text(found.model_dump_json())
    assert write_results(tmp_path, tmp_path / "results.md") == 1
    page = (tmp_path / "results.md").read_text()
    assert "**generated words, not CVSI-2015**" in page
    one = of(found, "student-cnn")
    assert f"{one.accuracy:.2f} ({one.low:.2f}–{one.high:.2f})" in page
    assert "**Does the assistant pay?**" in page
    assert "| student-cnn-assisted | student-cnn | " in page
    assert "\n\n\n" not in page


def test_what_is_killed_goes_on_and_comes_to_the_same(tmp_path: Path) -> None:
    ask = ("replicate", "student-alone", "--seeds", "1,2,3", "--out", "results/alone.json")
    whole, killed = (
        write_project(tmp_path / name, training={"epochs": 40}) for name in ("whole", "killed")
    )
    started: list[subprocess.Popen[bytes]] = []

    def trainings() -> list[int]:
        named = descendants(started[-1].pid).items()
        return [pid for pid, command in named if "spawn_main" in command]

    def begin() -> None:
        before = time.time_ns()
        started.append(start(killed, *ask))
        files = (killed / ".checkpoints/replicate").rglob
        wait_until(
            lambda: any(path.stat().st_mtime_ns > before for path in files("*.safetensors")),
            started[-1],
        )

    try:
        begin()
        os.kill(trainings()[0], signal.SIGKILL)
        assert started[-1].wait(timeout=120) == 1
        assert "a training was ended from outside" in (killed / "out.txt").read_text()
        begin()
        left = [psutil.Process(pid) for pid in trainings()]
        assert left
        started[-1].kill()
        started[-1].wait()
        assert psutil.wait_procs(left, timeout=60)[1] == []
    finally:
        for process in started:
            process.kill()
            process.wait()
    for project in (whole, killed):
        done = run(project, *ask)
        assert done.returncode == 0, done.stderr
    first, second = ((one / "results/alone.json").read_text() for one in (whole, killed))
    assert first == second


def test_on_the_command_line_seeds_are_numbers_and_changes_have_values(tmp_path: Path) -> None:
    project = write_project(tmp_path)
    out = ("--out", "results/alone.json")
    done = run(project, "replicate", "student-alone", "--seeds", "1,x", *out)
    assert (done.returncode, "error: --seeds 1,x: give numbers" in done.stderr) == (2, True)
    done = run(project, "replicate", "student-alone", "--change", "width", *out)
    assert (done.returncode, "error: --change width: give KEY=VALUE" in done.stderr) == (2, True)
    done = run(project, "replicate", "student-alone", "--seeds", "1,2", "--title", "Alone", *out)
    assert done.returncode == 0, done.stderr
    assert run(project, "results").returncode == 0
    assert "## Alone" in (project / "docs/results.md").read_text()
