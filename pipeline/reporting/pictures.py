"""Images out of the shards, as data: URIs that a page can hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from pipeline.data.shards import Index, Sample, read_shard
from pipeline.errors import DataError

LARGEST_BYTES = 8_000
"""An image of more bytes is drawn smaller, or a page of a hundred would not be a page."""

THUMBNAIL = (240, 80)


@dataclass(frozen=True)
class Picture:
    """One image, ready for a page; ``width`` and ``height`` are the original's pixels."""

    key: str
    uri: str
    width: int
    height: int


@dataclass(frozen=True)
class SheetRow:
    """A few images of one script, split by split."""

    script: str
    pictures: dict[str, tuple[Picture, ...]]


def pictures_of(shards: Path, index: Index, keys: Set[str]) -> dict[str, Picture]:
    """The test images of these keys.

    Raises:
        DataError: an image is in no shard of the test split, or cannot be read.
    """
    found: dict[str, Picture] = {}
    for shard in index.of("test"):
        if len(found) == len(keys):
            break
        found |= {
            sample.key: picture(sample, shard.name)
            for sample in read_shard(shards, shard)
            if sample.key in keys
        }
    if missing := sorted(keys - found.keys()):
        raise DataError(
            f"{missing[0]} was judged, but no test shard in {shards} holds it: "
            "evaluate the runs again"
        )
    return found


def sheet(shards: Path, index: Index, splits: tuple[str, ...], each: int) -> tuple[SheetRow, ...]:
    """The first ``each`` images of every script in every split, in the shards' order.

    Raises:
        DataError: a shard cannot be read.
    """
    of_split = {split: _first(shards, index, split, each) for split in splits}
    return tuple(
        SheetRow(script, {split: tuple(of_split[split][script]) for split in splits})
        for script in index.scripts
    )


def picture(sample: Sample, shard: str) -> Picture:
    """One image as a data: URI; a large one as a smaller JPEG of it.

    Raises:
        DataError: the bytes are no image.
    """
    content = sample.jpeg
    try:
        with Image.open(io.BytesIO(content)) as image:
            width, height = image.size
            if len(content) > LARGEST_BYTES:
                small = image.convert("RGB")
                small.thumbnail(THUMBNAIL)
                buffer = io.BytesIO()
                small.save(buffer, "JPEG", quality=80)
                content = buffer.getvalue()
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{sample.key} in shard {shard} is no image: {error}") from error
    uri = "data:image/jpeg;base64," + base64.b64encode(content).decode("ascii")
    return Picture(sample.key, uri, width, height)


def _first(folder: Path, index: Index, split: str, each: int) -> dict[str, list[Picture]]:
    """The first images of every script; only shards that can add one are read."""
    found: dict[str, list[Picture]] = {script: [] for script in index.scripts}
    for shard in index.of(split):
        if any(shard.classes.get(script) for script in found if len(found[script]) < each):
            for sample in read_shard(folder, shard):
                if len(found[sample.script]) < each:
                    found[sample.script].append(picture(sample, shard.name))
    return found
