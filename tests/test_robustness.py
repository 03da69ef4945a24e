"""Images made worse, and models asked about them, on tiny shards with tiny models."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from commands import run, write_project
from tiny import SCRIPTS, VIEW, tiny_images, tiny_model, tiny_params, tiny_shards

from pipeline.data.shards import read_index, read_shard
from pipeline.data.view import Grey, decode, fit
from pipeline.data.worsen import CHANGES, Change, blur, cover, fade, shrink, turn
from pipeline.errors import DataError, UsageError
from pipeline.models.build import ScriptClassifier
from pipeline.reporting.robustness_page import NUMBERS_FILE, PAGE_FILE, lost, page_of, write
from pipeline.robustness import Measured, Robustness, default_runs, measure
from pipeline.statistics import wilson

RUNS = ("teacher-cnn", "assistant-cnn", "student-cnn", "student-alone")


def words(split: str = "test") -> dict[str, Grey]:
    return {
        image.key: decode(image.read(), image.origin)
        for image in tiny_images()
        if image.split == split
    }


def measured(root: Path, *names: str, count: int = 24) -> Robustness:
    return measure(
        tiny_params(), names or ("student-alone",), count, models=root, shards=root / "shards"
    )


def says(model: ScriptClassifier, grey: Grey) -> str:
    with torch.inference_mode():
        logits = model(torch.from_numpy(fit(grey, VIEW))[None, None].float())
    return SCRIPTS[int(logits.argmax())]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and beside them a model for every run of the chain, each as good as its steps."""
    root = tmp_path_factory.mktemp("chain")
    index = tiny_shards(root / "shards")
    for steps, name in enumerate(RUNS, start=2):
        tiny_model(root / name, index, run=name, steps=steps)
    return root


def test_a_change_of_no_strength_leaves_an_image_as_it_is() -> None:
    for key, grey in words().items():
        kept = grey.copy()
        for changed in (
            *(blur(grey, 0), fade(grey, 1), shrink(grey, grey.shape[0])),
            *(turn(grey, 0, key), cover(grey, 0, key)),
        ):
            assert np.array_equal(changed, kept)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
def test_the_same_strength_gives_the_same_image_and_a_worse_one(change: Change) -> None:
    assert len(change.strengths) == 4
    for key, grey in words().items():
        kept = grey.copy()
        np.random.seed(1)
        cv2.setRNGSeed(1)
        first = [change.apply(grey, strength, key) for strength in change.strengths]
        np.random.seed(2)
        cv2.setRNGSeed(2)
        again = [change.apply(grey, strength, key) for strength in change.strengths]
        assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))
        assert np.array_equal(grey, kept), "what is given is not written to"
        assert all(one.dtype == np.uint8 for one in first)
        off = [np.abs(fit(one, VIEW).astype(int) - fit(grey, VIEW)).mean() for one in first]
        assert off[-1] > max(off[0], 0)


