"""The model card: the README.md that goes with an exported model."""

from __future__ import annotations

from typing import Any, Final

import yaml

from pipeline.data.shards import Index
from pipeline.evaluation import Evaluation
from pipeline.exported import Exported
from pipeline.reporting.templating import fill
from pipeline.scripts import BY_NAME

_DATA: Final = {
    "generated": "generated words (not CVSI-2015)",
    "cvsi": "real word images",
}


def model_card(
    model: dict[str, Any],
    evaluation: Evaluation,
    exported: Exported,
    *,
    index: Index,
) -> str:
    """The card of one model, as Markdown with the YAML front matter that model hubs read.

    Args:
        model: what the model folder's model.json holds.
        evaluation: the model, judged.
        exported: its ONNX models, judged.
        index: of the shards it was trained on.

    Raises:
        ValueError: model and evaluation are of different runs.
        KeyError: model.json lacks a key that the card tells of.
    """
    if model["run"] != evaluation.run:
        raise ValueError(f"the model is {model['run']}, the evaluation is of {evaluation.run}")
    judged_on = _DATA.get(evaluation.data.source, f"the images in {evaluation.data.source}")
    return fill(
        "model_card.md.j2",
        front_matter=_front_matter(model, evaluation, judged_on),
        model=model,
        evaluation=evaluation,
        exported=exported,
        index=index,
        trained_on=_DATA.get(index.source, index.source),
        judged_on=judged_on,
    )


def _front_matter(model: dict[str, Any], evaluation: Evaluation, judged_on: str) -> str:
    result = {
        "task": {"type": "image-classification", "name": "script identification of word images"},
        "dataset": {
            "type": evaluation.data.source,
            "name": judged_on,
            "split": evaluation.data.split,
            "revision": evaluation.data.version,
        },
        "metrics": [
            {"type": "accuracy", "value": round(evaluation.accuracy / 100, 6)},
            {"type": "f1", "name": "macro-F1", "value": round(evaluation.macro_f1 / 100, 6)},
        ],
    }
    content = {
        "pipeline_tag": "image-classification",
        "license": "other",
        "license_name": "unspecified",
        "language": [BY_NAME[script].language for script in model["scripts"]],
        "tags": ["script-identification", "knowledge-distillation", evaluation.role],
        "model-index": [{"name": evaluation.run, "results": [result]}],
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
