from __future__ import annotations

import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from pipeline.data import archive
from pipeline.data.archive import list_files
from pipeline.errors import DataError


def zipped(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name), content, compression)
    return path


def with_directory_field(path: Path, offset: int, layout: str, value: int) -> Path:
    """Overwrites a field of the first entry of a zip's central directory."""
    content = bytearray(path.read_bytes())
    struct.pack_into(layout, content, content.index(b"PK\x01\x02") + offset, value)
    path.write_bytes(content)
    return path


def origins(root: Path) -> list[str]:
    return [file.origin for file in list_files(root)]


def test_folder_and_zip_list_the_same_files_in_one_order(tmp_path: Path) -> None:
    members = {"b/2.jpg": b"two", "a/1.jpg": b"one", "c.txt": b"three"}
    folder = tmp_path / "images"
    for name, content in members.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    inside = list_files(folder)
    packed = list_files(zipped(tmp_path / "images.zip", members))
    assert [str(file.path) for file in inside] == [
        "images/a/1.jpg",
        "images/b/2.jpg",
        "images/c.txt",
    ]
    assert [file.path for file in packed] == [file.path for file in inside]
    assert [file.read() for file in packed] == [file.read() for file in inside]
    assert origins(tmp_path / "images.zip")[0] == "images.zip!a/1.jpg"
    assert origins(folder)[0] == "a/1.jpg"


def test_zips_in_a_folder_stand_as_folders_and_nothing_is_unpacked(tmp_path: Path) -> None:
    zipped(tmp_path / "Train.ZIP", {"Tamil/TAM_1.jpg": b"x"})
    (tmp_path / "sub").mkdir()
    zipped(tmp_path / "sub" / "test.zip", {"TAM_2.jpg": b"y"})
    before = sorted(tmp_path.rglob("*"))
    files = list_files(tmp_path)
    assert [file.read() for file in files] == [b"x", b"y"]
    assert origins(tmp_path) == ["Train.ZIP!Tamil/TAM_1.jpg", "sub/test.zip!TAM_2.jpg"]
    assert files[0].path.parts[1:] == ("Train", "Tamil", "TAM_1.jpg")
    assert sorted(tmp_path.rglob("*")) == before


