import csv
import io
import json
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from fontTools.ttLib import TTFont

from pipeline.data import fonts, packages, picture, words
from pipeline.data.generate import generate
from pipeline.errors import DataError
from pipeline.params import Generate
from pipeline.scripts import BY_NAME, NAMES

PARAMS = Generate(train=203, validation=50, test=101, seed=7)


class Bundle:
    def __init__(self, path: Path) -> None:
        with zipfile.ZipFile(path) as bundle:
            self.members = {name: bundle.read(name) for name in bundle.namelist()}
            self.infos = bundle.infolist()
        self.statement = json.loads(self.members["GENERATED.json"])
        self.rows = list(csv.DictReader(io.StringIO(self.members["manifest.csv"].decode())))
        self.images = {n: data for n, data in self.members.items() if n.endswith(".jpg")}

    def of(self, split: str, column: str) -> set[str]:
        return {row[column].casefold() for row in self.rows if row["split"] == split}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("generated") / "words.zip"
    generate(PARAMS, path, workers=1)
    return Bundle(path)


def small(tmp_path: Path, seed: int, workers: int) -> bytes:
    path = tmp_path / f"{seed}-{workers}.zip"
    generate(Generate(train=60, validation=10, test=20, seed=seed), path, workers=workers)
    return path.read_bytes()


def test_the_seed_decides_every_byte_and_the_number_of_workers_none(tmp_path: Path) -> None:
    alone = small(tmp_path, seed=1, workers=1)
    assert small(tmp_path, seed=1, workers=2) == alone
    assert small(tmp_path, seed=2, workers=1) != alone


def test_an_image_depends_on_no_other_image(tmp_path: Path, bundle: Bundle) -> None:
    path = tmp_path / "fewer.zip"
    generate(PARAMS.model_copy(update={"train": 31}), path, workers=1)
    fewer = Bundle(path).images
    train = [name for name in fewer if name.startswith("Train")]
    assert len(train) == 31
    assert all(fewer[name] == bundle.images[name] for name in train)


def test_the_layout_is_that_of_cvsi_and_keys_are_unique(bundle: Bundle) -> None:
    folders = Counter(str(Path(name).parent) for name in bundle.images)
    for place, name in enumerate(NAMES):
        assert folders[f"TrainDataset_CVSI2015/{name}"] == 20 + (place < 3)
        assert folders[f"ValidationDataset_CVSI2015/{name}"] == 5
    assert folders["GroundTruth_TestDataset_CVSI2015/Task4"] == 101
    keys = [Path(name).stem for name in bundle.images]
    assert len(set(keys)) == len(keys) == 354
    assert "ARB_001" in keys
    assert {key.split("_")[0] for key in keys} == {script.code for script in BY_NAME.values()}


def test_members_are_stored_sorted_and_without_the_time_of_writing(bundle: Bundle) -> None:
    images = [info.filename for info in bundle.infos if info.filename.endswith(".jpg")]
    assert images == sorted(images)
    assert {info.compress_type for info in bundle.infos} == {zipfile.ZIP_STORED}
    assert {info.date_time for info in bundle.infos} == {(2015, 1, 1, 0, 0, 0)}


def test_images_are_colour_jpegs_of_the_sizes_the_manifest_gives(bundle: Bundle) -> None:
    rows = {row["key"]: row for row in bundle.rows}
    for name, data in bundle.images.items():
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert image is not None
        height, width, channels = image.shape
        row = rows[Path(name).stem]
        assert (int(row["width"]), int(row["height"]), channels) == (width, height, 3)
        assert picture.WIDTHS[0] <= width <= picture.WIDTHS[1]
        assert picture.HEIGHTS[0] <= height <= picture.HEIGHTS[1]


def test_nearly_every_word_stands_out_from_its_ground_in_grey(bundle: Bundle) -> None:
    apart = []
    for data in bundle.images.values():
        grey = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        assert grey is not None
        low, high = np.percentile(cv2.GaussianBlur(grey, (0, 0), 1), (5, 95))
        apart.append(high - low)
    assert np.mean(np.array(apart) < 20) < 0.02


def test_no_word_and_no_family_of_test_is_in_another_split(bundle: Bundle) -> None:
    for column in ("word", "family"):
        test = bundle.of("test", column)
        assert test
        assert not test & (bundle.of("train", column) | bundle.of("validation", column))
    assert not bundle.of("train", "word") & bundle.of("validation", "word")


def test_single_letters_and_syllables_are_drawn_which_no_vocabulary_has(bundle: Bundle) -> None:
    lone = [row["script"] for row in bundle.rows if len(words.clusters(row["word"])) == 1]
    # A third of three in ten pieces.
    assert 0.05 < len(lone) / len(bundle.rows) < 0.15
    assert len(set(lone)) > 5


def test_every_letter_is_in_the_font_it_was_drawn_in(bundle: Bundle) -> None:
    for row in bundle.rows:
        script = BY_NAME[row["script"]]
        assert script.holds("".join(one for one in row["word"] if not "0" <= one <= "9"))
        assert row["key"].startswith(script.code)
        faces = fonts.weights(script.name, row["family"])
        (face,) = (face for face in faces if face.weight == int(row["weight"]))
        letters = {ord(char) for char in row["word"]} - {0x200C, 0x200D}
        assert letters <= set(TTFont(face.path, lazy=True).getBestCmap())


def test_the_archive_says_what_it_is(bundle: Bundle) -> None:
    statement = bundle.statement
    assert statement["generated"] is True
    assert "not CVSI-2015" in statement["note"]
    assert statement["seed"] == 7
    assert statement["versions"]["uharfbuzz"]
    for split, images in (("train", 203), ("validation", 50), ("test", 101)):
        said = statement["splits"][split]
        assert said["images"] == images == sum(said["images_per_script"].values())
        assert set(said["families"]) == set(NAMES)
        assert said["distinct_words"] == len(bundle.of(split, "word"))
        assert bundle.of(split, "family") <= {f for kept in said["families"].values() for f in kept}


def test_progress_is_told_after_every_image(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    params = Generate(train=5, validation=3, test=2)
    generate(params, tmp_path / "a.zip", workers=1, progress=lambda *now: told.append(now))
    assert told == [(done, 10) for done in range(1, 11)]


def test_what_is_broken_off_leaves_no_archive(tmp_path: Path) -> None:
    def stop(done: int, _: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(PARAMS, tmp_path / "words.zip", workers=1, progress=stop)
    assert not list(tmp_path.iterdir())


def test_missing_fonts_are_refused_before_anything_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package.json").write_text((packages.FOLDER / "package.json").read_text())
    monkeypatch.setattr(packages, "FOLDER", tmp_path)
    with pytest.raises(DataError, match="npm ci"):
        generate(PARAMS, tmp_path / "words.zip", workers=1)
    assert not (tmp_path / "words.zip").exists()
