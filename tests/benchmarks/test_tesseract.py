"""A Tesseract that cannot detect scripts is refused, and not taken for one that knows none."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_params, tiny_shards

from benchmarks.tesseract import beside_tesseract
from pipeline.errors import UsageError


@pytest.mark.parametrize(
    ("languages", "message"),
    [(None, "there is no tesseract"), ("eng\nosdx", "no data to detect scripts with")],
)
def test_without_its_data_it_is_refused(
    languages: str | None, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if languages is not None:
        program = tmp_path / "tesseract"
        program.write_text(f"#!/bin/sh\necho '{languages}'\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=f"{message}: apt-get install tesseract-ocr"):
        beside_tesseract(tiny_params(), tiny_shards(tmp_path / "shards"))
