"""Everything the report tells of, read and held together: nothing is shown that does not fit."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline import evaluation as evaluations
from pipeline.data.shards import Index, read_index
from pipeline.errors import DataError
from pipeline.evaluation import Evaluation, Prediction
from pipeline.params import Params
from pipeline.runs import Run, all_runs
from pipeline.statistics import Comparison, compare


class Metrics(BaseModel):
    """What a model folder says of its training; accuracy in percent."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    validation_accuracy: float
    best_epoch: int
    epochs: int


class ModelRecord(BaseModel):
    """The part of model.json that the report shows."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    run: str
    data_version: str
    code_version: str
    parameters: dict[str, Any]
    metrics: Metrics


@dataclass(frozen=True)
class Epoch:
    """The part of a row of history.csv that the report shows; accuracy in percent."""

    epoch: int
    validation_loss: float
    validation_accuracy: float


@dataclass(frozen=True)
class RunEvidence:
    """What is known of one run."""

    run: Run
    evaluation: Evaluation
    predictions: dict[str, Prediction]
    model: ModelRecord
    history: tuple[Epoch, ...]

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run.name


@dataclass(frozen=True)
class Evidence:
    """What is known of all runs, and the data they share."""

    index: Index
    runs: dict[str, RunEvidence]

    def compare(self, first: str, second: str) -> Comparison:
        """Two runs on the same test images."""
        one, other = self.runs[first].predictions, self.runs[second].predictions
        return compare(
            [row.predicted == row.script for row in one.values()],
            [other[key].predicted == other[key].script for key in one],
        )

    @property
    def chosen(self) -> RunEvidence:
        """The student with the best validation accuracy; of equals, the first.

        Not the best on test: that number would be the luckiest one, not an honest one.
        """
        students = [run for run in self.runs.values() if run.run.role == "student"]
        return max(students, key=lambda run: run.model.metrics.validation_accuracy)


def gather(params: Params, folder: Path, models: Path, shards: Path) -> Evidence:
    """Reads the evidence of every run that the parameters ask for.

    Raises:
        DataError: something is missing, or was made from other data than the rest; the message
            names the run and the command that makes it.
    """
    index = read_index(shards)
    runs = {
        run.name: _run_evidence(run, folder / "evaluations" / run.name, models / run.name, index)
        for run in all_runs(params)
    }
    first, *others = runs.values()
    for other in others:
        if first.predictions.keys() != other.predictions.keys():
            raise DataError(
                f"{first.name} and {other.name} were judged on different images: run "
                f"python -m pipeline evaluate {first.name} and evaluate {other.name}"
            )
    return Evidence(index, runs)


def _run_evidence(run: Run, judged: Path, model: Path, index: Index) -> RunEvidence:
    evaluate = f"python -m pipeline evaluate {run.name}"
    train = f"python -m pipeline train {run.name}"
    if not (judged / evaluations.METRICS_FILE).exists():
        raise DataError(f"{run.name} has no evaluation in {judged}: run {evaluate}")
    evaluation, predictions = evaluations.read(judged)
    if evaluation.data.version != index.version or evaluation.scripts != index.scripts:
        raise DataError(f"{judged} judges other data than the shards hold: run {evaluate}")
    by_key = {row.key: row for row in predictions}
    correct = sum(row.predicted == row.script for row in predictions)
    if (len(by_key), correct) != (evaluation.images, evaluation.correct):
        raise DataError(
            f"{judged}: {evaluations.PREDICTIONS_FILE} ({correct} of {len(by_key)} right) and "
            f"{evaluations.METRICS_FILE} ({evaluation.correct} of {evaluation.images}) disagree: "
            f"run {evaluate}"
        )
    try:
        record = ModelRecord.model_validate_json((model / "model.json").read_text())
        history = read_history(model / "history.csv")
    except FileNotFoundError as error:
        raise DataError(f"{run.name}: {error.filename} is missing: run {train}") from None
    except ValidationError as error:
        raise DataError(f"{model}/model.json: {error}: run {train}") from error
    if record.metrics.best_epoch not in {epoch.epoch for epoch in history}:
        raise DataError(
            f"{model}/history.csv has no epoch {record.metrics.best_epoch}, which model.json calls "
            f"the best: run {train}"
        )
    if record.data_version != index.version:
        raise DataError(f"{model} was trained on other data than the shards hold: run {train}")
    return RunEvidence(run, evaluation, by_key, record, history)


def read_history(path: Path) -> tuple[Epoch, ...]:
    """Reads the epochs of a training.

    Raises:
        DataError: a column is missing, or holds no number.
    """
    with path.open(newline="") as file:
        try:
            return tuple(
                Epoch(
                    epoch=int(row["epoch"]),
                    validation_loss=float(row["validation_loss"]),
                    validation_accuracy=float(row["validation_accuracy"]),
                )
                for row in csv.DictReader(file)
            )
        except (KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path} is no history of a training: {error!r}") from error
