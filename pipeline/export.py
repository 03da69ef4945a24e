"""A model to hand on: its folder, its ONNX twins checked against it, and its card."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Final

import torch

from pipeline import evaluation as evaluations
from pipeline.compute import cores
from pipeline.cost import median_ms
from pipeline.data.loader import Batch
from pipeline.data.shards import read_index
from pipeline.errors import DataError, DistillError
from pipeline.evaluation import Evaluation, Prediction
from pipeline.exported import EXPORT_FILE, Exported, Int8
from pipeline.files import whole_folder, write_whole
from pipeline.inference import Answers, answer, asker, check_data, load_as_they_are, view_of
from pipeline.model_card import model_card
from pipeline.models.folder import ABOUT_FILE, WEIGHTS_FILE, ModelInfo, load_model
from pipeline.onnx_model import onnx_asker, opset, to_int8, to_onnx

log = logging.getLogger(__name__)

ONNX_FILE: Final = "model.onnx"
INT8_FILE: Final = "model.int8.onnx"
CARD_FILE: Final = "README.md"
HISTORY_FILE: Final = "history.csv"

TOLERANCE: Final = 1e-3
"""How far a logit of the ONNX model may be from PyTorch's."""
NOISE: Final = 1e-4
"""Two best logits that are as near as this change places by rounding alone."""


class ExportError(DistillError):
    """The exported model does not answer as the trained one does."""


def export_run(
    name: str, *, models: Path, shards: Path, reports: Path, out: Path = Path("exports")
) -> Exported:
    """Writes ``<out>/<name>/``, whole or not at all.

    It holds the model folder's files, ``model.onnx``, ``model.int8.onnx`` with ranges from the
    validation images, the model card ``README.md`` and ``export.json``.

    Raises:
        DataError: the model, its evaluation or a shard is missing or damaged, or they do not belong
            together.
        ExportError: the ONNX model decides otherwise than the trained one, or its logits are
            further off than :data:`TOLERANCE`.
    """
    folder = models / name
    model, info = load_model(folder)
    if not (folder / HISTORY_FILE).exists():
        raise DataError(f"{folder / HISTORY_FILE} is missing; train {name} again")
    index = read_index(shards)
    check_data(info, index, folder, shards)
    batches = [*load_as_they_are(shards, index, "test", view_of(info))]
    trained = answer(asker(model, torch.device("cpu")), batches)
    evaluation = _evaluation(reports / "evaluations" / name, info, trained)
    proto = to_onnx(model, info)
    content = proto.SerializeToString(deterministic=True)
    twin = answer(onnx_asker(content, cores()), batches)
    validation = load_as_they_are(shards, index, "validation", view_of(info))
    smaller = to_int8(content, (batch.images.float() for batch in validation))
    ask, image = onnx_asker(content, 1), batches[0].images[:1].float()
    exported = Exported(
        run=name,
        largest_difference=largest_difference(name, trained, twin),
        decisions_equal=int((trained.logits.argmax(1) == twin.logits.argmax(1)).sum()),
        test_images=len(trained.keys),
        onnx_bytes=len(content),
        latency_ms_onnx=median_ms(lambda: ask(image)),
        opset=opset(proto),
        int8=_int8(smaller, trained, batches),
    )
    with whole_folder(out / name) as part:
        for file in (WEIGHTS_FILE, ABOUT_FILE, HISTORY_FILE):
            shutil.copyfile(folder / file, part / file)
        write_whole(part / ONNX_FILE, content)
        write_whole(part / INT8_FILE, smaller)
        card = model_card(info.model_dump(), evaluation, exported, index=index)
        write_whole(part / CARD_FILE, card)
        write_whole(part / EXPORT_FILE, exported.model_dump_json(indent=2) + "\n")
    log.info(
        "%s: ONNX and PyTorch agree on %d of %d test images, logits within %.1e",
        *(name, exported.decisions_equal, exported.test_images, exported.largest_difference),
    )
    log.info(
        "%s: in 8 bits %.2f %% instead of %.2f %%, %.3f ms instead of %.3f ms an image",
        *(name, exported.int8.accuracy, evaluation.accuracy),
        *(exported.int8.latency_ms, exported.latency_ms_onnx),
    )
    return exported


def _int8(content: bytes, trained: Answers, batches: list[Batch]) -> Int8:
    said = answer(onnx_asker(content, cores()), batches)
    ask, image = onnx_asker(content, 1), batches[0].images[:1].float()
    return Int8(
        accuracy=100 * int(said.right.sum()) / len(said.keys),
        decisions_equal=int((said.logits.argmax(1) == trained.logits.argmax(1)).sum()),
        bytes=len(content),
        latency_ms=median_ms(lambda: ask(image)),
    )


def largest_difference(name: str, trained: Answers, twin: Answers) -> float:
    """How far any logit of the ONNX model is from the trained model's.

    Raises:
        ExportError: further than :data:`TOLERANCE`, or a decision differs that is no tie.
    """
    largest = float((trained.logits - twin.logits).abs().max())
    differ = _decided(trained) & (trained.logits.argmax(dim=1) != twin.logits.argmax(dim=1))
    if largest > TOLERANCE or differ.any():
        raise ExportError(
            f"{name}: the ONNX model is not the trained one: its logits are up to {largest:.2g} "
            f"off (allowed {TOLERANCE:g}), and it decides {int(differ.sum())} of "
            f"{len(trained.keys)} test images otherwise; nothing was exported. Another network, or "
            "other versions of torch and onnx than in requirements.lock, may export well"
        )
    return largest


def _evaluation(folder: Path, info: ModelInfo, trained: Answers) -> Evaluation:
    """The run's evaluation, if it is one of these weights on these images."""
    evaluation, rows = evaluations.read(folder)
    by_key: dict[str, Prediction] = {row.key: row for row in rows}
    said = [info.scripts[place] for place in trained.logits.argmax(dim=1).tolist()]
    fits = evaluation.run == info.run and by_key.keys() == set(trained.keys)
    if not fits or any(
        decided and by_key[key].predicted != script
        for key, script, decided in zip(trained.keys, said, _decided(trained), strict=True)
    ):
        raise DataError(
            f"{folder} judges another model or other images than {info.run} and the shards are: "
            f"run python -m pipeline evaluate {info.run}"
        )
    return evaluation


def _decided(answers: Answers) -> torch.Tensor:
    """Which images (N,) have a best script by more than rounding."""
    best = answers.logits.topk(2, dim=1).values
    return best[:, 0] - best[:, 1] > NOISE
