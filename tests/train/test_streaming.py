"""Trainings on shards from a bucket end as from disk, whatever happens on the way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from bucket import REMOTE, RUN, train, without_data
from proxy import Fault, Proxy, Request

from pipeline.errors import DataError, DistillError, StorageError, UsageError

STREAM: dict[str, Any] = {"stream": REMOTE, "cache_gib": 0, "patience": 20}
"""No cache: every shard is asked for whenever it is needed."""


@pytest.fixture(scope="module")
def expected(pushed: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of a training from disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(pushed)
        return train(tmp_path_factory.mktemp("disk"), {})


@pytest.fixture
def job(pushed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with neither data nor git."""
    folder = without_data(pushed, tmp_path / "job")
    monkeypatch.chdir(folder)
    return folder


def test_weights_are_those_of_a_training_from_disk(
    job: Path, tmp_path: Path, proxy: Proxy, expected: bytes
) -> None:
    assert train(tmp_path, STREAM) == expected
    print(len(proxy.requests), [r.line[:60] for r in proxy.requests[:30]])


@pytest.mark.parametrize("loaders", [0, 2])
def test_every_object_is_asked_for_once_where_there_is_a_cache(
    job: Path, tmp_path: Path, proxy: Proxy, expected: bytes, loaders: int
) -> None:
    cached = {**STREAM, "cache": str(tmp_path / "cache"), "cache_gib": 1, "loaders": loaders}
    assert train(tmp_path, cached) == expected
    lines = [request.line for request in proxy.requests]
    # The listing, the index, five shards of train and two of validation.
    assert len(set(lines)) == len(lines) == 9
    assert train(tmp_path / "again", cached) == expected
    assert len(proxy.requests) == 11, "the listing and the index"
