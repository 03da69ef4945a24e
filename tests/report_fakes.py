"""Seeded fakes of everything a report is made from, written as the pipeline writes it."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pipeline import evaluation as evaluations
from pipeline.data import shards
from pipeline.data.source import WordImage
from pipeline.evaluation import Bin, Calibration, Evaluation, JudgedData, Prediction, ScriptScore
from pipeline.params import Params, parse
from pipeline.runs import Run, all_runs
from pipeline.scripts import BY_NAME, NAMES, SPLITS, Split
from pipeline.statistics import wilson

PARAMETERS = {"teacher": 21_300_000, "assistant": 1_480_000, "student": 187_000}
LATENCY = {"teacher": 24.1, "assistant": 5.3, "student": 0.84}
SKILL = {"teacher": 2.9, "assistant": 2.6, "student": 2.1}


@dataclass(frozen=True)
class Workspace:
    """A fake project: its parameters and its folders."""

    root: Path
    params: Params
    keys: dict[str, str]

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def shards(self) -> Path:
        return self.root / "data" / "shards"


def params_of(source: str, scripts: tuple[str, ...], teachers: tuple[str, ...]) -> Params:
    """Parameters with these teachers and one further run."""
    networks = {name: {"architecture": "timm", "name": name} for name in teachers}
    return parse(
        {
            "seed": 0,
            "data": {"source": source, "root": "data/words", "scripts": list(scripts)},
            "generate": {"train": 600, "validation": 200, "test": 400},
            "view": {},
            "teachers": list(teachers),
            "models": {name: {"network": network} for name, network in networks.items()}
            | {
                "assistant": {
                    "network": {"architecture": "crnn", "channels": [32, 64], "hidden": 64}
                },
                "student": {"network": {"architecture": "cnn", "channels": [16, 32]}},
            },
            "training": {"epochs": 30},
            "distillation": {"assistant": {}, "student": {}},
            "runs": {
                "student-ensemble": {
                    "model": "student",
                    "teachers": {f"teacher-{name}": 1.0 for name in teachers},
                    "distillation": {"loss": "dist"},
                }
            },
        },
        "fake params.yaml",
    )


def build(
    root: Path,
    *,
    source: str = "generated",
    scripts: tuple[str, ...] = NAMES,
    teachers: tuple[str, ...] = ("ocr", "resnet18"),
    each: int = 6,
    gains: dict[str, float] | None = None,
    extra: bytes = b"",
) -> Workspace:
    """Writes shards with ``each`` test images of a script, and models and evaluations of all runs.

    Args:
        root: an empty folder.
        gains: what a run is better (or worse) by than its role is; 99 reads every image right.
        extra: bytes after the end of every image.
    """
    params = params_of(source, scripts, teachers)
    counts = {"train": each + 2, "validation": max(each // 2, 1), "test": each}
    images = [
        _word(split, script, number, seed, extra)
        for seed, split in enumerate(SPLITS)
        for number in range(counts[split])
        for script in scripts
    ]
    index = shards.build(
        images, root / "data" / "shards", source=source, scripts=scripts, shard_images=50
    )
    keys = {image.key: image.script for image in images if image.split == "test"}
    workspace = Workspace(root, params, keys)
    rng = np.random.default_rng(7)
    difficulty = {key: rng.normal() for key in keys}
    for run in all_runs(params):
        skill = SKILL[run.role] + (gains or {}).get(run.name, 0.0)
        rows = _predict(run, keys, difficulty, scripts, skill)
        evaluation = _evaluate(run, rows, scripts, source, index.version)
        evaluations.write(workspace.reports / "evaluations" / run.name, evaluation, rows)
        _write_model(workspace.models / run.name, run, source, index.version, evaluation)
    write_audit(workspace, counts)
    return workspace


def write_audit(workspace: Workspace, counts: dict[str, int], **changes: object) -> None:
    """Writes an audit of the fake data, ``counts`` images a script, with these fields changed."""
    scripts = workspace.params.data.classes
    audit: dict[str, object] = {
        "source": workspace.params.data.source,
        "scripts": scripts,
        "images": sum(counts.values()) * len(scripts),
        "counts": {split: dict.fromkeys(scripts, each) for split, each in counts.items()},
        "official": None,
        "official_test": None,
        "differences": [],
        "problems": [],
        "duplicates": {split: [] for split in counts},
        "unlabelled": 0,
        "notes": [],
    }
    (workspace.reports / "audit.json").write_text(json.dumps(audit | changes))


def edit(path: Path, **changes: Any) -> None:
    """Changes these fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def draw(script: str, number: int, seed: int) -> bytes:
    """A small JPEG with a word on it."""
    rng = np.random.default_rng([seed, number, *script.encode()])
    dark = tuple(int(value) for value in rng.integers(0, 90, 3))
    light = tuple(int(value) for value in rng.integers(165, 255, 3))
    size = (int(rng.integers(46, 150)), int(rng.integers(20, 44)))
    image = Image.new("RGB", size, light)
    ImageDraw.Draw(image).text((6, size[1] // 2 - 6), f"{script[:4]} {number}", fill=dark)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return buffer.getvalue()


def _word(split: Split, script: str, number: int, seed: int, extra: bytes) -> WordImage:
    key = f"{BY_NAME[script].code}_{number + 1}"
    origin = f"{split}/{script}/{key}.jpg"
    return WordImage(key, split, script, origin, lambda: draw(script, number, seed) + extra)


def _predict(
    run: Run,
    keys: dict[str, str],
    difficulty: dict[str, float],
    scripts: tuple[str, ...],
    skill: float,
) -> list[Prediction]:
    rng = np.random.default_rng([3, *run.name.encode()])
    rows = []
    for key, script in keys.items():
        margin = skill + 1.2 * difficulty[key] + 0.6 * rng.normal()
        place = scripts.index(script)
        wrong = scripts[(place + int(rng.integers(1, min(4, len(scripts))))) % len(scripts)]
        sure = float(1 - 0.5 * np.exp(-abs(margin)))
        right = margin > 0
        rows.append(
            Prediction(key, script, script if right else wrong, sure, sure if right else 1 - sure)
        )
    return rows


def _evaluate(
    run: Run, rows: list[Prediction], scripts: tuple[str, ...], source: str, version: str
) -> Evaluation:
    confusion = [[0] * len(scripts) for _ in scripts]
    for row in rows:
        confusion[scripts.index(row.script)][scripts.index(row.predicted)] += 1
    scores = {}
    for place, script in enumerate(scripts):
        images, correct = sum(confusion[place]), confusion[place][place]
        said = sum(line[place] for line in confusion)
        scores[script] = ScriptScore(
            images=images,
            correct=correct,
            accuracy=100 * correct / images,
            precision=100 * correct / max(said, 1),
            f1=200 * correct / (images + said),
        )
    correct = sum(row.script == row.predicted for row in rows)
    interval = wilson(correct, len(rows))
    teacher = sum(run.name.encode()) % 5 / 10 if run.role == "teacher" else 0
    return Evaluation(
        run=run.name,
        role=run.role,
        model={"teacher": f"timm {run.model}", "assistant": "crnn", "student": "cnn"}[run.role],
        teachers=tuple(run.teachers),
        seeds=(run.seed,),
        data=JudgedData(source=source, split="test", version=version),
        scripts=scripts,
        images=len(rows),
        correct=correct,
        accuracy=interval.value,
        accuracy_low=interval.low,
        accuracy_high=interval.high,
        macro_f1=sum(score.f1 for score in scores.values()) / len(scores),
        per_script=scores,
        confusion=tuple(tuple(line) for line in confusion),
        parameters=round(PARAMETERS[run.role] * (1 - teacher)),
        macs=PARAMETERS[run.role] * 31,
        model_bytes=PARAMETERS[run.role] * 4 + 2048,
        latency_ms=LATENCY[run.role] * (1 - teacher) + len(run.name) / 400,
        calibration=Calibration(
            error=3.25,
            temperature=1.5,
            error_scaled=0.75,
            bins=(
                Bin(images=len(rows) // 2, confidence=60, accuracy=50),
                Bin(images=len(rows) - len(rows) // 2, confidence=97, accuracy=95),
            ),
            bins_scaled=(Bin(images=len(rows), confidence=90, accuracy=89),),
        ),
    )


def _write_model(folder: Path, run: Run, source: str, version: str, evaluation: Evaluation) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng([5, *run.name.encode()])
    top = evaluation.accuracy - 0.4
    rows: list[dict[str, Any]] = []
    for epoch in range(1, run.training.epochs + 1):
        rise = 1 - np.exp(-epoch / 5)
        accuracy = 12 + (top - 12) * rise + 0.6 * rng.normal() * (epoch < 25)
        rows.append(
            {
                "epoch": epoch,
                "images": 600,
                "loss": f"{2.2 * np.exp(-epoch / 4) + 0.03:.6f}",
                "hard_loss": f"{2.2 * np.exp(-epoch / 4) + 0.03:.6f}",
                "soft_loss": "" if not run.teachers else f"{3 * np.exp(-epoch / 6):.6f}",
                "accuracy": f"{accuracy + 1:.4f}",
                "validation_loss": f"{2.2 * np.exp(-epoch / 4) + 0.12:.6f}",
                "validation_accuracy": f"{accuracy:.4f}",
                "lr": 0.001,
                "seconds": 1.5,
                "images_per_second": 400,
                "waiting": 0.02,
            }
        )
    with (folder / "history.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    best = max(rows, key=lambda row: float(row["validation_accuracy"]))
    model = {
        "run": run.name,
        "role": run.role,
        "network": run.network.model_dump(mode="json"),
        "scripts": list(evaluation.scripts),
        "input": {"channels": 1, "height": run.view.height, "width": run.view.width},
        "normalisation": "each image by its own mean and standard deviation",
        "teachers": run.teachers,
        "data_source": source,
        "data_version": version,
        "parameters": {
            "training": run.training.model_dump(mode="json"),
            "distillation": run.distillation and run.distillation.model_dump(mode="json"),
            "view": run.view.model_dump(mode="json"),
            "seed": run.seed,
        },
        "code_version": "5f0c2d9e8b1a",
        "metrics": {
            "validation_accuracy": float(best["validation_accuracy"]),
            "best_epoch": float(best["epoch"]),
            "epochs": float(len(rows)),
            "parameters": float(evaluation.parameters),
        },
    }
    (folder / "model.json").write_text(json.dumps(model, indent=2))
