from __future__ import annotations

import io
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pipeline.data.audit import OFFICIAL_TEST, Audit, audit, usable
from pipeline.data.source import read_labelled, read_source
from pipeline.errors import DataError
from pipeline.params import Data
from pipeline.scripts import BY_NAME, SCRIPTS

REAL = Path(__file__).parents[2] / "../shared/data"
SPLITS = ("Training", "Validation", "Testing")


def jpeg(shade: int = 0, kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 8), (shade % 64 * 4, shade // 64 % 64 * 4, 99)).save(buffer, kind)
    return buffer.getvalue()


def noise() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 32), 80).save(buffer, "JPEG")
    return buffer.getvalue()


def of_size(side: int) -> bytes:
    """A small JPEG whose header claims ``side`` x ``side`` pixels."""
    content = jpeg()
    at = content.index(b"\xff\xc0") + 5
    return content[:at] + side.to_bytes(2, "big") * 2 + content[at + 4 :]


def put(root: Path, name: str, content: bytes) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(content)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two scripts, two different images each in every split."""
    shade = 0
    for split in SPLITS:
        for script, code in (("Bengali", "BEN"), ("Tamil", "TAM")):
            for number in (1, 2):
                put(tmp_path / "cvsi", f"{split}/{script}/{code}_{number}.jpg", jpeg(shade))
                shade += 1
    return tmp_path / "cvsi"


def data(root: Path, **changes: Any) -> Data:
    scripts = ("Bengali", "Tamil")
    return Data.model_validate({"source": "cvsi", "root": root, "scripts": scripts, **changes})


def audited(root: Path) -> Audit:
    return audit(read_source(data(root)), data(root))


def findings(root: Path) -> dict[str, list[str]]:
    return {p.finding: [case.file for case in p.cases] for p in audited(root).problems}


def test_good_images_have_no_finding(root: Path) -> None:
    found = audited(root)
    assert found.images == 12
    assert found.counts["validation"] == {"Bengali": 2, "Tamil": 2}
    assert (found.problems, found.differences, found.official, found.lines()) == ((), (), None, [])
    assert found.refused(data(root)) == []
    found.check(data(root))
    assert usable(read_source(data(root)), found) == read_source(data(root)).images
    assert found.table() == [
        ["script", "train", "validation", "test"],
        ["Bengali", "2", "2", "2"],
        ["Tamil", "2", "2", "2"],
        ["all", "4", "4", "4"],
    ]


def test_it_is_json_and_back(root: Path) -> None:
    put(root, "Testing/Tamil/TAM_1.jpg", b"")
    found = audited(root)
    assert Audit.model_validate_json(found.model_dump_json()) == found


def test_folder_and_zip_are_judged_alike(root: Path) -> None:
    put(root, "Testing/Tamil/TAM_1.jpg", b"")
    with zipfile.ZipFile(root.parent / "cvsi.zip", "w") as file:
        for path in root.rglob("*"):
            file.write(path, path.relative_to(root))
    packed = audited(root.parent / "cvsi.zip")
    text = packed.model_dump_json().replace("cvsi.zip!", "")
    assert text == audited(root).model_dump_json()


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        (b"", "empty file"),
        (b"words", "not a JPEG"),
        (jpeg(kind="PNG"), "not a JPEG"),
        (jpeg()[:200], "broken JPEG"),
        (noise()[:-200], "broken JPEG: image file is truncated"),
        (of_size(10_000), "10000x10000 pixels, more than 16 million"),
        (of_size(30_000), "more than 16 million pixels"),
    ],
)
def test_unreadable_images_are_refused_or_left_out(root: Path, content: bytes, detail: str) -> None:
    put(root, "Training/Tamil/TAM_2.jpg", content)
    source = read_source(data(root))
    started = time.perf_counter()
    found = audit(source, data(root))
    assert time.perf_counter() - started < 1
    assert findings(root) == {"unreadable": ["Training/Tamil/TAM_2.jpg"]}
    assert found.problems[0].cases[0].detail.startswith(detail)
    with pytest.raises(DataError, match=r"unreadable: 1 .*TAM_2.*data\.allow: \[unreadable\]"):
        found.check(data(root))
    found.check(data(root, allow=["unreadable"]))
    left = usable(source, found)
    assert len(left) == 11
    assert "Training/Tamil/TAM_2.jpg" not in {image.origin for image in left}


@pytest.mark.parametrize(
    ("finding", "held", "seen"),
    [
        ("test_in_train", "Testing", "Training"),
        ("test_in_validation", "Testing", "Validation"),
        ("validation_in_train", "Validation", "Training"),
    ],
)
def test_images_in_two_splits_are_refused(root: Path, finding: str, held: str, seen: str) -> None:
    copy, original = f"{held}/Tamil/TAM_1.jpg", f"{seen}/Tamil/TAM_2.jpg"
    put(root, copy, (root / original).read_bytes())
    assert findings(root) == {finding: [copy]}
    found = audited(root)
    (line,) = found.refused(data(root))
    for part in (f"{finding}: 1 ", copy, original, f"data.allow: [{finding}]"):
        assert part in line
    assert found.refused(data(root, allow=[finding])) == []
    assert found.lines()[0].startswith(f"{finding}: 1 ")
    assert len(usable(read_source(data(root)), found)) == 12


def test_a_prefix_that_is_not_its_folders_is_refused(root: Path) -> None:
    put(root, "Training/Tamil/HIN_7.jpg", jpeg(99))
    put(root, "Training/Tamil/scan7.jpg", jpeg(98))
    assert findings(root) == {"label_disagrees": ["Training/Tamil/HIN_7.jpg"]}
    (line,) = audited(root).refused(data(root))
    assert "its folder says Tamil, its name Hindi" in line


def test_the_same_bytes_under_two_labels_are_refused(root: Path) -> None:
    put(root, "Training/Tamil/TAM_1.jpg", (root / "Training/Bengali/BEN_1.jpg").read_bytes())
    assert findings(root) == {"label_disagrees": ["Training/Bengali/BEN_1.jpg"]}
    (line,) = audited(root).refused(data(root))
    assert "Bengali, but Tamil as Training/Tamil/TAM_1.jpg" in line


def test_duplicates_within_a_split_are_reported_only(root: Path) -> None:
    put(root, "Training/Tamil/TAM_9.jpg", (root / "Training/Tamil/TAM_1.jpg").read_bytes())
    found = audited(root)
    group = ("Training/Tamil/TAM_1.jpg", "Training/Tamil/TAM_9.jpg")
    assert found.duplicates == {"train": (group,), "validation": (), "test": ()}
    assert found.refused(data(root)) == []
    assert found.lines() == [
        "train: 1 images repeat another of the same split, for example " + " = ".join(group)
    ]


def test_every_refused_finding_has_its_line(root: Path) -> None:
    put(root, "Testing/Tamil/TAM_1.jpg", b"")
    for number in range(3, 9):
        put(root, f"Testing/Tamil/HIN_{number}.jpg", jpeg(100 + number))
    with pytest.raises(DataError) as caught:
        audited(root).check(data(root))
    title, *lines = str(caught.value).splitlines()
    assert title.startswith(f"{root}: the audit refuses")
    assert [line.split(":")[0].strip() for line in lines] == ["unreadable", "label_disagrees"]
    assert "label_disagrees: 6" in lines[1]
    assert "and 3 more" in lines[1]
    assert audited(root).refused(data(root, allow=["unreadable"])) == [lines[1].strip()]


def test_a_corrupt_archive_is_no_finding_but_an_error(root: Path) -> None:
    path = root.parent / "cvsi.zip"
    with zipfile.ZipFile(path, "w") as file:
        for item in root.rglob("*.jpg"):
            file.write(item, item.relative_to(root))
    path.write_bytes(path.read_bytes().replace(jpeg(0), jpeg(0)[:-9] + bytes(9), 1))
    with pytest.raises(DataError, match=r"cvsi\.zip: member 'Training/Bengali/BEN_1\.jpg' is corr"):
        audited(path)


def test_counts_stand_beside_the_official_ones(root: Path, tmp_path: Path) -> None:
    all_ten = tmp_path / "ten"
    for split in SPLITS:
        for script in SCRIPTS:
            put(all_ten, f"{split}/{script.name}/1.jpg", jpeg())
    chosen = data(all_ten, scripts=None, task="4")
    found = audit(read_source(chosen), chosen)
    assert found.official == {"train": 6412, "validation": 1069, "test": 3207}
    assert found.official_test is not None
    assert sum(found.official_test.values()) == 3207
    assert "train: 10 images, 6402 fewer than the official 6412" in found.differences
    assert "test, Telegu: 1 images, 322 fewer than the official 323" in found.differences
    table = found.table()
    assert table[0][-1] == "official test"
    assert table[-1] == ["official", "6412", "1069", "3207", ""]
    assert {len(row) for row in table} == {5}


def test_the_mirrors_27_images_too_many_are_told(tmp_path: Path) -> None:
    path = tmp_path / "mirror.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name, images in OFFICIAL_TEST.items():
            for number in range(images + 27 * (name == "Tamil")):
                code = BY_NAME[name].code
                file.writestr(f"Testing/{name}/{code}_{number}.jpg", b"")
            file.writestr(f"Training/{name}/{number}.jpg", b"")
    chosen = data(path, scripts=None, task="4")
    found = audit(read_source(chosen), chosen)
    assert found.counts["test"]["Tamil"] == 348
    assert "test: 3234 images, 27 more than the official 3207" in found.differences
    assert "test, Tamil: 348 images, 27 more than the official 321" in found.differences
    assert not [line for line in found.differences if "Bengali" in line]


def test_unlabelled_images_and_notes_are_kept(root: Path) -> None:
    put(root, "TestDataset_CVSI2015/1.jpg", jpeg(50))
    found = audited(root)
    assert found.unlabelled == 1
    assert found.lines() == ["1 test images have no label and are not used"]


def test_a_folder_given_to_evaluate_can_be_audited(root: Path) -> None:
    found = audit(read_labelled(root, ("Tamil", "Bengali")), data(root))
    assert found.images == 12


@pytest.mark.skipif(not REAL.is_dir(), reason="no real images in ../shared/data")
def test_real_words_are_sound() -> None:
    chosen = data(REAL / "autnt3", scripts=("Bengali", "English", "Hindi"))
    found = audit(read_source(chosen), chosen)
    assert found.images == 6047
    assert found.problems == ()
