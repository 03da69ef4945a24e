"""What is kept of one model judged on one set of images: the file formats of the evidence.

A folder ``reports/evaluations/<run>/`` holds ``metrics.json`` (an :class:`Evaluation`) and
``predictions.csv`` (a :class:`Prediction` a row).
"""

from __future__ import annotations

import csv
import io
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from pipeline.errors import DataError
from pipeline.files import write_whole

METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.csv"


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScriptScore(_Record):
    """How one script fared; accuracy (recall), precision and F1 in percent."""

    images: int
    correct: int
    accuracy: float
    precision: float
    f1: float


class JudgedData(_Record):
    """The images a model was judged on.

    Attributes:
        source: ``generated``, ``cvsi``, or the folder given to ``evaluate --data``.
        split: ``test``, or ``all`` for a folder.
        version: the data's version, a SHA-256.
    """

    source: str
    split: str
    version: str


class Bin(_Record):
    """Images of whose script a model is about equally sure.

    Attributes:
        images: how many.
        confidence: the mean probability of its choice, in percent.
        accuracy: how many of them it reads right, in percent.
    """

    images: int
    confidence: float
    accuracy: float


class Calibration(_Record):
    """How sure a model is where it is right.

    Attributes:
        error: expected calibration error, in percent points.
        temperature: that logits are to be divided by, chosen on the validation images.
        error_scaled: with that temperature.
        bins: from the least sure on.
        bins_scaled: with that temperature.
    """

    error: float
    temperature: float
    error_scaled: float
    bins: tuple[Bin, ...]
    bins_scaled: tuple[Bin, ...]


class Evaluation(_Record):
    """One model judged on one set of images.

    Attributes:
        run: the run's name.
        role: ``teacher``, ``assistant`` or ``student``.
        model: what the network is, for example ``timm resnet18``.
        teachers: the runs it learnt from.
        seeds: the seeds of its training.
        scripts: names in the order of the logits, and of ``confusion``.
        accuracy: percent of all images, with its Wilson 95 % interval.
        macro_f1: mean F1 over the scripts that the images show, in percent.
        confusion: images with script ``row`` that were taken for script ``column``.
        parameters: weights that training changes.
        macs: multiply-accumulates of one image.
        model_bytes: size of ``model.safetensors``.
        latency_ms: median of one image on one CPU thread, in PyTorch.
        calibration: null for a folder of images, which holds none to choose a temperature by.
    """

    run: str
    role: str
    model: str
    teachers: tuple[str, ...]
    seeds: tuple[int, ...]
    data: JudgedData
    scripts: tuple[str, ...]
    images: int
    correct: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    macro_f1: float
    per_script: dict[str, ScriptScore]
    confusion: tuple[tuple[int, ...], ...]
    parameters: int
    macs: int
    model_bytes: int
    latency_ms: float
    calibration: Calibration | None = None


@dataclass(frozen=True)
class Prediction:
    """What a model said of one image.

    Attributes:
        key: the image's official name.
        script: the true script.
        predicted: the script the model chose.
        probability: what it gave to its choice.
        probability_of_script: what it gave to the true script.
    """

    key: str
    script: str
    predicted: str
    probability: float
    probability_of_script: float


def write(folder: Path, evaluation: Evaluation, predictions: list[Prediction]) -> None:
    """Writes both files of one evaluation."""
    write_whole(folder / METRICS_FILE, evaluation.model_dump_json(indent=2) + "\n")
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Prediction)], lineterminator="\n")
    writer.writeheader()
    for row in predictions:
        rounded = {"probability": f"{row.probability:.6f}"}
        rounded["probability_of_script"] = f"{row.probability_of_script:.6f}"
        writer.writerow(asdict(row) | rounded)
    write_whole(folder / PREDICTIONS_FILE, text.getvalue())


def read(folder: Path) -> tuple[Evaluation, list[Prediction]]:
    """Reads both files of one evaluation.

    Raises:
        DataError: a file is missing or is not what :func:`write` writes.
    """
    try:
        evaluation = Evaluation.model_validate_json((folder / METRICS_FILE).read_text())
        with (folder / PREDICTIONS_FILE).open(newline="") as file:
            predictions = [
                Prediction(
                    key=row["key"],
                    script=row["script"],
                    predicted=row["predicted"],
                    probability=float(row["probability"]),
                    probability_of_script=float(row["probability_of_script"]),
                )
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} holds no evaluation: {error}; evaluate the run again") from error
    return evaluation, predictions
