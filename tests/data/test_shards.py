from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import pickle
import tarfile
from pathlib import Path
from typing import Any

import pytest
import webdataset
from tiny import COUNTS, SCRIPTS, tiny_images, tiny_shards

from pipeline.data import shards
from pipeline.data.shards import Index, Sample, Shard, read_index, read_shard
from pipeline.errors import DataError


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def samples(folder: Path, index: Index, split: str) -> list[Sample]:
    return [sample for shard in index.of(split) for sample in read_shard(folder, shard)]


def change_index(folder: Path, **changes: Any) -> None:
    path = folder / "index.json"
    content = json.loads(path.read_text())
    content["shards"][0] |= changes
    path.write_text(json.dumps(content))


def test_shards_hold_every_image_of_every_split_with_its_own_bytes(tmp_path: Path) -> None:
    index = tiny_shards(tmp_path / "shards")
    for split, count in COUNTS.items():
        images = [image for image in tiny_images() if image.split == split]
        found = {s.key: (s.script, s.jpeg) for s in samples(tmp_path / "shards", index, split)}
        assert found == {image.key: (image.script, image.read()) for image in images}
        assert index.images(split) == len(images) == count * len(SCRIPTS)


def test_two_builds_from_one_source_give_the_same_bytes(tmp_path: Path) -> None:
    tiny_shards(tmp_path / "one")
    shards.build(
        tiny_images()[::-1],
        tmp_path / "elsewhere/two",
        source="generated",
        scripts=SCRIPTS,
        shard_images=10,
    )
    assert files(tmp_path / "one") == files(tmp_path / "elsewhere/two")


def test_the_version_changes_with_one_image(tmp_path: Path) -> None:
    first, second = tiny_shards(tmp_path / "one"), tiny_shards(tmp_path / "two", seed=1)
    assert first.version != second.version


def test_the_index_says_what_the_files_hold(tmp_path: Path) -> None:
    index = tiny_shards(tmp_path)
    assert read_index(tmp_path) == index
    for shard in index.shards:
        content = (tmp_path / shard.name).read_bytes()
        assert shard.bytes == len(content)
        assert shard.sha256 == hashlib.sha256(content).hexdigest()
        found = [sample.script for sample in read_shard(tmp_path, shard)]
        assert shard.samples == len(found) <= 10
        assert shard.classes == {script: found.count(script) for script in sorted(set(found))}


def test_every_full_shard_is_a_mixture_of_the_scripts(tmp_path: Path) -> None:
    index = tiny_shards(tmp_path, {"train": 60, "validation": 1, "test": 1}, shard_images=60)
    assert all(set(shard.classes) == set(SCRIPTS) for shard in index.of("train"))
    assert max(max(shard.classes.values()) for shard in index.of("train")) < 40


def test_plain_webdataset_reads_the_shards(tmp_path: Path) -> None:
    index = tiny_shards(tmp_path)
    names = [str(tmp_path / shard.name) for shard in index.of("test")]
    found = {
        (sample["__key__"], sample["cls"].decode(), json.loads(sample["json"])["split"])
        for sample in webdataset.WebDataset(names, shardshuffle=False)
    }
    wanted = {(i.key, i.script, i.split) for i in tiny_images() if i.split == "test"}
    assert found == wanted


def test_plain_tarfile_reads_the_shards_and_nothing_in_them_tells_who_made_them(
    tmp_path: Path,
) -> None:
    index = tiny_shards(tmp_path)
    with tarfile.open(tmp_path / index.shards[0].name) as tar:
        members = tar.getmembers()
    assert [Path(m.name).suffix for m in members[:3]] == [".cls", ".jpg", ".json"]
    assert {(m.uname, m.gname, m.mtime, m.mode) for m in members} == {("", "", 0, 0o644)}


def test_progress_counts_up_to_all_images(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    shards.build(
        tiny_images(),
        tmp_path / "s",
        source="generated",
        scripts=SCRIPTS,
        shard_images=10,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[-1] == (84, 84)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_a_key_that_webdataset_would_split_is_refused_and_the_old_shards_stay(
    tmp_path: Path,
) -> None:
    tiny_shards(tmp_path / "s")
    before = files(tmp_path / "s")
    images = tiny_images()
    images[5] = dataclasses.replace(images[5], key="BEN.1")
    with pytest.raises(DataError, match=r"train/BEN_005\.jpg.*dot"):
        shards.build(images, tmp_path / "s", source="generated", scripts=SCRIPTS, shard_images=10)
    assert files(tmp_path / "s") == before
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_missing_index_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"index\.json is missing: make the shards"):
        read_index(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1}', b"\xff\xfe\x00"])
def test_an_index_that_is_none_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "index.json").write_bytes(content)
    with pytest.raises(DataError, match=r"index\.json is no index"):
        read_index(tmp_path)


@pytest.mark.parametrize(
    "changes", [{"sha256": "0" * 64}, {"name": "train/train-000007.tar"}, {"samples": 9}]
)
def test_an_index_that_was_changed_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    tiny_shards(tmp_path)
    change_index(tmp_path, **changes)
    with pytest.raises(DataError, match=r"index\.json was changed after it was written; run"):
        read_index(tmp_path)


def test_a_shard_with_another_number_of_images_than_the_index_says_is_refused(
    tmp_path: Path,
) -> None:
    shard = tiny_shards(tmp_path).of("train")[0]
    short = shard.model_copy(update={"samples": shard.samples - 1})
    with pytest.raises(DataError, match=r"train-000000\.tar holds 10 images.*index says 9"):
        read_shard(tmp_path, short)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    shard = tiny_shards(tmp_path).of("train")[1]
    (tmp_path / shard.name).unlink()
    with pytest.raises(DataError, match=r"train-000001\.tar cannot be read.*dvc"):
        read_shard(tmp_path, shard)


@pytest.mark.parametrize("kept", [0, 1, 700, 5120])
def test_a_truncated_shard_is_named(tmp_path: Path, kept: int) -> None:
    shard = tiny_shards(tmp_path).of("train")[1]
    path = tmp_path / shard.name
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=rf"train-000001\.tar has {kept} bytes.*truncated"):
        read_shard(tmp_path, shard)


@pytest.mark.parametrize("share", [0.0, 0.31, 0.77, 0.999])
def test_one_flipped_bit_is_found_and_the_shard_named(tmp_path: Path, share: float) -> None:
    shard = tiny_shards(tmp_path).of("train")[1]
    path = tmp_path / shard.name
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-000001\.tar does not match its checksum"):
        read_shard(tmp_path, shard)


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_pickle_in_a_shard_is_never_opened(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    path = tmp_path / "train.tar"
    members = {"cls": b"Hindi", "jpg": b"jpeg", "pkl": pickle.dumps(Trap(sprung))}
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            about = tarfile.TarInfo(f"HIN_1.{name}")
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    content = path.read_bytes()
    shard = Shard(
        name=path.name,
        split="train",
        samples=1,
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        classes={"Hindi": 1},
    )
    assert read_shard(tmp_path, shard) == [Sample("HIN_1", b"jpeg", "Hindi")]
    assert not sprung.exists()
    pickle.loads(members["pkl"])  # noqa: S301 - the trap does work
    assert sprung.exists()
