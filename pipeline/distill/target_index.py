"""What a folder of stored targets says of itself: what made it, and which files it has.

The folder ``targets/<run>/`` holds what a run's model says of every training view: a file for each
shard of the training split, and ``index.json``, the content of :class:`TargetIndex`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pipeline.data.shards import Shard
from pipeline.errors import DataError
from pipeline.files import sha256
from pipeline.params import Section, Targets, View

INDEX_FILE = "index.json"
TARGETS = Path("targets")


class Origin(Section):
    """All that stored logits are a function of, but for the code: their fingerprint.

    Attributes:
        run: whose model gave them.
        weights_sha256: of that model's weights.
        data_version: of the shards.
        view: size, augmentation and number of the views.
        seed: of the augmentation.
    """

    run: str
    weights_sha256: str
    data_version: str
    view: View
    seed: int


class StoredFile(Section):
    """The logits of one shard: the tensor ``logits``, (samples, views, classes).

    Attributes:
        name: of the file.
        samples: images, in the order of the shard.
        bytes: its size.
    """

    name: str
    samples: int
    bytes: int
    sha256: str


class TargetIndex(Section):
    """The content of ``index.json``.

    Attributes:
        targets: ``live`` where nothing is stored, because params.yaml says so.
        origin: what the logits were made of; null where nothing is stored.
        views: of each image.
        classes: the scripts, in the order of the logits.
        dtype: of the logits.
        files: one for each shard of the training split, in order.
    """

    targets: Targets
    origin: Origin | None = None
    views: int = 0
    classes: tuple[str, ...] = ()
    dtype: Literal["float16"] = "float16"
    files: tuple[StoredFile, ...] = ()


def origin_of(run: str, weights: Path, data_version: str, view: View, seed: int) -> Origin:
    """What logits that are made now would be a function of.

    Args:
        run: whose model is asked.
        weights: the file of its weights.
        data_version: of the shards.
        view: what it is shown.
        seed: of the augmentation.
    """
    return Origin(
        run=run, weights_sha256=sha256(weights), data_version=data_version, view=view, seed=seed
    )


def file_of(shard: Shard) -> str:
    """The name of the file that holds the logits of a shard's images."""
    return f"{Path(shard.name).stem}.safetensors"


def read_target_index(folder: Path, wanted: Origin, shards: Sequence[Shard]) -> TargetIndex:
    """The index of stored targets that were made of just this.

    Args:
        folder: ``targets/<run>``.
        wanted: what they are to be made of.
        shards: of the training split.

    Raises:
        DataError: there are none, or of something else: the message names all that differs.
    """
    remedy = f"make them by python -m pipeline targets {wanted.run}, or dvc repro"
    path = folder / INDEX_FILE
    try:
        index = TargetIndex.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{folder} holds no stored targets of {wanted.run}: {remedy}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no index of stored targets: {error}; {remedy}") from error
    if index.origin is None:
        raise DataError(
            f"{path} says that nothing is stored, since distillation.targets was live when it was "
            f"written: {remedy}"
        )
    if differing := list(_differences(index.origin.model_dump(), wanted.model_dump())):
        raise DataError(
            f"the stored targets in {folder} do not fit: {'; '.join(differing)}: {remedy}"
        )
    aligned = [(file_of(shard), shard.samples) for shard in shards]
    if [(file.name, file.samples) for file in index.files] != aligned:
        raise DataError(f"{path} does not list the shards of the training split: {remedy}")
    return index


def _differences(made: Mapping[str, Any], now: Mapping[str, Any], at: str = "") -> Iterator[str]:
    for name, value in now.items():
        if isinstance(value, Mapping):
            yield from _differences(made[name], value, f"{at}{name}.")
        elif made[name] != value:
            before, after = (
                str(one)[:12] if name in {"weights_sha256", "data_version"} else one
                for one in (made[name], value)
            )
            yield f"{at}{name} was {before} and is now {after}"
