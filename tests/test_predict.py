"""Predictions for image files, with a tiny model."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from commands import run, write_project
from PIL import Image
from tiny import SCRIPTS, tiny_jpeg, tiny_model, tiny_shards

from pipeline import predict as predicting
from pipeline.errors import DataError, UsageError
from pipeline.predict import predict


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("predict")
    tiny_model(root / "model", tiny_shards(root / "shards"), steps=20)
    (root / "model" / "history.csv").unlink()
    return root / "model"


def huge_png(width: int, height: int) -> bytes:
    """The header of a large image; nothing of its pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", len(chunk) - 4)
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + b"\0\0\0\0IDAT\x35\xaf\x06\x1e"
    )


def test_words_are_told_with_the_probability_of_every_script(model: Path, tmp_path: Path) -> None:
    files = []
    for number, script in enumerate(SCRIPTS):
        files.append(tmp_path / f"{number}.jpg")
        files[-1].write_bytes(tiny_jpeg(script, number, seed=99))
    found = predict(model, files)
    assert [one.script for one in found] == list(SCRIPTS)
    assert [one.image for one in found] == [str(file) for file in files]
    for one in found:
        assert tuple(one.probabilities) == SCRIPTS
        assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert one.probability == one.probabilities[one.script] == max(one.probabilities.values())


def test_folders_are_searched_and_sorted_and_batches_do_not_matter(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    for number, name in enumerate(("z.JPG", "a.jpeg", "b/deep/m.jpg")):
        (tmp_path / name).write_bytes(tiny_jpeg("Hindi", number))
    grey = Image.open(io.BytesIO(tiny_jpeg("English", 0)))
    for name in ("b/x.png", "b/y.webp", "b/w.bmp"):
        grey.save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    found = predict(model, [tmp_path])
    names = [Path(one.image).relative_to(tmp_path).as_posix() for one in found]
    assert names == ["a.jpeg", "b/deep/m.jpg", "b/w.bmp", "b/x.png", "b/y.webp", "z.JPG"]
    monkeypatch.setattr(predicting, "BATCH", 2)
    for one, other in zip(found, predict(model, [tmp_path]), strict=True):
        assert one.script == other.script
        assert one.probability == pytest.approx(other.probability, abs=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no image"),
        (b"GIF89a and more", "is no image"),
        (tiny_jpeg("Hindi", 0)[:-150], "is a broken image"),
        (huge_png(8000, 4000), "has 8000x4000 pixels, more than 16 million"),
        (huge_png(2**31 - 1, 2**31 - 1), "more than 16 million"),
    ],
)
def test_what_is_no_word_image_is_named(
    model: Path, tmp_path: Path, content: bytes, message: str
) -> None:
    good, bad = tmp_path / "good.jpg", tmp_path / "bad.jpg"
    good.write_bytes(tiny_jpeg("Hindi", 0))
    bad.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        predict(model, [good, bad])
    assert str(bad) in str(caught.value)


def test_a_file_too_large_to_be_a_word_is_refused(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.bmp"
    Image.fromarray(np.zeros((40, 40), np.uint8)).save(path)
    monkeypatch.setattr(predicting, "MAX_MEMBER", 1000)
    with pytest.raises(DataError, match=r"large\.bmp is larger"):
        predict(model, [path])


def test_a_missing_file_and_an_empty_folder_are_wrong_use(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.jpg does not exist"):
        predict(model, [tmp_path / "nowhere.jpg"])
    with pytest.raises(UsageError, match="holds no image"):
        predict(model, [tmp_path])


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(tiny_jpeg("Hindi", 0))
    with pytest.raises(DataError, match="holds no model"):
        predict(tmp_path, [tmp_path / "a.jpg"])


def test_an_unknown_run_is_answered_by_those_there_are(tmp_path: Path) -> None:
    project = write_project(tmp_path / "project")
    (project / "word.jpg").write_bytes(tiny_jpeg("Hindi", 1))
    done = run(project, "predict", "--run", "student-alon", "word.jpg")
    assert done.returncode == 2
    assert "student-alone" in done.stderr


def test_a_long_path_stands_whole_in_one_line_of_a_pipe(model: Path, tmp_path: Path) -> None:
    project = write_project(tmp_path / "project")
    word = tmp_path / ("a" * 100) / ("b" * 100) / "word.jpg"
    word.parent.mkdir(parents=True)
    word.write_bytes(tiny_jpeg("Hindi", 1))
    done = run(project, "predict", "--model", str(model), str(word))
    assert done.returncode == 0, done.stderr
    assert str(word) in done.stdout
