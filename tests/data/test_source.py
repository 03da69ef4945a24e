from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline import scripts
from pipeline.data.source import Source, read_labelled, read_source
from pipeline.errors import DataError
from pipeline.params import Data

TRAIN, VALIDATION = "TrainDataset_CVSI2015", "ValidationDataset_CVSI2015"
TRUTH, TEST = "GroundTruth_TestDataset_CVSI2015/Task4", "TestDataset_CVSI2015"
CHOSEN = ("Bengali", "Tamil")
REAL = Path(__file__).parents[2] / "../shared/data"
real_images = pytest.mark.skipif(not REAL.is_dir(), reason="no real images in ../shared/data")


def jpeg(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade % 256, shade // 256 % 256, 99)).save(buffer, "JPEG")
    return buffer.getvalue()


def put(root: Path, *names: str) -> Path:
    """Makes images, each with bytes of its own."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(jpeg(7 * sum(1 for p in root.rglob("*") if p.is_file())))
    return root


def official(root: Path) -> Path:
    return put(
        root,
        *(
            f"{TRAIN}/{s}/{c}_{n}.jpg"
            for s, c in (("Bengali", "BEN"), ("Tamil", "TAM"))
            for n in "12"
        ),
        f"{VALIDATION}/Bengali/BEN_3.jpg",
        f"{VALIDATION}/Tamil/TAM_3.jpg",
        f"{TRUTH}/BEN_4.jpg",
        f"{TRUTH}/TAM_4.jpg",
    )


def data(root: Path, **changes: Any) -> Data:
    return Data.model_validate({"source": "cvsi", "root": root, "scripts": CHOSEN, **changes})


def listed(source: Source) -> list[tuple[str, str, str]]:
    return [(image.split, image.script, image.key) for image in source.images]


def packed(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for item in sorted(folder.rglob("*"), reverse=True):
            file.write(item, item.relative_to(folder))
    return path


EXPECTED = [
    ("test", "Bengali", "BEN_4"),
    ("test", "Tamil", "TAM_4"),
    ("train", "Bengali", "BEN_1"),
    ("train", "Bengali", "BEN_2"),
    ("train", "Tamil", "TAM_1"),
    ("train", "Tamil", "TAM_2"),
    ("validation", "Bengali", "BEN_3"),
    ("validation", "Tamil", "TAM_3"),
]


def test_the_official_layout(tmp_path: Path) -> None:
    source = read_source(data(official(tmp_path / "cvsi")))
    assert listed(source) == EXPECTED
    assert (source.unlabelled, source.outside, source.notes, source.generated) == (0, 0, (), None)
    assert source.images[2].origin == f"{TRAIN}/Bengali/BEN_1.jpg"
    assert source.images[2].read() == (tmp_path / "cvsi" / TRAIN / "Bengali/BEN_1.jpg").read_bytes()


def test_the_parent_of_the_folder(tmp_path: Path) -> None:
    official(tmp_path / "downloads" / "cvsi")
    assert listed(read_source(data(tmp_path))) == EXPECTED


def test_nesting_doubled_by_unzipping(tmp_path: Path) -> None:
    official(tmp_path / "once")
    for name in (TRAIN, VALIDATION, "GroundTruth_TestDataset_CVSI2015"):
        shutil.copytree(tmp_path / "once" / name, tmp_path / "twice" / name / name)
    assert listed(read_source(data(tmp_path / "twice"))) == EXPECTED


def test_one_zip(tmp_path: Path) -> None:
    path = packed(official(tmp_path / "cvsi"), tmp_path / "cvsi.zip")
    source = read_source(data(path))
    assert listed(source) == EXPECTED
    assert source.images[2].origin == f"cvsi.zip!{TRAIN}/Bengali/BEN_1.jpg"
    unpacked = read_source(data(tmp_path / "cvsi"))
    assert [i.read() for i in source.images] == [i.read() for i in unpacked.images]


@pytest.mark.parametrize("inner", [True, False])
def test_a_zip_of_every_split(tmp_path: Path, inner: bool) -> None:
    official(tmp_path / "cvsi")
    (tmp_path / "zips").mkdir()
    for name in (TRAIN, VALIDATION, "GroundTruth_TestDataset_CVSI2015"):
        wrapped = tmp_path / "wrapped" / name
        shutil.copytree(tmp_path / "cvsi" / name, wrapped / name)
        packed(wrapped if inner else wrapped / name, tmp_path / "zips" / f"{name}.zip")
    assert listed(read_source(data(tmp_path / "zips"))) == EXPECTED


def test_zips_beside_what_was_unpacked_of_them_are_taken_once(tmp_path: Path) -> None:
    packed(official(tmp_path / "cvsi"), tmp_path / "cvsi.zip")
    source = read_source(data(tmp_path))
    assert listed(source) == EXPECTED
    assert "8 images lie there twice, byte for byte" in source.notes[0]


def test_the_mirrors_layout(tmp_path: Path) -> None:
    names = [
        f"{split}/{script}/{n}.JPEG"
        for split in ("Training", "Validation", "Testing")
        for script in ("BENGALI", "tamil")
        for n in (1, 2)
    ]
    source = read_source(data(put(tmp_path, *names)))
    assert Counter(image.split for image in source.images) == dict.fromkeys(
        ("train", "validation", "test"), 4
    )
    assert [image.key for image in source.images][:4] == ["BEN_1", "BEN_2", "TAM_1", "TAM_2"]


def test_unlabelled_test_images_are_counted(tmp_path: Path) -> None:
    put(official(tmp_path), f"{TEST}/1.jpg", f"{TEST}/{TEST}/TEST_2.jpg")
    source = read_source(data(tmp_path))
    assert listed(source) == EXPECTED
    assert source.unlabelled == 2
    assert source.notes == ("2 test images have no label and are not used",)


def test_unlabelled_test_images_alone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 have no label"):
        read_source(data(put(tmp_path, f"{TEST}/1.jpg")))


def test_task_4_is_read_where_other_tasks_lie_beside_it(tmp_path: Path) -> None:
    official(tmp_path)
    for task in ("Task1", "Task2", "Task3"):
        put(tmp_path, f"{TRUTH}/../{task}/BEN_4.jpg", f"{TRUTH}/../{task}/BEN_99.jpg")
    assert listed(read_source(data(tmp_path))) == EXPECTED


def test_without_task_4_the_task_that_covers_the_scripts_is_read(tmp_path: Path) -> None:
    official(tmp_path)
    shutil.rmtree(tmp_path / TRUTH)
    put(tmp_path, f"{TRUTH}/../Task2/BEN_5.jpg", f"{TRUTH}/../Task3/TAM_6.jpg")
    put(tmp_path, f"{TRAIN}/English/ENG_1.jpg", f"{VALIDATION}/English/ENG_2.jpg")
    source = read_source(data(tmp_path, scripts=("English", "Tamil")))
    assert [image.key for image in source.images if image.split == "test"] == ["TAM_6"]
    assert "no folder Task4, Task3 was used" in source.notes[-1]
    with pytest.raises(DataError, match="no task's folder covers Bengali, Tamil; add the folder"):
        read_source(data(tmp_path))


def test_only_the_chosen_scripts_are_read(tmp_path: Path) -> None:
    put(official(tmp_path), f"{TRAIN}/Hindi/HIN_1.jpg", f"{TRUTH}/HIN_2.jpg")
    source = read_source(data(tmp_path))
    assert listed(source) == EXPECTED
    assert source.outside == 2


def test_other_files_and_strays_are_reported(tmp_path: Path) -> None:
    put(official(tmp_path), "cover.jpg", f"{TRAIN}/Tamil/TAM_9.png")
    (tmp_path / "README.md").touch()
    source = read_source(data(tmp_path))
    assert listed(source) == EXPECTED
    assert source.notes == (
        f"2 files are no .jpg and were left out (README.md, {TRAIN}/Tamil/TAM_9.png)",
        "1 images lie in no split's folder and were left out (cover.jpg)",
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (f"{TRAIN}/Klingon/KLI_1.jpg", "the folder 'Klingon', which is no script"),
        (f"{TRAIN}/Klingon/BEN_9.jpg", "the folder 'Klingon', which is no script"),
        (f"{TRUTH}/XYZ_1.jpg", "begins with no script's prefix"),
        (f"{TRAIN}/XYZ_1.jpg", "begins with no script's prefix"),
    ],
)
def test_a_label_outside_the_scripts_is_refused(tmp_path: Path, name: str, message: str) -> None:
    put(official(tmp_path), name)
    with pytest.raises(DataError, match=message) as caught:
        read_source(data(tmp_path))
    assert name in str(caught.value)
    with pytest.raises(DataError, match=message):
        read_labelled(tmp_path, CHOSEN)


def test_the_folder_is_the_label_where_the_prefix_disagrees(tmp_path: Path) -> None:
    put(official(tmp_path), f"{TRAIN}/Tamil/BEN_1.jpg")
    assert ("train", "Tamil", "BEN_1-2") in listed(read_source(data(tmp_path)))


def test_one_name_for_two_images_is_numbered(tmp_path: Path) -> None:
    put(official(tmp_path), f"{TRAIN}/Tamil/more/TAM_1.jpg", f"{TRAIN}/Tamil/more/TAM_1.jpeg")
    source = read_source(data(tmp_path))
    keys = [image.key for image in source.images if image.split == "train"]
    assert keys == ["BEN_1", "BEN_2", "TAM_1", "TAM_1-2", "TAM_1-3", "TAM_2"]
    assert "2 images bear another's name and were numbered" in source.notes[0]


def test_a_key_holds_nothing_that_a_shard_cannot_name(tmp_path: Path) -> None:
    put(official(tmp_path), f"{TRAIN}/Tamil/TAM_1.crop (2).jpg")
    assert ("train", "Tamil", "TAM_1-crop-2-") in listed(read_source(data(tmp_path)))


def many(root: Path, folder: str, images: int = 20) -> Path:
    for script, code in (("Bengali", "BEN"), ("Tamil", "TAM")):
        put(root, *(f"{folder}/{script}/{code}_{n}.jpg" for n in range(images)))
    return root


def sizes(source: Source) -> Counter[tuple[str, str]]:
    return Counter((image.split, image.script) for image in source.images)


def test_without_validation_a_share_of_train_becomes_it(tmp_path: Path) -> None:
    put(many(tmp_path, "Training"), "Testing/Tamil/TAM_99.jpg")
    source = read_source(data(tmp_path, held_out=0.25))
    for script in CHOSEN:
        assert sizes(source)["train", script] == 15
        assert sizes(source)["validation", script] == 5
    assert source.notes == (
        "there are no validation images: 25% of train, by script and by a hash of the names, "
        "became validation",
    )
    assert listed(source) == listed(read_source(data(tmp_path, held_out=0.25)))
    (tmp_path / "Training/Tamil/TAM_1.jpg").write_bytes(jpeg(12345))
    assert listed(source) == listed(read_source(data(tmp_path, held_out=0.25)))


def test_without_test_validation_is_judged_on(tmp_path: Path) -> None:
    many(many(tmp_path, TRAIN), VALIDATION, 4)
    source = read_source(data(tmp_path))
    for script in CHOSEN:
        assert [sizes(source)[s, script] for s in ("train", "validation", "test")] == [17, 3, 4]
    assert "there are no test images: validation is judged on as test" in source.notes[0]


def test_train_alone_gives_all_three_splits(tmp_path: Path) -> None:
    source = read_source(data(many(tmp_path, TRAIN)))
    for script in CHOSEN:
        assert [sizes(source)[s, script] for s in ("train", "validation", "test")] == [14, 3, 3]
    assert len({image.origin for image in source.images}) == 40
    assert len(source.notes) == 2


def test_a_missing_root_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere is missing.*organisers.*data\.source: generated"):
        read_source(data(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"nowhere is missing; generate the words first"):
        read_source(data(tmp_path / "nowhere", source="generated"))
    with pytest.raises(DataError, match=r"nowhere is missing; give a folder"):
        read_labelled(tmp_path / "nowhere", CHOSEN)


def test_no_image_lists_the_layouts_and_what_is_there(tmp_path: Path) -> None:
    put(tmp_path, "pictures/1.jpg", "notes/2.png")
    with pytest.raises(DataError, match=r"at its top is notes, pictures; .*Training\|Validation"):
        read_source(data(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="at its top is nothing"):
        read_source(data(tmp_path / "empty"))


def test_a_script_without_training_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no training image of Arabic, English.*data\.scripts"):
        read_source(data(official(tmp_path), scripts=("Arabic", "English", "Tamil")))


@pytest.mark.parametrize("zipped", [False, True])
def test_generated_data_says_so(tmp_path: Path, zipped: bool) -> None:
    root = official(tmp_path / "words")
    (root / "GENERATED.json").write_text(json.dumps({"seed": 3}))
    if zipped:
        root = packed(root, tmp_path / "words.zip")
    source = read_source(data(root, source="generated"))
    assert source.generated == {"seed": 3}
    assert source.notes == ()
    assert read_labelled(root, CHOSEN).generated == {"seed": 3}
    with pytest.raises(DataError, match=r"holds generated words.*set data\.source: generated"):
        read_source(data(root))


def test_real_data_is_not_taken_for_generated(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no GENERATED\.json.*set data\.source: cvsi"):
        read_source(data(official(tmp_path), source="generated"))
    (tmp_path / "GENERATED.json").write_text("[1")
    with pytest.raises(DataError, match="no JSON mapping"):
        read_source(data(tmp_path, source="generated"))


def test_read_labelled_takes_all_splits(tmp_path: Path) -> None:
    put(official(tmp_path), f"{TRAIN}/Hindi/HIN_1.jpg", f"{TEST}/1.jpg")
    source = read_labelled(tmp_path, CHOSEN)
    assert listed(source) == EXPECTED
    assert (source.outside, source.unlabelled) == (1, 1)


@pytest.mark.parametrize("prefix", ["", "Bengali/", "wrapper/"])
def test_read_labelled_needs_no_split(tmp_path: Path, prefix: str) -> None:
    put(tmp_path / "mine", f"{prefix}BEN_1.jpg", f"{prefix}BEN_2.jpg")
    for root in (tmp_path / "mine", packed(tmp_path / "mine", tmp_path / "mine.zip")):
        source = read_labelled(root, CHOSEN)
        assert listed(source) == [("test", "Bengali", "BEN_1"), ("test", "Bengali", "BEN_2")]
        assert source.notes == ()


def test_read_labelled_takes_a_scripts_own_folder(tmp_path: Path) -> None:
    source = read_labelled(put(tmp_path / "Tamil", "photo.jpg"), CHOSEN)
    assert listed(source) == [("test", "Tamil", "TAM_photo")]


def test_read_labelled_refuses_what_it_cannot_judge(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"photo\.jpg lies in no script's folder"):
        read_labelled(put(tmp_path / "flat", "photo.jpg"), CHOSEN)
    with pytest.raises(DataError, match=r"no labelled image of Bengali, Tamil.* 1 are of other"):
        read_labelled(put(tmp_path / "other", "HIN_1.jpg"), CHOSEN)


@real_images
def test_real_words_of_three_scripts() -> None:
    three = ("Bengali", "English", "Hindi")
    source = read_source(data(REAL / "autnt3", scripts=three))
    assert len(source.images) == 6047
    assert sizes(source)["test", "Hindi"] == 190
    assert sizes(source)["validation", "Hindi"] == round(0.15 * 1074)


@real_images
def test_real_words_of_all_scripts() -> None:
    source = read_labelled(REAL / "real10-dev", scripts.NAMES)
    assert len(source.images) == 511
    assert sizes(source)["test", "Tamil"] == 48
    assert source.images[0].key == "ARB_001"
