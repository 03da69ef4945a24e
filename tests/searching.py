"""Small projects to search in: two teachers, an assistant, and what they say of every view."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from commands import write_project
from tiny import tiny_model, tiny_params

from pipeline.compute import Compute
from pipeline.data.shards import read_index
from pipeline.params import Params
from pipeline.runs import find
from pipeline.search.journal import Journal, Tried
from pipeline.train.targets import make_targets

GOOD, OTHER, ASSISTANT = "teacher-cnn", "teacher-other", "assistant-cnn"
SPACE: dict[str, Any] = {
    "teacher": {"choice": [GOOD, ASSISTANT, {GOOD: 3, OTHER: 1}]},
    "distillation.weight": {"uniform": [0.3, 1]},
    "training.lr": {"log": [0.003, 0.05]},
}
EPOCHS = 3


def settings(*, epochs: int = EPOCHS, **search: Any) -> dict[str, Any]:
    """Sections of params.yaml with a search."""
    network = {"architecture": "cnn", "channels": [12, 24]}
    student = {"architecture": "cnn", "channels": [8, 16], "dropout": 0}
    assistant = {"architecture": "crnn", "channels": [8, 16], "hidden": 8}
    return {
        "teachers": ["cnn", "other"],
        "models": {
            "cnn": {"network": network},
            "other": {"network": network},
            "assistant": {"network": assistant},
            "student": {"network": student},
        },
        "view": {"height": 16, "width": 32, "augment": {"noise": 0.5}, "cycle": 2},
        "training": {"epochs": epochs, "batch_size": 8, "lr": 0.01, "precision": "fp32"},
        "distillation": {"assistant": {}, "student": {}, "targets": "stored"},
        "search": {"trials": 4, "grace": 1, "seeds": [1, 2], "keep": 5, "space": SPACE, **search},
    }


def params(**search: Any) -> Params:
    """Parameters with a search."""
    return tiny_params(**settings(**search))


def project(folder: Path, **search: Any) -> Path:
    """A folder for ``python -m pipeline search``: shards, models that teach, their targets."""
    write_project(folder, **settings(**search))
    index, chosen = read_index(folder / "data/shards"), params(**search)
    compute = Compute(workers=0, threads=1, storage=str(folder / ".made"))
    for seed, name in enumerate((GOOD, OTHER, ASSISTANT)):
        network = find(chosen, name).network
        tiny_model(folder / "models" / name, index, run=name, network=network, steps=30, seed=seed)
        shards, models, targets = (folder / place for place in ("data/shards", "models", "targets"))
        make_targets(chosen, name, compute, shards=shards, models=models, targets=targets)
    return folder


def change(folder: Path, **search: Any) -> None:
    """Writes params.yaml anew, with another search."""
    content = params(**search).model_dump(mode="json")
    (folder / "params.yaml").write_text(json.dumps(content))


def journal(folder: Path) -> list[dict[str, Any]]:
    """The events of the project's search so far, a line cut short left out."""
    lines = [
        line
        for path in folder.glob(".checkpoints/search-*-kept/journal.jsonl")
        for line in path.read_text().splitlines(keepends=True)
    ]
    return [json.loads(line) for line in lines if line.endswith("\n")]


def tried(
    folder: Path, *rows: tuple[dict[str, Any], list[float]], latency: float = 1.0
) -> list[Tried]:
    """Trials that have ended, of settings and the accuracies of their epochs.

    Args:
        folder: for their journal.
        rows: setting and accuracies.
        latency: of the first; every further one is a tenth slower.
    """
    made = Journal(folder / "journal.jsonl")
    for values, accuracies in rows:
        trial = made.begin("search", 0, values)
        for number, accuracy in enumerate(accuracies, 1):
            metrics = {
                "validation_accuracy": accuracy,
                "validation_loss": 1 - accuracy / 100,
                "images": 48,
                "latency_ms": latency * (1 + 0.1 * (trial.number - 1)),
            }
            made.epoch(trial.number, number, values, metrics)
        made.end(trial.number, "completed")
    return made.of("search")
