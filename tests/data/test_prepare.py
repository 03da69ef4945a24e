"""From a folder of word images to shards: read, audited, refused or built."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import SCRIPTS, tiny_images, tiny_params

from pipeline.data.shards import read_index, read_shard
from pipeline.errors import DataError
from pipeline.params import Params
from pipeline.prepare import prepare

FOLDERS = {"train": "Training", "validation": "Validation", "test": "Testing"}


def put_images(root: Path) -> None:
    for image in tiny_images():
        path = root / FOLDERS[image.split] / image.script / f"{image.key}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.read())


def params(root: Path, **changes: object) -> Params:
    content = {"source": "cvsi", "root": str(root), "scripts": list(SCRIPTS), **changes}
    return tiny_params(data=content)


def test_a_folder_of_images_becomes_shards_with_their_own_bytes(tmp_path: Path) -> None:
    put_images(tmp_path / "images")
    _, index = prepare(params(tmp_path / "images"), tmp_path / "shards", tmp_path / "audit.json")
    assert read_index(tmp_path / "shards") == index
    assert index.scripts == SCRIPTS
    assert index.source == "cvsi"
    found = {
        (shard.split, sample.key, sample.jpeg)
        for shard in index.shards
        for sample in read_shard(tmp_path / "shards", shard)
    }
    assert found == {(image.split, image.key, image.read()) for image in tiny_images()}


def test_the_same_images_elsewhere_give_the_same_version(tmp_path: Path) -> None:
    versions = []
    for name in ("a", "b/c"):
        put_images(tmp_path / name / "images")
        _, index = prepare(
            params(tmp_path / name / "images"), tmp_path / name / "s", tmp_path / "audit.json"
        )
        versions.append(index.version)
    assert versions[0] == versions[1]


def test_a_chosen_set_of_scripts_leaves_the_others_out(tmp_path: Path) -> None:
    put_images(tmp_path / "images")
    _, index = prepare(
        params(tmp_path / "images", scripts=["Hindi", "Bengali"]),
        tmp_path / "shards",
        tmp_path / "audit.json",
    )
    assert index.scripts == ("Bengali", "Hindi")
    assert index.images("train") == 32


def test_a_test_image_among_the_training_images_is_refused_and_old_shards_stay(
    tmp_path: Path,
) -> None:
    root = tmp_path / "images"
    put_images(root)
    settings = params(root)
    prepare(settings, tmp_path / "shards", tmp_path / "audit.json")
    before = (tmp_path / "shards/index.json").read_bytes()
    copied = (root / "Testing/Hindi/HIN_000.jpg").read_bytes()
    (root / "Training/Hindi/HIN_900.jpg").write_bytes(copied)
    with pytest.raises(DataError, match="HIN_900"):
        prepare(settings, tmp_path / "shards", tmp_path / "audit.json")
    assert (tmp_path / "shards/index.json").read_bytes() == before
    assert "HIN_900" in json.dumps(json.loads((tmp_path / "audit.json").read_text()))


def test_what_the_parameters_allow_is_let_through(tmp_path: Path) -> None:
    root = tmp_path / "images"
    put_images(root)
    copied = (root / "Testing/Hindi/HIN_000.jpg").read_bytes()
    (root / "Training/Hindi/HIN_900.jpg").write_bytes(copied)
    _, index = prepare(
        params(root, allow=["test_in_train"]), tmp_path / "shards", tmp_path / "audit.json"
    )
    assert index.images("train") == 49
