"""WebDataset shards: word images in, tar files and their index out, and back again.

A shard is a POSIX tar with the members ``<key>.cls`` (the script's name), ``<key>.jpg`` (the
original bytes) and ``<key>.json``. ``index.json`` beside them says what every shard holds. Two
builds from one source give the same bytes.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import webdataset
from pydantic import BaseModel, ConfigDict
from webdataset.tariterators import group_by_keys, tar_file_expander

from pipeline.data.source import WordImage
from pipeline.errors import DataError
from pipeline.files import sha256, whole_folder, write_whole
from pipeline.scripts import SPLITS, Split

INDEX_FILE = "index.json"


class Shard(BaseModel):
    """What the index says of one shard.

    Attributes:
        name: its path, relative to the index.
        samples: images in it.
        bytes: its size.
        classes: images of each script.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    split: Split
    samples: int
    bytes: int
    sha256: str
    classes: dict[str, int]


class Index(BaseModel):
    """What a folder of shards holds.

    Attributes:
        version: a SHA-256 over the source, the scripts, and the names and checksums of all shards.
        source: ``generated`` or ``cvsi``.
        scripts: names in the order of the logits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: str
    source: str
    scripts: tuple[str, ...]
    shards: tuple[Shard, ...]

    def of(self, split: str) -> tuple[Shard, ...]:
        """The shards of one split, in order."""
        return tuple(shard for shard in self.shards if shard.split == split)

    def images(self, split: str) -> int:
        """Images in one split."""
        return sum(shard.samples for shard in self.of(split))


@dataclass(frozen=True)
class Sample:
    """An image as it lies in a shard.

    Attributes:
        key: the image's official name.
        jpeg: its original bytes.
        script: its script's name.
    """

    key: str
    jpeg: bytes
    script: str


def build(
    images: Sequence[WordImage],
    folder: Path,
    *,
    source: str,
    scripts: Sequence[str],
    shard_images: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Index:
    """Writes the shards of all splits and their index in the place of ``folder``.

    Within a split the images are ordered by a hash of their keys, so that every shard is a fair
    mixture of the scripts.

    Args:
        images: the images, each with a split, a script and a key that is unique in its split.
        folder: appears whole or not at all.
        source: ``generated`` or ``cvsi``.
        scripts: names in the order of the logits.
        shard_images: images in a shard.
        progress: called with the images written so far and in all.
    """
    shards: list[Shard] = []
    written = 0
    with whole_folder(folder) as part:
        for split in SPLITS:
            (part / split).mkdir()
            ordered = iter(sorted((i for i in images if i.split == split), key=_mixed))
            for number in range(len(images)):
                chunk = list(islice(ordered, shard_images))
                if not chunk:
                    break
                name = f"{split}/{split}-{number:06d}.tar"
                _write(part / name, chunk, source)
                written += len(chunk)
                progress(written, len(images))
                shards.append(
                    Shard(
                        name=name,
                        split=split,
                        samples=len(chunk),
                        bytes=(part / name).stat().st_size,
                        sha256=sha256(part / name),
                        classes=dict(sorted(Counter(image.script for image in chunk).items())),
                    )
                )
        index = Index(
            version=_version(shards, source, scripts),
            source=source,
            scripts=tuple(scripts),
            shards=tuple(shards),
        )
        write_whole(part / INDEX_FILE, index.model_dump_json(indent=1) + "\n")
    return index


class ShardSource(Protocol):
    """Where shards are read from."""

    def read(self, shard: Shard) -> list[Sample]:
        """All images of a shard, checked against the index before any of them is used."""

    def prefetch(self, shards: Iterable[Shard]) -> None:
        """Is told which shards are wanted next, in this order."""

    def close(self) -> None:
        """Is told that no more is read."""


@dataclass(frozen=True)
class ShardFolder:
    """Shards in a folder of this machine."""

    folder: Path

    def read(self, shard: Shard) -> list[Sample]:
        """See :func:`read_shard`."""
        return read_shard(self.folder, shard)

    def prefetch(self, shards: Iterable[Shard]) -> None:
        """Files of this machine need no announcement."""

    def close(self) -> None:
        """There is nothing to close."""


def read_index(folder: Path) -> Index:
    """The index of a folder of shards.

    Raises:
        DataError: it is missing, or does not fit its own version.
    """
    path = folder / INDEX_FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing: make the shards with dvc repro shards") from None
    return parse_index(content, str(path))


def parse_index(content: bytes, origin: str) -> Index:
    """The index that was read from ``origin``.

    Raises:
        DataError: it is none, or does not fit its own version.
    """
    try:
        index = Index.model_validate_json(content)
    except ValueError as error:
        raise DataError(
            f"{origin} is no index of shards: {error}; run python -m pipeline shards"
        ) from error
    counted = all(
        shard.samples == sum(shard.classes.values()) and set(shard.classes) <= set(index.scripts)
        for shard in index.shards
    )
    if index.version != _version(index.shards, index.source, index.scripts) or not counted:
        raise DataError(f"{origin} was changed after it was written; run python -m pipeline shards")
    return index


def read_shard(folder: Path, shard: Shard) -> list[Sample]:
    """All images of a shard in a folder, checked against the index before any of them is used.

    Raises:
        DataError: the shard is missing, truncated or changed; the message names it.
    """
    path = folder / shard.name
    try:
        with webdataset.gopen(str(path)) as stream:
            content: bytes = stream.read()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}; run dvc checkout or dvc pull") from error
    check(content, shard, str(path), "run dvc checkout, or python -m pipeline shards")
    return unpack(content, shard, str(path))


def check(content: bytes, shard: Shard, origin: str, remedy: str) -> None:
    """Compares the bytes of a shard with what the index says of them.

    Raises:
        DataError: they differ; the message names the ``origin`` and the ``remedy``.
    """
    if len(content) != shard.bytes:
        raise DataError(
            f"{origin} has {len(content)} bytes where the index says {shard.bytes}: it is "
            f"truncated or changed; {remedy}"
        )
    if hashlib.sha256(content).hexdigest() != shard.sha256:
        raise DataError(
            f"{origin} does not match its checksum: it was changed after it was written; {remedy}"
        )


def unpack(content: bytes, shard: Shard, origin: str) -> list[Sample]:
    """The images in the bytes of a shard.

    Raises:
        DataError: they are not as many as the index says.
    """
    # The members are taken by name: WebDataset's own decoders would unpickle a .pkl.
    members = tar_file_expander([{"url": origin, "stream": io.BytesIO(content)}])
    samples = [
        Sample(sample["__key__"], sample["jpg"], sample["cls"].decode())
        for sample in group_by_keys(members)
    ]
    if len(samples) != shard.samples:
        raise DataError(
            f"{origin} holds {len(samples)} images where the index says {shard.samples}; rebuild "
            "the shards"
        )
    return samples


def _mixed(image: WordImage) -> bytes:
    return hashlib.sha256(image.key.encode()).digest()


def _version(shards: Iterable[Shard], source: str, scripts: Iterable[str]) -> str:
    lines = [f"{source} {' '.join(scripts)}", *(f"{s.name} {s.sha256}" for s in shards)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _write(path: Path, images: Sequence[WordImage], source: str) -> None:
    options = {"user": "", "group": "", "mtime": 0, "mode": 0o644, "encoder": False}
    with webdataset.TarWriter(str(path), format=tarfile.USTAR_FORMAT, **options) as writer:
        for image in images:
            if "." in image.key or "/" in image.key:
                raise DataError(
                    f"{image.origin}: a dot in a name breaks WebDataset's keys; rename it"
                )
            about = {
                "key": image.key,
                "script": image.script,
                "source": source,
                "split": image.split,
            }
            writer.write(
                {
                    "__key__": image.key,
                    "cls": image.script.encode(),
                    "jpg": image.read(),
                    "json": json.dumps(about, sort_keys=True).encode(),
                }
            )
