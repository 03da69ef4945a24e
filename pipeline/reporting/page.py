"""The page for people: what its template is given."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from pipeline.data.audit import Audit
from pipeline.evaluation import Evaluation
from pipeline.params import Params
from pipeline.reporting import figures, published
from pipeline.reporting.evidence import Evidence, RunEvidence
from pipeline.reporting.matrix import Cell, matrix, verdicts
from pipeline.reporting.mistakes import mixed_up, surest_mistakes
from pipeline.reporting.pictures import pictures_of, sheet
from pipeline.reporting.templating import fill
from pipeline.scripts import SPLITS
from pipeline.statistics import wilson

MOST_MISREAD: Final = 40
MOST_PAIRS: Final = 6
PAIR_IMAGES: Final = 6
SHEET_IMAGES: Final = 4

CONTENTS: Final = (
    ("matrix", "The matrix"),
    ("published", "Published results"),
    ("runs", "All runs"),
    ("cost", "Accuracy against cost"),
    ("curves", "Learning curves"),
    ("scripts", "Per script"),
    ("confusion", "Confusions"),
    ("pairs", "Mixed up"),
    ("calibration", "How sure it is"),
    ("misread", "Misread words"),
    ("data", "The data"),
    ("audit", "Audit"),
    ("made", "How it was made"),
)


def render(params: Params, evidence: Evidence, audit: Audit, shards: Path) -> str:
    """The whole page, with every style and picture inside.

    Raises:
        DataError: an image that the page shows cannot be read.
    """
    return fill(
        "index.html.j2", **_results(params, evidence), **_surroundings(evidence, audit, shards)
    )


def _results(params: Params, evidence: Evidence) -> dict[str, Any]:
    runs = list(evidence.runs.values())
    evaluations = [run.evaluation for run in runs]
    chosen = evidence.chosen.evaluation
    teachers = [run.evaluation for run in runs if run.run.role == "teacher"]
    words = published.TEST_WORDS
    obstacle = published.obstacle(evidence.index)
    return {
        "chosen": chosen,
        "largest": max(teachers, key=lambda evaluation: evaluation.parameters),
        "evaluations": evaluations,
        "chosen_first": sorted(evaluations, key=lambda each: each.run != chosen.run),
        "matrix": matrix(params, evidence),
        "student_alone": Cell(evidence.runs["student-alone"].evaluation),
        "verdicts": verdicts(params, evidence),
        "seeds_sentence": _seeds_sentence({run.seeds for run in evaluations}),
        "published": sorted(published.SCRIPTS, key=lambda row: row.script),
        "systems": [
            (system, accuracy, wilson(round(words * accuracy / 100), words))
            for system, accuracy in zip(published.SYSTEMS, published.ALL, strict=True)
        ],
        "test_words": words,
        "others": published.OTHERS,
        "ours": None if obstacle else chosen,
        "obstacle": obstacle,
        "filled_by": published.command(params.data),
        "by_size": figures.scatter(
            _points(runs, lambda evaluation: evaluation.parameters), "parameters", "parameters"
        ),
        "by_latency": figures.scatter(
            _points(runs, lambda evaluation: evaluation.latency_ms),
            "ms for one image on one CPU thread",
            "ms",
        ),
        "curves": figures.curves(runs),
        "reliability": figures.reliability(runs),
        "worst": max(
            100 - score.accuracy
            for evaluation in evaluations
            for score in evaluation.per_script.values()
            if score.images
        ),
    }


def _points(
    runs: Sequence[RunEvidence], cost: Callable[[Evaluation], float]
) -> list[figures.Point]:
    return [
        figures.Point(
            name=run.name,
            role=run.run.role,
            accuracy=run.evaluation.accuracy,
            low=run.evaluation.accuracy_low,
            high=run.evaluation.accuracy_high,
            cost=cost(run.evaluation),
        )
        for run in runs
    ]


def _surroundings(evidence: Evidence, audit: Audit, shards: Path) -> dict[str, Any]:
    index, runs = evidence.index, list(evidence.runs.values())
    generated = index.source == "generated"
    chosen = evidence.chosen
    said = {run.name: list(run.predictions.values()) for run in runs}
    pairs = mixed_up(said, chosen.name, MOST_PAIRS)
    mistakes = surest_mistakes(said[chosen.name])[:MOST_MISREAD]
    shown = {row.key for row in mistakes} | {
        row.key for pair in pairs for way in pair.ways for row in way.rows[:PAIR_IMAGES]
    }
    return {
        "contents": CONTENTS,
        "generated": generated,
        "images_are": "generated words" if generated else "real images",
        "scripts": index.scripts,
        "images": [(split, index.images(split)) for split in SPLITS],
        "mistakes": mistakes,
        "pairs": pairs,
        "pair_images": PAIR_IMAGES,
        "pictures": pictures_of(shards, index, shown),
        "sheet": sheet(shards, index, SPLITS, SHEET_IMAGES),
        "problems": [problem.line() for problem in audit.problems],
        "findings": audit.lines(),
        "counts": audit.table(),
        "official": audit.official is not None,
        "data_version": index.version,
        "code_versions": sorted({run.model.code_version for run in runs}),
        "parameters": [
            (
                run.name,
                run.run.role,
                json.dumps(run.model.parameters, indent=2, sort_keys=True, ensure_ascii=False),
            )
            for run in runs
        ],
        "commands": _commands([run.name for run in runs], generated),
    }


def _seeds_sentence(seeds: set[tuple[int, ...]]) -> str:
    if all(len(each) == 1 for each in seeds):
        return "every run was trained once, with one seed."
    return "the seeds of every run stand in the table of all runs."


def _commands(runs: list[str], generated: bool) -> list[str]:
    steps = ["generate"] * generated + ["shards", *(f"train {run}" for run in runs)]
    return [f"python -m pipeline {step}" for step in (*steps, "evaluate --all", "report")]
