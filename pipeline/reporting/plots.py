"""Tables for `dvc plots` and `dvc metrics`: the same evidence, in the files DVC reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pipeline.evaluation import PREDICTIONS_FILE, Evaluation
from pipeline.files import whole_folder, write_whole

CURVES = "curves"
CONFUSION_FILE = "confusion.csv"
METRICS_FILE = "metrics.json"


def write_plots(folder: Path, models: Path, runs: tuple[str, ...], chosen: str) -> None:
    """Writes a table of learning curves a run, and the predictions of the chosen student."""
    with whole_folder(folder / CURVES) as part:
        for run in runs:
            shutil.copyfile(models / run / "history.csv", part / f"{run}.csv")
    predictions = folder / "evaluations" / chosen / PREDICTIONS_FILE
    write_whole(folder / CONFUSION_FILE, predictions.read_bytes())


def write_metrics(folder: Path, evaluations: list[Evaluation]) -> None:
    """Writes the accuracy of each run, in percent, for `dvc metrics diff` to compare."""
    accuracy = {one.run: round(one.accuracy, 2) for one in evaluations}
    write_whole(folder / METRICS_FILE, json.dumps(accuracy, indent=2) + "\n")
