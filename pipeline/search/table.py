"""search/trials.parquet: a row for every trial and epoch."""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow
from pyarrow import parquet

from pipeline.files import write_whole
from pipeline.search.journal import Tried, model_name
from pipeline.search.settings import Value

TRIALS_FILE: Final = "trials.parquet"
_FIRST: Final = {
    "trial": pyarrow.int64(),
    "epoch": pyarrow.int64(),
    "seed": pyarrow.int64(),
    "role": pyarrow.string(),
    "state": pyarrow.string(),
    "error": pyarrow.string(),
    "at": pyarrow.float64(),
    "checkpoint": pyarrow.string(),
}
_KINDS: Final = {bool: pyarrow.bool_(), int: pyarrow.int64(), float: pyarrow.float64()}


def write_table(
    path: Path,
    trials: Sequence[Tried],
    kept: Collection[str],
    default: Mapping[str, Value],
) -> None:
    """Writes the table.

    A trial that failed before its first epoch has a row without one. ``checkpoint`` is the model
    folder of that epoch, beside the table, and null where it was not kept. Settings have the names
    they have in the space; one that the default has outside of it is null where that was trained.

    Args:
        path: of the file.
        trials: all.
        kept: the names of the models in the zoo.
        default: its own setting, as far as the space holds it.
    """
    rows = [
        {**(default if trial.role == "default" else {}), **row}
        for trial in trials
        for row in _rows(trial, kept)
    ]
    names = [*_FIRST, *sorted({name for row in rows for name in row} - set(_FIRST))]
    columns = {name: [row.get(name) for row in rows] for name in names}
    table = pyarrow.table(
        {
            name: pyarrow.array(_alike(values), _FIRST.get(name) or _kind(values))
            for name, values in columns.items()
        }
    )
    content = io.BytesIO()
    parquet.write_table(table, content)
    write_whole(path, content.getvalue())


def _rows(trial: Tried, kept: Collection[str]) -> list[dict[str, Any]]:
    common = {
        "trial": trial.number,
        "seed": trial.seed,
        "role": trial.role,
        "state": trial.state,
        "error": trial.error or None,
    }
    rows: list[dict[str, Any]] = []
    for number, epoch in sorted(trial.epochs.items()):
        name = model_name(trial.number, number)
        checkpoint = f"zoo/{name}" if name in kept else None
        found = {"epoch": number, "at": epoch.at, "checkpoint": checkpoint}
        rows.append({**epoch.metrics, **epoch.values, **common, **found})
    return rows or [{**trial.values, **common}]


def _alike(values: list[Any]) -> list[Any]:
    """Values of one type: a choice may hold several."""
    kinds = {type(value) for value in values if value is not None}
    if len(kinds) < 2:
        return values
    kind = float if kinds == {int, float} else str
    return [None if value is None else kind(value) for value in values]


def _kind(values: list[Any]) -> pyarrow.DataType:
    kinds = {type(value) for value in _alike(values) if value is not None}
    return _KINDS.get(kinds.pop(), pyarrow.string()) if len(kinds) == 1 else pyarrow.string()
