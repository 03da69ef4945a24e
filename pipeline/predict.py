"""The script of word images, from a model folder and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict

from pipeline.data.archive import MAX_MEMBER
from pipeline.data.view import Grey, fit
from pipeline.errors import DataError, UsageError
from pipeline.inference import BATCH, asker, read_image, view_of
from pipeline.models.folder import load_model
from pipeline.train.device import default_device

SUFFIXES: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


class Answer(BaseModel):
    """What a model says of one image.

    Attributes:
        image: the file, as it was given or found.
        script: the most probable script.
        probability: of that script.
        probabilities: of every script that the model knows.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    image: str
    script: str
    probability: float
    probabilities: dict[str, float]


def predict(model: Path, images: Sequence[Path]) -> list[Answer]:
    """Tells the script of image files, and of all images in folders and their subfolders.

    Args:
        model: a model folder.
        images: files and folders; the answers are in their order, those of a folder sorted.

    Raises:
        UsageError: a path does not exist, or a folder holds no image.
        DataError: the model or an image cannot be read, or an image is too large; the message names
            the file.
    """
    files = [file for path in images for file in _files(path)]
    network, info = load_model(model)
    ask, view = asker(network, default_device()), view_of(info)
    answers: list[Answer] = []
    for start in range(0, len(files), BATCH):
        part = files[start : start + BATCH]
        views = np.stack([fit(_read(file), view) for file in part])[:, None]
        for file, row in zip(part, ask(torch.from_numpy(views).float()).softmax(1), strict=True):
            probabilities = dict(zip(info.scripts, row.tolist(), strict=True))
            script = max(probabilities, key=lambda name: probabilities[name])
            answers.append(
                Answer(
                    image=str(file),
                    script=script,
                    probability=probabilities[script],
                    probabilities=probabilities,
                )
            )
    return answers


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.exists():
            raise UsageError(f"{path} does not exist; give images or folders of images")
        return [path]
    files = [file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file()]
    if not files:
        raise UsageError(f"{path} holds no image ({', '.join(SUFFIXES)}); give another folder")
    return sorted(files)


def _read(path: Path) -> Grey:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_MEMBER + 1)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > MAX_MEMBER:
        raise DataError(f"{path} is larger than {MAX_MEMBER >> 20} MiB, no word image")
    return read_image(content, str(path))
