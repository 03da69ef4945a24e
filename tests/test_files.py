"""Files and folders appear whole or not at all, also where the disk is full."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, environment
from tiny import tiny_model, tiny_shards

from pipeline.files import folder_there, remove_folder, sha256, whole_folder, write_whole
from pipeline.models.folder import load_model

FULL_DISK = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tiny import CNN, VIEW, tiny_info
from pipeline.data.shards import read_index
from pipeline.models.build import build
from pipeline.train.history import EpochRow, Trained
from pipeline.train.run import write_model
folder = Path({folder!r})
weights = build(CNN, 3, VIEW).state_dict()
info = tiny_info(read_index(folder / "shards"))
row = EpochRow(*(1,) * 12)
trained = Trained.__new__(Trained)
trained.__dict__.update(weights=weights, history=[row], best_epoch=1, seconds=1.0)
# No file may grow beyond this: what a full disk looks like to whoever writes.
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
write_model(folder / "model", info, trained)
"""


def test_a_written_file_has_its_content_and_nothing_stays_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/file.txt"
    write_whole(path, "täxt")
    write_whole(path, b"bytes")
    assert path.read_bytes() == b"bytes"
    assert list(path.parent.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o644


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """The name changes from one file to another: who has the old one open reads it to its end."""
    path = tmp_path / "file"
    write_whole(path, b"old" * 1000)
    with path.open("rb") as reader:
        first = reader.read(10)
        write_whole(path, b"new")
        assert first + reader.read() == b"old" * 1000
    assert path.read_bytes() == b"new"


def test_a_folder_is_put_in_place_when_its_block_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for name in ("first", "second"):
        with whole_folder(path) as part:
            (part / name).write_text(name)
            assert name not in [file.name for file in path.glob("*")]
    assert [file.name for file in path.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [path]
    assert path.stat().st_mode & 0o777 == 0o755


def test_a_folder_whose_block_fails_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with whole_folder(path) as part:
        (part / "old").write_text("old")
    with pytest.raises(KeyError), whole_folder(path) as part:
        (part / "new").write_text("new")
        raise KeyError
    assert [file.name for file in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_was_being_replaced_when_its_process_died_is_put_back(
    tmp_path: Path,
) -> None:
    path = tmp_path / "folder"
    with whole_folder(path) as part:
        (part / "file").write_text("old")
    path.rename(tmp_path / ".folder.old")  # between its two renames a process leaves this behind
    assert folder_there(path)
    assert (path / "file").read_text() == "old"
    assert not folder_there(tmp_path / "another")


def test_removing_a_folder_takes_what_killed_processes_left_of_it(tmp_path: Path) -> None:
    for name in ("folder", ".folder.old", ".folder.x1y2", "folder2", ".folder2.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    remove_folder(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".folder2.old", "folder2"]


def test_a_checksum_is_the_one_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert sha256(tmp_path / "x") == hashlib.sha256(b"abc" * 100_000).hexdigest()


@pytest.mark.parametrize("limit", [100, 3000])
def test_a_full_disk_leaves_the_old_model(tmp_path: Path, limit: int) -> None:
    index = tiny_shards(tmp_path / "shards")
    tiny_model(tmp_path / "model", index, seed=1)
    before = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    code = FULL_DISK.format(tests=str(Path(__file__).parent), folder=str(tmp_path), limit=limit)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "shards"]
    load_model(tmp_path / "model")


def test_a_disk_with_room_takes_the_new_model(tmp_path: Path) -> None:
    """The twin of the test above: there it is the limit that fails."""
    index = tiny_shards(tmp_path / "shards")
    tiny_model(tmp_path / "model", index, seed=1)
    before = (tmp_path / "model/model.safetensors").read_bytes()
    code = FULL_DISK.format(tests=str(Path(__file__).parent), folder=str(tmp_path), limit=10**6)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment(), check=True)
    assert (tmp_path / "model/model.safetensors").read_bytes() != before
