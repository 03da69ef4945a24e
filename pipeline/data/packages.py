"""The npm packages that fonts and everyday words come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from pipeline.errors import DataError

INSTALL: Final = "npm ci --prefix pipeline/data/fontsource"
FOLDER = Path(__file__).parent / "fontsource"
"""Where package.json is, and where ``npm ci`` puts node_modules."""


def folder(package: str) -> Path:
    """Where a package is, if it is installed."""
    return FOLDER / "node_modules" / package


def check_installed() -> None:
    """Compares the installed packages with package.json.

    Raises:
        DataError: one is missing, or another release than the one named.
    """
    wanted = json.loads((FOLDER / "package.json").read_text())["dependencies"]
    for package, version in wanted.items():
        manifest = folder(package) / "package.json"
        if not manifest.exists():
            raise missing(f"{package} is not there")
        if (found := json.loads(manifest.read_text())["version"]) != version:
            raise missing(f"{package} is {found}, not {version}")


def missing(what: str) -> DataError:
    """The error of a package that is not as it should be, with what to do about it."""
    return DataError(f"fonts and words are not installed in {FOLDER}: {what}; run: {INSTALL}")
