"""A student beside Tesseract's detection of scripts, the tool that one would take today."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import cv2
import numpy as np
import torch

from benchmarks.spread import spread
from pipeline.data.shards import Index, Sample, ShardFolder
from pipeline.data.view import decode, fit
from pipeline.errors import UsageError
from pipeline.inference import view_of
from pipeline.models.folder import load_model
from pipeline.onnx_model import onnx_asker, to_onnx
from pipeline.params import Params
from pipeline.train.run import MODELS, SHARDS

WORDS: Final = 500
"""Test words that both are asked about."""
_ENLARGED: Final = 3
_NAMES: Final = {
    "Arabic": "Arabic",
    "Bengali": "Bengali",
    "Devanagari": "Hindi",
    "Kannada": "Kannada",
    "Latin": "English",
    "Tamil": "Tamil",
    "Telugu": "Telegu",
}
"""What Tesseract calls the scripts that it can find; the other three it never does."""

_COMMAND: Final = ("tesseract", "stdin", "stdout", "--psm", "0", "-c", "min_characters_to_try=3")

Asked = Callable[[Sample], str | None]


def beside_tesseract(params: Params, index: Index) -> dict[str, Any]:
    """Asks both about the same words, one after the other, each from the bytes of its JPEG.

    Tesseract is given the image three times as large and asked for a script from three characters
    on, at which it does best; its start is in its time. The student, of the first teacher, is asked
    in ONNX Runtime on one thread.

    Raises:
        UsageError: there is no tesseract, or none that detects scripts.
    """
    _check_tesseract()
    samples = [sample for shard in index.of("test") for sample in ShardFolder(SHARDS).read(shard)]
    words = samples[:: max(1, len(samples) // WORDS)][:WORDS]
    ways: dict[str, Asked] = {"tesseract": _tesseract, "student": _student(params)}
    found: dict[str, Any] = {"words": spread([len(words)])}
    for name, ask in ways.items():
        said, seconds = _asked(words, ask)
        right = [word.script == script for word, script in zip(words, said, strict=True)]
        seven = [word.script in _NAMES.values() for word in words]
        found |= {
            f"{name}_accuracy": spread([100 * np.mean(right).item()]),
            f"{name}_seven": spread([100 * np.mean(right, where=seven).item()]),
            f"{name}_milliseconds": spread([1000 * second for second in seconds]),
        }
    return found


def _check_tesseract() -> None:
    """Refuses to measure a Tesseract that is not there, or cannot detect scripts."""
    try:
        done = subprocess.run(["tesseract", "--list-langs"], capture_output=True, check=False)
    except FileNotFoundError:
        said = "there is no tesseract"
    else:
        if "osd" in done.stdout.decode().split():
            return
        said = "tesseract has no data to detect scripts with"
    raise UsageError(f"{said}: apt-get install tesseract-ocr tesseract-ocr-osd")


def _asked(words: Sequence[Sample], ask: Asked) -> tuple[list[str | None], list[float]]:
    ask(words[0])
    said, seconds = [], []
    for word in words:
        began = time.perf_counter()
        said.append(ask(word))
        seconds.append(time.perf_counter() - began)
    return said, seconds


def _tesseract(word: Sample) -> str | None:
    image = cv2.imdecode(np.frombuffer(word.jpeg, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    enlarged = cv2.resize(image, None, fx=_ENLARGED, fy=_ENLARGED, interpolation=cv2.INTER_CUBIC)
    _, png = cv2.imencode(".png", enlarged)
    # It ends with 1 where it sees too few characters.
    done = subprocess.run(_COMMAND, input=png.tobytes(), capture_output=True, check=False)
    lines = done.stdout.decode().splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("Script: ")]
    return _NAMES.get(names[0]) if names else None


def _student(params: Params) -> Asked:
    model, info = load_model(MODELS / f"student-{params.teachers[0]}")
    ask_onnx = onnx_asker(to_onnx(model, info).SerializeToString(), threads=1)
    view = view_of(info)

    def ask(word: Sample) -> str | None:
        image = torch.from_numpy(fit(decode(word.jpeg, word.key), view))[None, None].float()
        return info.scripts[int(ask_onnx(image).argmax())]

    return ask
