"""Compute settings come from the environment, and what cannot be is refused there."""

from __future__ import annotations

import pytest

from pipeline.compute import load
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
