"""Tables for `dvc plots` and `dvc metrics`: the same evidence, in the files DVC reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from pipeline.evaluation import PREDICTIONS_FILE, Evaluation
from pipeline.files import whole_folder, write_whole
from pipeline.models.folder import read_info

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


def write_metrics(folder: Path, models: Path, evaluations: list[Evaluation]) -> None:
    """Writes the accuracies of each run, in percent, for `dvc metrics diff` to compare.

    Settings are to be chosen by validation: who chose by test would have nothing left to judge on.
    """
    accuracies = {
        one.run: {
            "validation": round(read_info(models / one.run).metrics["validation_accuracy"], 2),
            "test": round(one.accuracy, 2),
        }
        for one in evaluations
    }
    write_whole(folder / METRICS_FILE, json.dumps(accuracies, indent=2) + "\n")
