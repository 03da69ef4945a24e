"""What stages left behind, as rows and Markdown."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from flows.stages import Stage

# The files' names and keys are the project's contract with programs. The modules that write them
# would take seconds to import, PyTorch with them, at the start of every run.
ABOUT_FILE, HISTORY_FILE = "model.json", "history.csv"
SUMMARY_FILE, PAGE_FILE = "summary.json", "index.html"

ROLES = (
    ("teacher", "teacher-{}"),
    ("assistant", "assistant-{}"),
    ("student of the teacher", "student-{}"),
    ("student of the assistant", "student-{}-assisted"),
)
"""The columns of the matrix, each with its run's name."""


def rows(stage: Stage, folder: Path, *, changed: bool, seconds: float) -> list[dict[str, Any]]:
    """A table of what came of a stage: measures with their values."""
    found: dict[str, Any] = {
        "outcome": "done" if changed else "nothing to do",
        "seconds": round(seconds, 1),
    }
    for out in stage.outs:
        if (folder / out / ABOUT_FILE).exists():
            about = json.loads((folder / out / ABOUT_FILE).read_text())
            found |= {name: round(value, 4) for name, value in about["metrics"].items()}
            found["images/s"] = _speed(folder / out / HISTORY_FILE)
    for file in stage.metrics:
        found |= _flat(json.loads((folder / file).read_text()))
    return [{"measure": name, "value": value} for name, value in found.items()]


def report_of(stage: Stage, folder: Path) -> str | None:
    """The result matrix as Markdown and where the page is; None where a stage makes no report."""
    files = {out.name: folder / out for out in stage.outs}
    if SUMMARY_FILE not in files:
        return None
    summary = json.loads(files[SUMMARY_FILE].read_text())
    runs = {run["run"]: run for run in summary["runs"]}
    alone = _cell(runs.get("student-alone"))
    names = [role for role, _ in ROLES]
    teachers = [name.removeprefix("teacher-") for name in runs if name.startswith("teacher-")]
    generated = summary["data"]["source"] == "generated"
    kind = "generated words, **not CVSI-2015**" if generated else "words"
    lines = [
        f"Test accuracy in percent with its Wilson 95 % interval, on "
        f"{summary['data']['images']['test']:,} {kind}.",
        "",
        "| teacher network | " + " | ".join([*names[:2], "student alone", *names[2:]]) + " |",
        "|---" * (len(names) + 2) + "|",
    ]
    for teacher in teachers:
        cells = [_cell(runs.get(run.format(teacher))) for _, run in ROLES]
        lines.append(f"| {teacher} | " + " | ".join([*cells[:2], alone, *cells[2:]]) + " |")
    page = files.get(PAGE_FILE)
    return "\n".join([*lines, "", f"The whole report: `{page}`" if page else ""])


def _cell(run: dict[str, Any] | None) -> str:
    if run is None:
        return ""
    return "{accuracy:.2f} ({accuracy_low:.2f}–{accuracy_high:.2f})".format_map(run)


def _speed(history: Path) -> int:
    """Images a second over all epochs' training steps."""
    with history.open(newline="") as file:
        epochs = list(csv.DictReader(file))
    images = sum(int(row["images"]) for row in epochs)
    seconds = sum(int(row["images"]) / float(row["images_per_second"]) for row in epochs)
    return round(images / seconds)


def _flat(metrics: dict[str, Any], path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in metrics.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{path}{name}.")
        else:
            found[path + name] = value
    return found
