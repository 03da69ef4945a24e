"""Compute settings come from the environment, and what cannot be is refused there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.compute import cores, load
from pipeline.errors import UsageError


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_WORKERS", "2")
    monkeypatch.setenv("DISTILL_STORAGE", "s3://bucket/prefix")
    found = load()
    assert (found.workers, found.absolute_storage) == (2, "s3://bucket/prefix")


def test_a_bad_setting_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_LOADERS", "many")
    with pytest.raises(UsageError, match=r"DISTILL_LOADERS: .*'many'"):
        load()


def test_a_uri_is_refused_where_nothing_could_write_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISTILL_WORKERS", "0")
    monkeypatch.setenv("DISTILL_STORAGE", "s3://bucket/prefix")
    with pytest.raises(UsageError, match="DISTILL_STORAGE=s3://bucket/prefix is written by Ray"):
        load()


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("100000 100000", 1),
        ("150000 100000", 2),
        ("20000 100000", 1),
        ("6400000 100000", 64),
        ("max 100000", 64),
    ],
)
def test_a_containers_limit_of_processor_time_counts_as_cores(
    tmp_path: Path, limit: str, expected: int
) -> None:
    path = tmp_path / "cpu.max"
    path.write_text(f"{limit}\n")
    mine = len(os.sched_getaffinity(0))
    assert cores(path) == min(mine, expected)
    assert cores(tmp_path / "none") == mine
