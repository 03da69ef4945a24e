"""Tiny data, parameters and models: a training or an evaluation of them takes a second.

A script is a pattern of lines: a network of a few hundred weights learns it in a few steps.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch
from torch.nn import functional

from pipeline.cost import one_thread
from pipeline.data import shards
from pipeline.data.shards import Index
from pipeline.data.source import WordImage
from pipeline.data.view import decode, fit
from pipeline.files import write_whole
from pipeline.models.build import ScriptClassifier, build
from pipeline.models.folder import NORMALISATION, InputSize, ModelInfo, save_model
from pipeline.params import Architecture, Cnn, Params, View, parse
from pipeline.scripts import BY_NAME, SPLITS, Split

SCRIPTS: Final = ("Bengali", "English", "Hindi")
COUNTS: Final[dict[Split, int]] = {"train": 16, "validation": 4, "test": 8}
"""Images of each script."""
VIEW: Final = View(height=16, width=32)
CNN: Final = Cnn(architecture="cnn", channels=(8, 16), dropout=0)


def tiny_jpeg(script: str, number: int, seed: int = 0) -> bytes:
    """A small JPEG: upright, level or slanting strokes, by the script."""
    rng = np.random.default_rng([seed, number, *script.encode()])
    height, width = int(rng.integers(16, 25)), int(rng.integers(24, 49))
    rows, columns = np.mgrid[:height, :width]
    along = {"Bengali": columns, "English": rows, "Hindi": rows + columns}[script]
    strokes = (along + rng.integers(6)) % 6 < 2
    ink, paper = rng.integers(0, 80), rng.integers(160, 240)
    grey = np.where(strokes, ink, paper) + rng.normal(0, 8, (height, width))
    done, content = cv2.imencode(".jpg", grey.clip(0, 255).astype(np.uint8))
    assert done
    return content.tobytes()


def tiny_images(counts: dict[Split, int] = COUNTS, seed: int = 0) -> list[WordImage]:
    """So many images of each of the three scripts in each split."""
    images = []
    for part, split in enumerate(SPLITS):
        for script in SCRIPTS:
            for number in range(counts[split]):
                key = f"{BY_NAME[script].code}_{number:03d}"
                content = tiny_jpeg(script, number, 10 * seed + part)
                read = partial(bytes, content)
                images.append(WordImage(key, split, script, f"{split}/{key}.jpg", read))
    return images


def tiny_shards(
    folder: Path,
    counts: dict[Split, int] = COUNTS,
    *,
    seed: int = 0,
    source: str = "generated",
    shard_images: int = 10,
) -> Index:
    """Shards of :func:`tiny_images`, in the place of ``folder``."""
    return shards.build(
        tiny_images(counts, seed),
        folder,
        source=source,
        scripts=SCRIPTS,
        shard_images=shard_images,
    )


def tiny_params(**overrides: Any) -> Params:
    """Parameters for the tiny shards: a teacher ``cnn``, the assistant, the student.

    Args:
        overrides: sections of params.yaml; the keys they give take the place of the tiny ones.
    """
    content: dict[str, Any] = {
        "seed": 0,
        "data": {"source": "generated", "root": "data/tiny.zip", "scripts": list(SCRIPTS)},
        "generate": {"train": 48, "validation": 12, "test": 24},
        "view": VIEW.model_dump(),
        "teachers": ["cnn"],
        "models": {
            "cnn": {"network": {"architecture": "cnn", "channels": [12, 24]}},
            "assistant": {"network": {"architecture": "crnn", "channels": [8, 16], "hidden": 8}},
            "student": {"network": CNN.model_dump()},
        },
        "training": {"epochs": 2, "batch_size": 8, "lr": 0.01, "precision": "fp32"},
        "distillation": {"assistant": {}, "student": {}},
    }
    for name, section in overrides.items():
        both = isinstance(section, dict) and isinstance(content.get(name), dict)
        content[name] = {**content[name], **section} if both else section
    return parse(content, "tiny params")


def tiny_info(
    index: Index,
    *,
    run: str = "student-alone",
    network: Architecture = CNN,
    view: View = VIEW,
    teachers: tuple[str, ...] = (),
) -> ModelInfo:
    """What a tiny model says of itself."""
    return ModelInfo(
        run=run,
        role=run.split("-", 1)[0],
        network=network,
        scripts=index.scripts,
        input=InputSize(channels=1, height=view.height, width=view.width),
        normalisation=NORMALISATION,
        teachers=dict.fromkeys(teachers, 1.0),
        data_source=index.source,
        data_version=index.version,
        parameters={"seed": 0},
        code_version="0" * 64,
        metrics={"validation_accuracy": 50.0, "best_epoch": 1, "epochs": 1},
    )


def tiny_model(
    folder: Path,
    index: Index,
    *,
    run: str = "student-alone",
    network: Architecture = CNN,
    view: View = VIEW,
    teachers: tuple[str, ...] = (),
    steps: int = 0,
    seed: int = 0,
) -> ScriptClassifier:
    """A model folder ``folder``, after so many steps on the tiny training images.

    Returns:
        The model that was saved, in evaluation mode.
    """
    torch.manual_seed(seed)
    model = build(network, len(index.scripts), view, pretrained=False)
    images, labels = _training_images(view)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    # Threads that wait for each other would take longer than the work itself.
    with one_thread():
        for _ in range(steps):
            optimizer.zero_grad()
            functional.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    folder.mkdir(parents=True, exist_ok=True)
    info = tiny_info(index, run=run, network=network, view=view, teachers=teachers)
    save_model(folder, info, model.state_dict())
    write_whole(
        folder / "history.csv", "epoch,validation_loss,validation_accuracy\n1,1.098612,50.0\n"
    )
    return model.eval()


def _training_images(view: View) -> tuple[torch.Tensor, torch.Tensor]:
    images = [image for image in tiny_images() if image.split == "train"]
    views = np.stack([fit(decode(image.read(), image.origin), view) for image in images])
    labels = [SCRIPTS.index(image.script) for image in images]
    return torch.from_numpy(views[:, None]).float(), torch.tensor(labels)
