"""Stored targets: the logits that a teacher gave, once, for every training view."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from pipeline.distill.target_index import StoredFile, TargetIndex
from pipeline.errors import DataError

Logits = npt.NDArray[np.float16]

_TENSOR = "logits"


def pack(logits: Logits) -> bytes:
    """The content of a file: logits (samples, views, classes) of the images of one shard."""
    return save({_TENSOR: logits})


def unpack(content: bytes, shape: tuple[int, int, int], origin: str, remedy: str) -> Logits:
    """The logits in the content of a file.

    Raises:
        DataError: it is no such file, or has another shape; the message names the ``origin``.
    """
    try:
        logits: Logits = load(content)[_TENSOR]
    except (SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{origin} holds no logits: {error!r}; {remedy}") from error
    if logits.shape != shape or logits.dtype != np.float16:
        raise DataError(
            f"{origin} holds {logits.dtype} logits of the shape {logits.shape} instead of float16 "
            f"{shape}; {remedy}"
        )
    return logits


class StoredTargets:
    """What one teacher said of the training views, read from a folder a file at a time.

    Args:
        folder: ``targets/<run>``.
        index: of it, see :func:`pipeline.distill.target_index.read_target_index`.
        window: shards whose logits are kept in memory, as many as the epoch plan mixes.
    """

    def __init__(self, folder: Path, index: TargetIndex, window: int) -> None:
        self._folder, self._index = folder, index
        self._files = lru_cache(maxsize=window + 1)(self._read)

    def at(self, number: int, places: npt.NDArray[np.int64]) -> Logits:
        """The logits (N, classes) of views.

        Args:
            number: which of their views the images are shown in.
            places: (N, 2), the shard of each image and its place in that shard.

        Raises:
            DataError: a file is missing, truncated or changed; the message names it.
        """
        return np.stack([self._files(shard)[place, number] for shard, place in places.tolist()])

    def check(self) -> None:
        """Reads every file.

        Raises:
            DataError: see :meth:`at`.
        """
        for shard in range(len(self._index.files)):
            self._read(shard)

    def _read(self, shard: int) -> Logits:
        file, path = self._index.files[shard], self._folder / self._index.files[shard].name
        assert self._index.origin is not None
        remedy = f"run dvc checkout, or python -m pipeline targets {self._index.origin.run}"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error}; {remedy}") from error
        _check(content, file, path, remedy)
        shape = (file.samples, self._index.views, len(self._index.classes))
        return unpack(content, shape, str(path), remedy)


def _check(content: bytes, file: StoredFile, path: Path, remedy: str) -> None:
    if len(content) != file.bytes:
        raise DataError(
            f"{path} has {len(content)} bytes where the index says {file.bytes}: it is truncated "
            f"or changed; {remedy}"
        )
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise DataError(
            f"{path} does not match its checksum: it was changed after it was written; {remedy}"
        )