def test_litter_is_skipped(tmp_path: Path) -> None:
    litter = {"__MACOSX/._1.jpg": b"", ".DS_Store": b"", ".git/1.jpg": b"", "a/Thumbs.db": b""}
    assert origins(zipped(tmp_path / "x.zip", {**litter, "a/1.jpg": b"1"})) == ["x.zip!a/1.jpg"]
    folder = tmp_path / "folder"
    for name in [*litter, "a/1.jpg"]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    assert origins(folder) == ["a/1.jpg"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("../1.jpg", "leads out"),
        ("a/../../1.jpg", "leads out"),
        ("/etc/1.jpg", "absolute"),
        ("C:/1.jpg", "absolute"),
        ("c:1.jpg", "absolute"),
        ("..\\1.jpg", "backslash"),
        ("a\\1.jpg", "backslash"),
        ("a\n1.jpg", "no plain name"),
        ("__MACOSX/../../1.jpg", "leads out"),
    ],
)
def test_unsafe_names_are_refused(tmp_path: Path, name: str, reason: str) -> None:
    path = zipped(tmp_path / "x.zip", {"good.jpg": b"1", name: b"2"})
    with pytest.raises(DataError, match=reason) as caught:
        list_files(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_special_members_are_refused(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("link.jpg")
    info.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr(info, "/etc/passwd")
    with pytest.raises(DataError, match=r"link\.jpg.* is a link or a special file"):
        list_files(tmp_path)


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    path = with_directory_field(zipped(tmp_path / "x.zip", {"a.jpg": b"1"}), 8, "<H", 1)
    with pytest.raises(DataError, match=r"a\.jpg.* is encrypted"):
        list_files(path)


def test_other_compressions_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.jpg": b"1" * 99}, zipfile.ZIP_BZIP2)
    with pytest.raises(DataError, match="neither stored nor deflated"):
        list_files(path)


def test_a_bomb_by_its_ratio_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.jpg": bytes(10**6)})
    with pytest.raises(DataError, match=r"a\.jpg.* more than 200 times smaller"):
        list_files(path)


def test_a_declared_size_over_the_limit_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.jpg": b"1"})
    with_directory_field(path, 24, "<I", archive.MAX_MEMBER + 1)
    with pytest.raises(DataError, match=r"a\.jpg.* larger than 64 MiB"):
        list_files(path)


@pytest.mark.parametrize("declared", [10, 30_000])
def test_a_size_that_is_not_the_declared_one_is_refused(tmp_path: Path, declared: int) -> None:
    path = zipped(tmp_path / "x.zip", {"a.jpg": os.urandom(20_000)})
    with_directory_field(path, 24, "<I", declared)
    (file,) = list_files(path)
    with pytest.raises(DataError, match=r"x\.zip: member 'a\.jpg' is corrupt"):
        file.read()


def test_a_total_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_TOTAL", 150)
    path = zipped(tmp_path / "x.zip", {"a.jpg": os.urandom(100), "b.jpg": os.urandom(100)})
    with pytest.raises(DataError, match=r"x\.zip would unpack to more"):
        list_files(path)


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.jpg": b"1"})
    with_directory_field(path, 20, "<I", 10**6)
    with pytest.raises(DataError, match="overlap"):
        list_files(path)


def test_two_members_of_one_name_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a/1.jpg": b"1", "a//1.jpg": b"2"})
    with pytest.raises(DataError, match=r"two members are called 'a/1\.jpg'"):
        list_files(path)


def test_a_corrupt_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    path.write_bytes(b"no zip at all")
    with pytest.raises(DataError, match=r"x\.zip is no readable zip"):
        list_files(tmp_path)
    whole = zipped(path, {"a.jpg": os.urandom(999)}).read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(DataError, match="no readable zip"):
        list_files(path)


def test_a_wrong_checksum_names_the_member(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"a.jpg": b"A" * 99}, zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"AAAA", b"AABA", 1))
    (file,) = list_files(path)
    with pytest.raises(DataError, match=r"x\.zip: member 'a\.jpg' is corrupt"):
        file.read()


def test_a_root_that_is_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.rar").touch()
    for name in ("x.rar", "missing"):
        with pytest.raises(DataError, match=r"neither a folder nor a \.zip"):
            list_files(tmp_path / name)


def test_links_in_a_folder_are_followed_once(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "1.jpg").write_bytes(b"1")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "images").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "up").symlink_to(tmp_path / "root")
    (tmp_path / "root" / "2.jpg").symlink_to(tmp_path / "store" / "1.jpg")
    assert origins(tmp_path / "root") == ["2.jpg", "images/1.jpg"]


def test_a_broken_link_and_a_pipe_are_refused(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match=r"1\.jpg is a broken link"):
        list_files(tmp_path)
    (tmp_path / "1.jpg").unlink()
    os.mkfifo(tmp_path / "2.jpg")
    with pytest.raises(DataError, match=r"2\.jpg is a broken link or no regular file"):
        list_files(tmp_path)


def test_a_file_too_large_or_gone_is_refused_when_read(tmp_path: Path) -> None:
    with (tmp_path / "1.jpg").open("wb") as file:
        file.truncate(archive.MAX_MEMBER + 1)
    (listed,) = list_files(tmp_path)
    with pytest.raises(DataError, match=r"1\.jpg is larger than 64 MiB"):
        listed.read()
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"1\.jpg cannot be read"):
        listed.read()


def test_a_name_that_is_no_utf8_can_be_printed(tmp_path: Path) -> None:
    try:
        Path(os.fsdecode(bytes(tmp_path) + b"/\xff.jpg")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (name,) = origins(tmp_path)
    assert name.encode().endswith(b".jpg")
