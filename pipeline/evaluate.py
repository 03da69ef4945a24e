"""Judges a trained model: on the test split, or on any folder of labelled images."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from pipeline import evaluation
from pipeline.calibration import calibration
from pipeline.cost import count_macs, model_latency_ms
from pipeline.data.loader import Batch
from pipeline.data.shards import read_index
from pipeline.data.source import Source, read_labelled
from pipeline.data.view import Grey, fit
from pipeline.errors import DataError
from pipeline.evaluation import Evaluation, JudgedData, Prediction, ScriptScore
from pipeline.inference import (
    BATCH,
    Answers,
    answer,
    asker,
    check_data,
    load_as_they_are,
    read_image,
    view_of,
)
from pipeline.models.build import ScriptClassifier, describe
from pipeline.models.folder import ABOUT_FILE, WEIGHTS_FILE, ModelInfo, load_model
from pipeline.params import Params, View
from pipeline.progress import Progress
from pipeline.runs import find
from pipeline.statistics import wilson
from pipeline.train.device import default_device

log = logging.getLogger(__name__)

_NAMED_FILES = 10


@dataclass(frozen=True)
class Asked:
    """A model, and what it said of labelled images.

    Attributes:
        folder: the model's.
        model: on the device that it was asked on.
        info: of the model.
        answers: in a fixed order.
        data: which images these are.
    """

    folder: Path
    model: ScriptClassifier
    info: ModelInfo
    answers: Answers
    data: JudgedData


def ask_about_test(folder: Path, shards: Path) -> Asked:
    """Asks a model about the test split.

    Raises:
        DataError: the model or a shard is missing or damaged, or the model was trained on other
            data than the shards hold.
    """
    model, info = load_model(folder)
    index = read_index(shards)
    check_data(info, index, folder, shards)
    progress, total = Progress(f"evaluate {info.run}", "images"), index.images("test")
    batches = load_as_they_are(shards, index, "test", view_of(info))
    answers = answer(asker(model, default_device()), batches, lambda done: progress(done, total))
    data = JudgedData(source=index.source, split="test", version=index.version)
    return Asked(folder, model, info, answers, data)


def ask_about_folder(folder: Path, data: Path) -> Asked:
    """Asks a model about a folder or zip of labelled images, in any of CVSI-2015's layouts.

    Images of scripts that the model does not know are left out. One that cannot be read is an
    error, not a wrong answer and not a smaller test.

    Raises:
        DataError: the model or the folder is missing or damaged, or an image cannot be read; every
            such image is counted, the first ones are named.
    """
    model, info = load_model(folder)
    source = read_labelled(data, info.scripts)
    for note in source.notes:
        log.warning("%s: %s", data, note)
    training = sum(image.split != "test" for image in source.images)
    if training:
        log.warning(
            "%s: %d of the %d images lie in folders of training or validation words, and count "
            "all the same: a model that has seen them looks better than it is",
            *(data, training, len(source.images)),
        )
    views, version = _read_all(source, view_of(info))
    batches = _batches(source, views, info.scripts)
    answers = answer(asker(model, default_device()), batches)
    # Another's folder may be called "cvsi": its name alone must not pass for that data set.
    origin = "generated" if source.generated is not None else f"folder {data.resolve().name}"
    return Asked(
        folder, model, info, answers, JudgedData(source=origin, split="all", version=version)
    )


def evaluate_run(
    params: Params, name: str, *, models: Path, shards: Path, folder: Path
) -> Evaluation:
    """Judges a run's model on the test split, and keeps that in ``folder/<name>/``.

    Raises:
        UsageError: params.yaml asks for no such run.
        DataError: see :func:`ask_about_test`.
    """
    find(params, name)
    asked = ask_about_test(models / name, shards)
    view = view_of(asked.info)
    validation = answer(
        asker(asked.model, default_device()),
        load_as_they_are(shards, read_index(shards), "validation", view),
    )
    found = calibration(asked.answers, validation)
    judged = _judge(asked).model_copy(update={"calibration": found})
    evaluation.write(folder / name, judged, predictions(asked.answers, asked.info.scripts))
    log.info("%s: %.2f %% of %d test images", name, judged.accuracy, judged.images)
    return judged


def evaluate_folder(model_folder: Path, data: Path) -> Evaluation:
    """Judges a model on a folder or zip of labelled images, in any of CVSI-2015's layouts.

    Raises:
        DataError: see :func:`ask_about_folder`.
    """
    return _judge(ask_about_folder(model_folder, data))


def predictions(answers: Answers, scripts: tuple[str, ...]) -> list[Prediction]:
    """A row for every image, in the order of the answers."""
    probabilities = answers.logits.softmax(dim=1)
    best, chosen = probabilities.max(dim=1)
    true = probabilities.gather(1, answers.labels[:, None])[:, 0]
    rows = zip(
        answers.keys,
        answers.labels.tolist(),
        chosen.tolist(),
        best.tolist(),
        true.tolist(),
        strict=True,
    )
    return [
        Prediction(key, scripts[label], scripts[said], probability, given)
        for key, label, said, probability, given in rows
    ]


def _judge(asked: Asked) -> Evaluation:
    model, info, answers = asked.model, asked.info, asked.answers
    if "seed" not in info.parameters:
        raise DataError(
            f"{asked.folder / ABOUT_FILE} names no seed in parameters; train the run again"
        )
    model.cpu()
    said = answers.logits.argmax(dim=1)
    correct = int(answers.right.sum())
    interval = wilson(correct, len(answers.keys))
    confusion = multiclass_confusion_matrix(said, answers.labels, len(info.scripts))
    scores = _scores(said, answers.labels, info.scripts)
    shown = [score.f1 for score in scores.values() if score.images]
    view = view_of(info)
    return Evaluation(
        run=info.run,
        role=info.role,
        model=describe(info.network),
        teachers=tuple(info.teachers),
        seeds=(info.parameters["seed"],),
        data=asked.data,
        scripts=info.scripts,
        images=len(answers.keys),
        correct=correct,
        accuracy=interval.value,
        accuracy_low=interval.low,
        accuracy_high=interval.high,
        macro_f1=sum(shown) / len(shown),
        per_script=scores,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        parameters=sum(weight.numel() for weight in model.parameters()),
        macs=count_macs(model, view),
        model_bytes=(asked.folder / WEIGHTS_FILE).stat().st_size,
        latency_ms=model_latency_ms(model, view),
    )


def _scores(said: Tensor, labels: Tensor, scripts: tuple[str, ...]) -> dict[str, ScriptScore]:
    count = len(scripts)
    recall = multiclass_recall(said, labels, count, average="none")
    precision = multiclass_precision(said, labels, count, average="none")
    f1 = multiclass_f1_score(said, labels, count, average="none")
    return {
        script: ScriptScore(
            images=int((labels == place).sum()),
            correct=int(((labels == place) & (said == place)).sum()),
            accuracy=100 * recall[place].item(),
            precision=100 * precision[place].item(),
            f1=100 * f1[place].item(),
        )
        for place, script in enumerate(scripts)
    }


def _read_all(source: Source, view: View) -> tuple[list[Grey], str]:
    """What is shown of all images, and a SHA-256 over their keys, labels and bytes."""
    views: list[Grey] = []
    faults: list[str] = []
    digest = hashlib.sha256()
    for image in source.images:
        content = image.read()
        digest.update(f"{image.key} {image.script} ".encode())
        digest.update(hashlib.sha256(content).digest())
        try:
            views.append(fit(read_image(content, image.origin), view))
        except DataError as error:
            faults.append(f"  {error}")
    if faults:
        more = [f"  and {len(faults) - _NAMED_FILES} more"] * (len(faults) > _NAMED_FILES)
        raise DataError(
            "\n".join(
                [
                    f"{source.root}: {len(faults)} of {len(source.images)} images cannot be read, "
                    "and an accuracy without them would be one of other images:",
                    *faults[:_NAMED_FILES],
                    *more,
                ]
            )
        )
    return views, digest.hexdigest()


def _batches(source: Source, views: list[Grey], scripts: tuple[str, ...]) -> Iterator[Batch]:
    for start in range(0, len(views), BATCH):
        images = source.images[start : start + BATCH]
        yield Batch(
            torch.from_numpy(np.stack(views[start : start + BATCH])[:, None]),
            torch.tensor([scripts.index(image.script) for image in images]),
            [image.key for image in images],
            {},
        )