@pytest.mark.parametrize("height", [20, 40, 80])
def test_a_blur_is_as_wide_as_a_share_of_the_height(height: int) -> None:
    edge = np.where(np.arange(200) < 100, 0, 255).astype(np.uint8)[None].repeat(height, axis=0)
    slope = np.diff(blur(edge, 0.1)[height // 2].astype(float))
    spread = np.sqrt((slope * (np.arange(199) - 99) ** 2).sum() / slope.sum())
    assert spread == pytest.approx(0.1 * height, rel=0.05)


def test_contrast_goes_towards_the_mean_and_changes_no_decision(chain: Path) -> None:
    model = tiny_model(chain / "other", read_index(chain / "shards"), steps=20)
    for grey in words().values():
        for factor in (0.5, 0.25):
            faded = fade(grey, factor)
            assert np.ptp(faded) == pytest.approx(factor * np.ptp(grey), abs=1)
            assert faded.mean() == pytest.approx(grey.mean(), abs=0.5)
            assert says(model, faded) == says(model, grey)
    assert np.ptp(fade(grey, 0)) == 0


def test_a_word_is_made_smaller_and_never_larger() -> None:
    grey = np.zeros((30, 90), np.uint8)
    assert shrink(grey, 10).shape == (10, 30)
    assert shrink(grey, 40).shape == (30, 90)
    assert shrink(np.zeros((60, 4), np.uint8), 4).shape == (4, 1)


def test_words_are_turned_both_ways_and_nothing_black_comes_in() -> None:
    grey = np.full((20, 60), 200, np.uint8)
    grey[8:12, 10:50] = 60
    turned = [turn(grey, 10, f"BEN_{number}") for number in range(20)]
    assert len({image.tobytes() for image in turned}) == 2
    assert all(image.shape == grey.shape and image.min() >= 60 for image in turned)
    first, second = (np.frombuffer(one, np.uint8) for one in {t.tobytes() for t in turned})
    mirrored = first.reshape(20, 60)[::-1]
    assert np.abs(mirrored.astype(int) - second.reshape(20, 60)).mean() < 3


def test_the_place_of_a_bar_hangs_on_the_key_alone() -> None:
    rng = np.random.default_rng(0)
    places = set()
    for number in range(30):
        key = f"BEN_{number}"
        found = []
        for low in (0, 130):
            grey = rng.integers(low, low + 20, (20, 50)).astype(np.uint8)
            grey[:, ::2] += 100
            covered = cover(grey, 0.2, key)
            hidden = np.flatnonzero((covered != grey).any(axis=0))
            assert np.unique(covered[:, hidden]).tolist() == [round(float(grey.mean()))]
            assert len(hidden) == np.ptp(hidden) + 1 == 10
            found.append(int(hidden[0]))
        assert found[0] == found[1]
        places.add(found[0])
    assert len(places) > 10
    assert (cover(np.eye(9, dtype=np.uint8), 1, "BEN_1") == 0).all()


def test_every_number_follows_from_what_the_model_says(chain: Path) -> None:
    index = read_index(chain / "shards")
    model = tiny_model(chain / "student-alone", index, steps=5)
    found = measured(chain, count=10)
    samples = [one for shard in index.of("test") for one in read_shard(chain / "shards", shard)]
    asked = [samples[number * 24 // 10] for number in range(10)]
    assert (found.words, found.version, found.source) == (10, index.version, "generated")
    falls = found.runs[0]
    assert (falls.run, falls.role) == ("student-alone", "student")
    assert list(falls.changes) == ["blur", "contrast", "height", "rotation", "occlusion"]
    seen = set()
    for change in CHANGES:
        steps = falls.changes[change.name]
        assert [step.strength for step in steps] == [None, *change.strengths]
        for step in steps:
            right = 0
            for word in asked:
                grey = decode(word.jpeg, word.key)
                if step.strength is not None:
                    grey = change.apply(grey, step.strength, word.key)
                right += says(model, grey) == word.script
            interval = wilson(right, 10)
            assert step.correct == right
            assert (step.accuracy, step.low, step.high) == (
                *(interval.value, interval.low),
                interval.high,
            )
            seen.add(right)
    assert len(seen) > 2, "else the numbers would say little"


def test_all_words_are_taken_where_there_are_fewer(chain: Path) -> None:
    assert measured(chain, count=1000) == measured(chain, count=24)
    assert measured(chain, count=1).words == 1


def test_a_run_that_is_named_twice_is_asked_once(chain: Path) -> None:
    found = measured(chain, "student-cnn", "teacher-cnn", "student-cnn", count=3)
    assert [one.run for one in found.runs] == ["student-cnn", "teacher-cnn"]


def test_the_chain_of_the_first_teacher_is_asked() -> None:
    models = tiny_params().model_dump()["models"]
    params = tiny_params(teachers=["cnn", "other"], models={"other": models["cnn"]})
    assert default_runs(params) == list(RUNS)


def test_what_cannot_be_measured_is_refused(chain: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run 'student-x'"):
        measured(chain, "teacher-cnn", "student-x")
    with pytest.raises(UsageError, match="0 words"):
        measured(chain, count=0)
    other = tiny_shards(tmp_path / "shards", seed=1)
    tiny_model(tmp_path / "student-cnn", other, run="student-cnn")
    tiny_shards(tmp_path / "shards")
    with pytest.raises(DataError, match=other.version[:12]):
        measured(tmp_path, "student-cnn")
    with pytest.raises(DataError, match="holds no model"):
        measured(tmp_path, "student-alone")


def test_two_measurements_give_the_same_bytes(chain: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, measured(chain, *RUNS, count=8))
    for file in (NUMBERS_FILE, PAGE_FILE):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_page_shows_every_run_on_one_axis_and_asks_for_nothing(chain: Path) -> None:
    found = measured(chain, *RUNS, count=8)
    page = page_of(found)
    assert "Generated words, not CVSI-2015" in page
    assert "http" not in page.replace('http-equiv="Content-Security-Policy"', "")
    charts = page.split("<figure>")[1:]
    assert len(charts) == 5
    axes = set()
    for change, chart in zip(CHANGES, charts, strict=True):
        assert chart.count("<polyline") == len(RUNS)
        assert chart.count("<title>") == len(RUNS) * 5
        assert f"{change.measure}</text>" in chart
        assert "student-cnn" in chart[chart.index('<p class="small">') :]
        axes.add(tuple(part.split("<")[0] for part in chart.split('text-anchor="end">')[1:]))
    assert len(axes) == 1
    legend = page[page.index('class="legend"') : page.index("<figure>")]
    assert all(name in legend for name in RUNS)
    # Two students have one colour: their lines differ.
    assert legend.count('stroke-dasharray="none"') == 3
    real = page_of(found.model_copy(update={"source": "cvsi"}))
    assert "Generated" not in real


@pytest.mark.parametrize(
    ("right", "sentence"),
    [
        ((93, 92, 88, 80, 70), "has lost five points at 0.04 of the height, not yet at 0.02: it"),
        ((93, 88, 90, 90, 90), "has lost five points at 0.02 of the height: it reads 88.00 %"),
        ((93, 92, 92, 91, 89), "loses fewer than five points: at 0.08 of the height it reads"),
    ],
)
def test_a_sentence_says_where_five_points_are_lost(right: tuple[int, ...], sentence: str) -> None:
    change = CHANGES[0]
    steps = [
        Measured(strength=strength, correct=count, accuracy=100 * (count / 100), low=0, high=100)
        for strength, count in zip((None, *change.strengths), right, strict=True)
    ]
    said = lost("student-cnn", change, steps, 100)
    assert said.startswith(f"student-cnn {sentence}")
    assert said.endswith("and 93.00 % as they are.")


def test_the_command_measures_the_chain_and_says_what_is_wrong(tmp_path: Path) -> None:
    project = write_project(tmp_path)
    index = read_index(project / "data/shards")
    for name in RUNS:
        tiny_model(project / "models" / name, index, run=name, steps=3)
    for arguments, message in (
        (("student-x",), "error: no run 'student-x' in params.yaml"),
        (("--words", "0"), "error: 0 words tell nothing"),
    ):
        refused = run(project, "robustness", *arguments)
        assert refused.returncode == 2
        assert message in refused.stderr
        assert refused.stdout == ""
        assert not (project / "reports").exists()
    done = run(project, "robustness", "--words", "6", "--json")
    assert done.returncode == 0, done.stderr
    kept = json.loads((project / "reports/robustness" / NUMBERS_FILE).read_text())
    assert json.loads(done.stdout) == kept
    assert [one["run"] for one in kept["runs"]] == list(RUNS)
    assert (project / "reports/robustness" / PAGE_FILE).read_text().startswith("<!doctype html>")
    assert "robustness teacher-cnn  126/126 images" in done.stderr
